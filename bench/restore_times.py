"""The restore times that `make e2e` has measured, drawn as a distribution for each damage.

make e2e KUBECONFIG=... RESTORE_ROUNDS=15 RESTORE_TIMES=times.json
python -m bench.restore_times times.json docs/images/restore-times.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.fleet.plot import distribution


def main(source: str, target: str) -> None:
    figures = json.loads(Path(source).read_text())
    series: dict[str, list[float]] = {}
    for each in figures["restores"]:
        series.setdefault(each["damage"], []).append(each["seconds"])
    title = f"Restore times of one cluster, {figures['date']}"
    below = "from the watch event of the damage to that of the object as it was"
    Path(target).write_text(distribution(title, dict(sorted(series.items())), below=below))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m bench.restore_times TIMES.json PLOT.svg")
    main(*sys.argv[1:])
