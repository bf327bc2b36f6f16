"""The page `docs/reference/commands.md`: the commands that change a cluster, from their help.

`python -m konnectivity.cli.commands_reference` prints it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from typing import Final

from konnectivity.cli import diff, install, restart, uninstall
from konnectivity.cli.cluster import ClusterOptions
from konnectivity.cli.run import Description
from konnectivity.flag import Flag, flags_of
from konnectivity.lifecycle.specification.spec import AgentSpec

WIDTH: Final = 100  # columns of the page
HEAD: Final = """\
# Commands

What installs, changes, restarts and removes the agents of a cluster where no
[manager](../how-to/manager.md) stands; [installing agents](../how-to/install.md) shows them at
work. This page is printed by `python -m konnectivity.cli.commands_reference`; change the commands,
not the page.

| Command | Reads | Changes | Exit status |
|---|---|---|---|
| `install` | file, flags | yes | 0 done, 1 failed, 2 misused |
| `diff` | file, flags, or what is kept in the cluster | no | 0 no difference, 1 a difference, \
2 misused, or it cannot be told |
| `upgrade` | what is kept in the cluster, flags; or a file | yes | 0 done, 1 failed, 2 misused |
| `restart` | | pods | 0 done, 1 failed, 2 misused |
| `uninstall` | | yes, after a question | 0 done, 1 failed or not agreed to, 2 misused |

An interrupt ends each with 130. What goes wrong is one line on standard error, all missing rights
a line for each resource; then nothing has been changed. With `-o json` standard output is one
JSON document, written at the end. Colours and a line that moves are for terminals, and
`NO_COLOR` is respected.

## Flags of all of them
"""
TAIL: Final = """\
## Where the specification is kept

`install` and `upgrade` leave it at the DaemonSet or Deployment:

| Annotation | Holds |
|---|---|
| `konnectivity/specification` | what differs from the defaults, as JSON by the names of the flags |
| `konnectivity/former-specification` | the same of the specification before, for `--rollback` |

Their field manager is `konnectivity-cli`, so a standing manager leaves them alone. Values of
`environment` may be secret and are not copied: they are read from the workload, and a rollback
keeps them. A specification of more than 100 kB, which only a long CA bundle makes, is not kept.
[Why so](../decisions/stored-specification.md).

## JSON

| Command | Fields |
|---|---|
| `diff` | `actions`: for each `object`, `reason` (`install`, `restore`, `drift`, `upgrade`, \
`adopt`), `creates`, `recreates`, `owners`, `changes` with `change` and `writer`; `unreadable` and \
`refused`: reasons by object; `leftovers`; `staying`; `unchanged` |
| `install`, `upgrade` | the same of what was done; `adopted`, `manager`, `specification_kept`, \
`agents`: null, or `wanted`, `updated` and `available` |
| `restart` | `restarted`, `available` |
| `uninstall` | `deleted`, `kept`, `stopped`, `unknown`, `manager` |

Values of environments are never among them.
"""

_SPOKEN: Final = re.compile(
    r"(?<![\w-])(--[a-z][a-z-]*|konnectivity manager|kubectl delete pod -l [\w=-]+"
    r"|\$KUBECONFIG|~/[\w./]+\w)"
)
SPECIFICATION: Final = frozenset(each.name for each in flags_of(AgentSpec))
SHARED: Final = frozenset(each.name for each in flags_of(ClusterOptions))
COMMANDS: Final[tuple[tuple[Description, type], ...]] = (
    (install.INSTALL, install.InstallOptions),
    (diff.COMMAND, diff.DiffOptions),
    (install.UPGRADE, install.UpgradeOptions),
    (restart.COMMAND, restart.RestartOptions),
    (uninstall.COMMAND, uninstall.UninstallOptions),
)


def page() -> str:
    """The whole page in Markdown."""
    shared = _table(flags_of(ClusterOptions))
    return "\n".join([HEAD, shared, *(_section(*each) for each in COMMANDS), TAIL])


def _section(command: Description, options: type) -> str:
    takes = issubclass(options, AgentSpec)
    known = SHARED | (SPECIFICATION if takes else frozenset())
    own = [each for each in flags_of(options) if each.name not in known]
    examples = [each.format(command=command.name) for each in command.examples]
    more = "\nAnd the flags of the [specification](agent-spec.md#agents).\n" if takes else ""
    return "\n".join(
        [
            f"## {command.name}",
            "",
            textwrap.fill(_code(command.about), WIDTH, break_on_hyphens=False),
            "",
            "```console",
            *examples,
            "```",
            "",
            _table(own) + more,
        ]
    )


def _table(flags: list[Flag]) -> str:
    rows = ["| Flag | Default | |", "|---|---|---|", *map(_row, flags)]
    return "\n".join([*rows, ""])


def _row(flag: Flag) -> str:
    name = f"`--{flag.name}`" + (f", `-{flag.short}`" if flag.short else "")
    default = f"`{flag.kind.show(flag.default).strip(chr(34))}`" if flag.default else ""
    return f"| {name} | {default} | {_code(flag.help)} |"


def _code(text: str) -> str:
    """Flags and commands in a text, as code."""
    text = re.sub(r"(?<![\w-])(--[a-z][a-z-]*)", r"`\1`", text)
    return re.sub(
        r"(konnectivity manager|kubectl delete pod -l \S+|\$KUBECONFIG|~/\S+?)(?=[ ,.;])",
        r"`\1`",
        text,
    )


if __name__ == "__main__":
    sys.stdout.write(page())
