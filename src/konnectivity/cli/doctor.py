"""`konnectivity doctor`: says what is wrong, where, how it is known, and what to do.

Exit statuses: 0 healthy, 1 warnings, 2 errors, 3 it could not tell, or was misused.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from konnectivity.cli.flags import CommandLine, parse
from konnectivity.cli.run import INTERRUPTED, OK, Description, complain, has_told
from konnectivity.diagnose.case import Case
from konnectivity.diagnose.catalogue import CHECKS
from konnectivity.diagnose.check import Result
from konnectivity.diagnose.collect import collect, split_target
from konnectivity.diagnose.doctor_options import DoctorOptions, problems
from konnectivity.diagnose.engine import COULD_NOT_TELL, exit_status, run
from konnectivity.diagnose.sources import configured
from konnectivity.errors import KonnectivityError
from konnectivity.gotext import one_line

NAME: Final = "konnectivity doctor"
ABOUT: Final = (
    "Say what is wrong with an installation, where, how it is known and what to do. It reads the "
    "servers' admin API, the cluster's API and the agents' heartbeats, never the tunnel, and it "
    "changes nothing. Exit status: 0 healthy, 1 warnings, 2 errors, 3 it could not tell."
)
EXAMPLES: Final = (
    "# what servers and cluster tell",
    "{command} --server=http://10.0.0.11:8095,http://10.0.0.12:8095 --kubeconfig=admin.conf",
    "",
    "# before the installation, on a node or in a pod: is there a way to the servers?",
    "{command} --pre --target=konnectivity.example.com:8091 --ca-cert=ca.crt",
    "",
    "# on a node whose agent does not come up, without the cluster's API",
    "{command} --node --target=konnectivity.example.com:8091 --ca-cert=ca.crt",
    "",
    "# beside a server: dial kubelets, webhooks and services from end to end",
    "{command} --probe --frontend=/run/konnectivity/server.socket --kubeconfig=admin.conf",
)


COMMAND: Final = Description(NAME, ABOUT, EXAMPLES)


def main(argv: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    try:
        line = _read(argv)
        if has_told(line, DoctorOptions, command=NAME, of=COMMAND):
            return OK
        wrong = [*line.warnings, *problems(line.options)]
        for target in line.options.target:
            split_target(target)
        for problem in wrong:
            complain(f"{problem}; see {NAME} --help", status=COULD_NOT_TELL)
        return COULD_NOT_TELL if wrong else asyncio.run(_rounds(line.options))
    except KonnectivityError as error:
        return complain(str(error), status=COULD_NOT_TELL)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return COULD_NOT_TELL


def _read(argv: Sequence[str]) -> CommandLine[DoctorOptions]:
    """Flags, over those of the configuration file.

    Raises:
        ConfigError: one of them is wrong.
    """
    line = parse(DoctorOptions, argv)
    if line.wants_help or line.wants_version:
        return line
    defaults = configured(line.options, os.environ)
    return parse(DoctorOptions, argv, defaults=defaults) if defaults else line


async def _rounds(options: DoctorOptions) -> int:
    while True:
        case = await collect(options, os.environ)
        status = _show(options, case)
        if not options.watch:
            return status
        await asyncio.sleep(options.interval)
        sys.stdout.write(f"\n{time.strftime('%H:%M:%S')}\n" if options.output == "table" else "")


def _show(options: DoctorOptions, case: Case) -> int:
    """Judge and print; the exit status."""
    judged = run(CHECKS, case, suppress=options.suppress)
    if options.output == "table":
        results = _table(options, case, judged)
    else:
        results = list(judged)
        sys.stdout.write(_text(options.output, results, case))
    sys.stdout.flush()
    return exit_status(results)


def _table(options: DoctorOptions, case: Case, judged: Iterable[Result]) -> list[Result]:
    """Each result as it comes."""
    from rich.console import Console

    from konnectivity.diagnose.report import Page

    page = Page(Console(), verbose=options.verbose)
    results = []
    for result in judged:
        page.show(result)
        results.append(result)
    page.end(results, case)
    return results


def _text(output: str, results: Sequence[Result], case: Case) -> str:
    from konnectivity.diagnose import report, report_json

    if output == "json":
        return report_json.to_json(results, case) + "\n"
    if output == "junit":
        return report_json.to_junit(results, case) + "\n"
    lines = [*report.short(results), *(one_line(str(each)) for each in case.facts.problems)]
    return "".join(f"{line}\n" for line in [*lines, report.summary(results)])
