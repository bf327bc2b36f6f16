"""The page `docs/reference/agent-spec.md`, from the specification's own declarations.

`python -m konnectivity.cli.spec_reference` prints it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from typing import Final

from konnectivity.flag import BOOL, DURATION, INT, STRINGS, Flag, flags_of
from konnectivity.lifecycle.specification import sizing
from konnectivity.lifecycle.specification.control_plane_spec import ControlPlaneSpec
from konnectivity.lifecycle.specification.spec import AgentSpec

WIDTH: Final = 100  # columns of the page
HEAD: Final = """\
# Specification

What is to be installed: the keys of a TOML file, and the flags of the commands that take one
(`--spec=FILE`), such as `konnectivity manifests`. This page is printed by
`python -m konnectivity.cli.spec_reference`; change the declarations, not the page.

```toml
server = "konnectivity.example.com:8091"
image = "registry.example.com/konnectivity:1.0"
mode = "deployment"
drain-timeout = "10m"
tolerations = ["dedicated=infra:NoSchedule"]
labels = {team = "network"}
ca-bundle = "@ca.crt"
```

- A flag wins over the file. As flags, lists are separated by commas.
- What stands for `key=value` may be a table. Durations are texts such as `25s`, or seconds.
- `@file` is looked for beside the TOML file; of a flag, in the working directory.
- All that is wrong is told at once, a line each, with exit status 2.
- Where no default is named, it is empty, 0 or false.
"""
OVERRIDES: Final = """\
## Overrides

A path in `overrides` names a field of the DaemonSet or Deployment, and all below it. Once somebody
else has written such a field, it is left as it is. An element of a list is named in brackets, by
what tells it from the others: `spec.template.spec.containers[konnectivity-agent].resources`.
"""
SIZES: Final = """\
## Sizes

Where `replicas` is 0, a deployment has so many agents, and with more than one zone at least
{zones}. All nodes count, also those that are cordoned. Where the requests are empty, they are what
an agent was [measured](../benchmarks.md) to use, for {each} tunnels a node: {rest} MB at rest,
{kubernetes} MB more to count leases, {tunnel} bytes for each idle tunnel, {busy} MB under way. The
limit is twice that, and the {held} MiB that an agent may hold for slow readers: it ends one tunnel
before the kernel ends all. There is no CPU limit.

| Nodes | Agents | CPU | Memory | With leases | Memory limit, with leases |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page in Markdown."""
    agents, servers = _section("Agents", AgentSpec), _section("Control plane", ControlPlaneSpec)
    return "\n".join([HEAD, agents, OVERRIDES, _sizes(), servers]).rstrip() + "\n"


def _section(title: str, options: type) -> str:
    entries = [line for each in flags_of(options) for line in _entry(each)]
    return "\n".join([f"## {title}", "", *entries, ""])


def _entry(flag: Flag) -> list[str]:
    text = f"- `{flag.name}` ({_type(flag)}{_default(flag)}): {_escape(flag.help)}"
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _type(flag: Flag) -> str:
    names = {id(BOOL): "true or false", id(INT): "number", id(DURATION): "duration"}
    return "list" if flag.kind is STRINGS else names.get(id(flag.kind), "text")


def _default(flag: Flag) -> str:
    if not flag.default:
        return ""
    values = flag.default if flag.kind is STRINGS else [flag.kind.show(flag.default).strip('"')]
    return f", default {', '.join(f'`{each}`' for each in values)}"


def _escape(text: str) -> str:
    return re.sub(r"[<*]", r"\\\g<0>", re.sub(r"--([a-z][a-z-]*)(=\w+)?", _named, text))


def _named(found: re.Match[str]) -> str:
    """A key is meant where there is one of that name, else a flag of a program."""
    return f"`{found[1]}`" if found[1] in KEYS else f"`{found[0]}`"


KEYS: Final = frozenset(each.name for each in flags_of(AgentSpec))


def _sizes() -> str:
    text = SIZES.format(
        zones=sizing.FLOOR_WITH_ZONES,
        rest=sizing.AT_REST // 10**6,
        kubernetes=sizing.KUBERNETES // 10**6,
        tunnel=sizing.TUNNEL,
        busy=sizing.UNDER_WAY // 10**6,
        each=sizing.TUNNELS_PER_NODE,
        held=sizing.HELD // sizing.MIB,
    )
    rows = [(f"to {most}", most, count) for most, count in sizing.LADDER]
    rows.append(("more, such as 10000", 10000, sizing.MOST))
    lines = [_row(name, count, sizing.size(nodes, count), nodes) for name, nodes, count in rows]
    lines.append(_row("DaemonSet", 1, sizing.size(1, 1), 1))
    return text + "\n".join([*lines, ""])


def _row(name: str, agents: int, plain: sizing.Size, nodes: int) -> str:
    full = sizing.size(nodes, agents, kubernetes=True)
    cells = (name, agents, plain.cpu, plain.memory, full.memory, full.memory_limit)
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.stdout.write(page())
