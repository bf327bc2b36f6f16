"""`konnectivity doctor` for tests: what it finds, by code."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from konnectivity.cli.flags import parse
from konnectivity.diagnose.catalogue import CHECKS
from konnectivity.diagnose.collect import collect
from konnectivity.diagnose.doctor_options import DoctorOptions, problems
from konnectivity.diagnose.engine import run
from konnectivity.diagnose.report_json import document


@dataclass(frozen=True)
class Diagnosis:
    """The JSON document of one run."""

    document: Mapping[str, Any]

    @property
    def codes(self) -> set[str]:
        """What is wrong."""
        return {each["code"] for each in self.document["checks"] if each["findings"]}

    @property
    def unknown(self) -> set[str]:
        return self._with("unknown")

    @property
    def skipped(self) -> dict[str, list[str]]:
        """What was not told, and the codes that explain it."""
        checks = self.document["checks"]
        return {each["code"]: each["blockedBy"] for each in checks if each["result"] == "skipped"}

    def _with(self, result: str) -> set[str]:
        return {each["code"] for each in self.document["checks"] if each["result"] == result}

    def finding(self, code: str) -> Mapping[str, Any]:
        """The only finding of a check."""
        (check,) = (each for each in self.document["checks"] if each["code"] == code)
        (found,) = check["findings"]
        return found

    def text(self, code: str) -> str:
        """All that the findings of a check say."""
        (check,) = (each for each in self.document["checks"] if each["code"] == code)
        return json.dumps(check["findings"], ensure_ascii=False)

    @property
    def status(self) -> int:
        return int(self.document["exitStatus"])


async def diagnose(*argv: str, environ: Mapping[str, str] | None = None) -> Diagnosis:
    """What a run with these flags finds. Without `environ` it knows no proxy and no cluster."""
    options = parse(DoctorOptions, [*argv]).options
    assert not await asyncio.to_thread(lambda: list(problems(options)))
    case = await collect(options, environ or {})
    return Diagnosis(document(list(run(CHECKS, case, suppress=options.suppress)), case))


async def command(
    *argv: str, enter: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """`konnectivity doctor <argv>` as a process: status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *enter,
        sys.executable,
        *("-m", "konnectivity", "doctor", *argv),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": "/nonexistent", **(environ or {})},
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
