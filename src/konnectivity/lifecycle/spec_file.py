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
from konnectivity.lifecycle import bundle
from konnectivity.lifecycle.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.spec import AgentSpec
from konnectivity.lifecycle.spec_check import problems


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
    known = {each.name: each for each in KEYS}
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in _parse(Path(path)).items():
        found = known.get(key.replace("_", "-"))
        if found is None:
            wrong.append(f"unknown key {quote(key)}{_hint(key, known)}")
            continue
        try:
            values[found.field] = _value(found, value, str(Path(path).parent))
        except ValueError as error:
            wrong.append(f"{found.name} {error}")
    return values, wrong


KEYS: Final = (*flags_of(AgentSpec), *flags_of(ControlPlaneSpec))
_AGENTS = frozenset(each.name for each in dataclasses.fields(AgentSpec))


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: it is not TOML: {error}") from error


def _value(flag: Flag, value: Any, directory: str) -> Any:
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
    return bundle.read(value, directory) if flag.field == "ca_bundle" else flag.kind.parse(value)


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
