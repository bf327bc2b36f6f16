"""A specification as a TOML file: its keys are the names of the flags.

    server = "konnectivity.example.com:8091"
    image = "registry.example.com/konnectivity:1.0"
    tolerations = ["*"]
    labels = {team = "network"}

What stands for `key=value` may also be a table. Durations are texts such as `25s`, or seconds.
"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, Final

from konnectivity.errors import ConfigError
from konnectivity.flag import BOOL, DURATION, INT, STRINGS, Flag, flags_of
from konnectivity.gotext import quote
from konnectivity.lifecycle.specification import bundle
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec
from konnectivity.lifecycle.specification.spec_check import problems


def load(path: str | Path) -> AgentSpec:
    """The specification in a file.

    Raises:
        ConfigError: it cannot be read, or is wrong: all that is, in one line.
    """
    values, wrong = read(path)
    spec = AgentSpec(**{name: value for name, value in values.items() if name in _AGENTS})
    if found := [*wrong, *problems(spec)]:
        raise ConfigError(f"{path}: {'; '.join(found)}")
    return spec


def read(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Values by field, of both specifications, and what is wrong with others, a line each.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    return _values(content, str(path), directory=str(Path(path).parent))


def over(base: AgentSpec, content: bytes, where: str) -> AgentSpec:
    """`base` with the values of a TOML text in place of its own.

    It may come from somebody else, so it must not have our files read. `where` is what errors
    call it.

    Raises:
        ConfigError: it is wrong, or the whole is: all that is, in one line.
    """
    values, wrong = _values(content, where, directory=None)
    foreign = [name for name in values if name not in _AGENTS]
    wrong += [f"{name.replace('_', '-')} is not for agents" for name in foreign]
    if not wrong:
        spec = dataclasses.replace(base, **values)
        wrong = problems(spec)
    if wrong:
        raise ConfigError(f"{where}: {'; '.join(wrong)}")
    return spec


def _values(
    content: bytes, where: str, *, directory: str | None
) -> tuple[dict[str, Any], list[str]]:
    """As `read`; files are relative to `directory`, and may not be named if that is None."""
    known = {each.name: each for each in KEYS}
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in _parse(content, where).items():
        found = known.get(key.replace("_", "-"))
        if found is None:
            wrong.append(f"unknown key {quote(key)}{_hint(key, known)}")
            continue
        try:
            values[found.field] = _value(found, value, directory)
        except ValueError as error:
            wrong.append(f"{found.name} {error}")
    return values, wrong


KEYS: Final = (*flags_of(AgentSpec), *flags_of(ControlPlaneSpec))
_AGENTS = frozenset(each.name for each in dataclasses.fields(AgentSpec))


def _parse(content: bytes, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: it is not TOML: {error}") from error


def _value(flag: Flag, value: Any, directory: str | None) -> Any:
    if flag.kind is STRINGS:
        return _strings(value)
    if flag.kind is BOOL and not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_shown(value)}")
    if flag.kind is INT and type(value) is not int:  # a bool is an int, too
        raise ValueError(f"must be a whole number, not {_shown(value)}")
    if flag.kind is BOOL or flag.kind is INT:
        return value
    if flag.kind is DURATION and type(value) in (int, float):
        return float(value)
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {_shown(value)}")  # noqa: TRY004 - a user's mistake
    if flag.field != "ca_bundle":
        return flag.kind.parse(value)
    if directory is None and value.startswith("@"):
        raise ValueError("must be PEM text here, not the path of a file")
    return bundle.read(value, directory or "")


def _strings(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = [f"{key}={each}" if isinstance(each, str) else each for key, each in value.items()]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"must be a list of texts, not {_shown(value)}")
    return tuple(value)


def _shown(value: Any) -> str:
    return quote(value) if isinstance(value, str) else str(value)


def _hint(key: str, known: dict[str, Flag]) -> str:
    import difflib  # only for a file that is wrong

    close = difflib.get_close_matches(key.replace("_", "-").lower(), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
