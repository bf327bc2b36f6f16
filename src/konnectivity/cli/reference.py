"""The page `docs/reference/flags.md`, from the same declarations as the help.

`python -m konnectivity.cli.reference` prints it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator

from konnectivity.agent.options import AgentOptions
from konnectivity.flag import Flag, flags_of, sections
from konnectivity.observe.log_options import LogOptions
from konnectivity.server.options import ServerOptions

WIDTH = 100  # columns of the page
HEAD = """\
# Flags

The flags of the two programs and of their logs. This page is printed by
`python -m konnectivity.cli.reference`; change the options classes, not the page.

- A value is given as `--flag=value` or `--flag value`. A boolean flag takes it only with `=`, as in
  `--flag=false`; without, it is true.
- Durations are Go's: `300ms`, `90s`, `1h30m`. Lists are separated by commas, and a list flag that
  is repeated adds to its list. Of any other flag the last occurrence counts.
- An unknown flag, or a value that its flag does not take, ends the program with exit status 2 and
  one line that says what would be right.
- Where no default is named, it is empty, 0 or false.
- Flags of upstream's `proxy-server` and `proxy-agent` have upstream's names, types and defaults.
  [Compatibility](../compatibility.md#flags-and-metrics) lists what differs, and the flags that
  upstream does not have.
"""

_FLAG_IN_TEXT = re.compile(r"--[a-z][a-z-]*(?:=\w+)?")
_SOLID = re.compile(r"`[^`]*`|\*\*[^*]*\*\*")  # what must not be broken into two lines


def page() -> str:
    """The whole page in Markdown."""
    parts = [
        HEAD,
        _section("Server: `konnectivity server`, `proxy-server`", _own(ServerOptions)),
        _section("Agent: `konnectivity agent`, `proxy-agent`", _own(AgentOptions)),
        _section("Logs, of both", flags_of(LogOptions)),
    ]
    return "\n".join(parts)


def _own(options: type) -> list[Flag]:
    """The flags that a program does not share with the other one."""
    return sections(options)[0][1]


def _section(title: str, flags: list[Flag]) -> str:
    lines = [f"## {title}", ""]
    for flag in flags:
        lines += _entry(flag)
    return "\n".join([*lines, ""])


def _entry(flag: Flag) -> list[str]:
    name = f"`--{flag.name}`" + (f", `-{flag.short}`" if flag.short else "")
    kind = ", ".join(filter(None, [flag.kind.name or "bool", _default(flag)]))
    text = f"- {name} ({kind}): {' '.join(_sentences(flag))}"
    solid = _SOLID.sub(lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(solid, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\0", " ") for line in lines]


def _default(flag: Flag) -> str:
    if flag.variable:
        return f"default `${flag.variable}`, else a random UUID"
    return f"default `{flag.kind.show(flag.default).strip(chr(34))}`" if flag.default else ""


def _sentences(flag: Flag) -> Iterator[str]:
    if flag.help:
        escaped = re.sub(r"[<*]", r"\\\g<0>", flag.help)
        yield _FLAG_IN_TEXT.sub(r"`\g<0>`", escaped)
    if flag.old_name:
        yield f"`--{flag.old_name}` is its old name."
    if flag.deprecated:
        yield f"**Deprecated**: {flag.deprecated}"


if __name__ == "__main__":
    sys.stdout.write(page())
