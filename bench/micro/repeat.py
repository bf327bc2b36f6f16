"""What runs under valgrind: prepares all pieces of work, does one of them so many times.

    python -m bench.micro.repeat NAME TIMES

With 0 times the rest is counted, which is the same whatever the piece.
"""

from __future__ import annotations

import gc
import sys

from bench.micro.work import WORK

WARM = 50
"""Times that each is done before: the interpreter adapts to code that it has seen."""


def main(name: str, times: int) -> None:
    """Do piece `name` so many times."""
    gc.disable()  # when it runs depends on all that was made before
    steps = {each: prepare() for each, (_, prepare) in WORK.items()}
    for step in steps.values():
        for _ in range(WARM):
            step()
    step = steps[name]
    for _ in range(times):
        step()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
