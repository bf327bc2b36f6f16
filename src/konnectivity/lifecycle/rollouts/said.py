"""What an agent says in its log about the servers it is on. Pure.

The API tells of a failed probe only its status; the words are in the log (agent/latch.py).
"""

from __future__ import annotations

import re
from typing import Final

LACKING: Final = ("Not on all servers yet", "Ready without having been on all servers")
MET: Final = "On all servers"
_SAID: Final = re.compile(r'lacking"?[=:] ?"([^"]{1,200})"')


def lacking(log: str) -> str:
    """What an agent lacks, by the last that its log says of it; empty if nothing."""
    for line in reversed(log.splitlines()):
        if MET in line:
            return ""
        if any(words in line for words in LACKING):
            found = _SAID.search(line)
            return found[1] if found else "it is not on all servers"
    return ""
