"""The command `konnectivity doctor`: output, exit statuses, order, and its pages."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from tests.diagnose.faults.doctor import command
from tests.peers.ports import free_port

from konnectivity.cli.checks_reference import FENCE, pages
from konnectivity.diagnose.attempt import Attempt, Cause, classify
from konnectivity.diagnose.case import Case
from konnectivity.diagnose.catalogue import CHECKS, CODES, NOT_CHECKED
from konnectivity.diagnose.check import Check, Finding, Layer, Severity, Source, Verdict
from konnectivity.diagnose.engine import exit_status, run
from konnectivity.diagnose.facts import Facts, ServerFacts
from konnectivity.diagnose.report import Page, short
from konnectivity.diagnose.report_json import to_json, to_junit
from konnectivity.observe.status import Event, Time
from konnectivity.observe.status_json import from_json

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b[2J\x1b]0;x\x07<b>[red]\n✗ KNC999"


def refused() -> str:
    return f"--target=127.0.0.1:{free_port()}"


# The command


async def test_a_finding_says_what_where_who_and_what_to_do() -> None:
    status, out, err = await command("--pre", refused())
    assert (status, err) == (2, "")
    lines = out.splitlines()
    assert re.fullmatch(r"✗ KNC302  here → 127\.0\.0\.1:\d+", lines[0])
    assert lines[1].startswith("    refused: ")
    assert lines[2].startswith("    seen by probe from here: cannot connect")
    assert lines[3].startswith("    do: start the server")
    assert lines[4] == "    docs/checks/KNC302.md"
    assert "1 error" in lines[-1]
    assert "\x1b" not in out


async def test_json_and_junit_are_what_they_say() -> None:
    _, out, _ = await command("--pre", refused(), "-o", "json")
    found = json.loads(out)
    assert (found["schema"], found["exitStatus"]) == ("konnectivity.doctor/v1", 2)
    assert [each["code"] for each in found["checks"]] == [each.code for each in CHECKS]
    assert sum(found["summary"].values()) == len(CHECKS)
    _, out, _ = await command("--pre", refused(), "-o", "junit")
    suite = ElementTree.fromstring(out)  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == (str(len(CHECKS)), "1")


async def test_short_is_a_line_for_each_finding() -> None:
    _, out, _ = await command("--pre", refused(), "-o", "short")
    assert len([line for line in out.splitlines() if line.startswith("KNC302 error here")]) == 1


async def test_what_is_suppressed_is_not_told() -> None:
    status, out, _ = await command("--pre", refused(), "--suppress=KNC302", "-o", "short")
    assert (status, "KNC302" in out) == (0, False)


async def test_without_anything_to_ask_it_cannot_tell(tmp_path: Path) -> None:
    status, out, err = await command("--server=unix:/nonexistent.sock", "--no-cluster")
    assert (status, err) == (3, "")
    assert "/nonexistent.sock" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--pre"], "--target=host:port, or --spec"),
        (["--pre", "--node", "--target=x"], "exclude each other"),
        (["--pre", "--target=x:y:z"], "not host:port"),
        (["--pre", "--target=x:99999"], "not host:port"),
        (["-o", "yaml"], "output must be"),
        (["--suppress=KNC999"], "there is no such check"),
        (["--suppress=all"], "is no code"),
        (["--kubeconfig=/nonexistent"], "kubeconfig: "),
        (["--spec=/nonexistent"], "spec: "),
        (["--frobnicate"], "unknown flag: --frobnicate"),
        (["now"], "argument"),
    ],
)
async def test_a_mistake_is_one_line_and_no_verdict(argv: list[str], words: str) -> None:
    status, out, err = await command(*argv)
    assert (status, out) == (3, "")
    assert words in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


async def test_a_specification_that_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text('serve = "x"\n')
    status, _, err = await command("--pre", f"--spec={tmp_path}/agents.toml")
    assert status == 3
    assert "Traceback" not in err
    assert "agents.toml" in err


async def test_watch_goes_on_until_it_is_stopped() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "konnectivity", "doctor", "--pre", refused()),
        *("--watch", "--interval=10ms", "-o", "short"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = 0
    async with asyncio.timeout(20):
        while seen < 2:
            seen += (await process.stdout.readline()).startswith(b"KNC302")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    process._transport.close()  # type: ignore[attr-defined]
    assert b"Traceback" not in err


# Order


def check(code: str, *findings: Finding, **options: Any) -> Check:
    return Check(
        code=code,
        title=code,
        layer=Layer.MESH,
        needs=(Source.ATTEMPTS,),
        evaluate=lambda _: findings,
        **options,
    )


def finding(*about: str, **options: Any) -> Finding:
    return Finding(subject="s", evidence="e", said_by=("w",), remedy="r", about=about, **options)


def case(*attempts: Attempt, **options: Any) -> Case:
    attempts = attempts or (Attempt(origin="a", target="b", witness="w"),)
    return Case(facts=Facts(taken_at=1_800_000_000.0, **options), probes=attempts)


def verdicts(*checks: Check) -> list[tuple[Verdict, tuple[str, ...]]]:
    return [(each.verdict, each.blocked_by) for each in run(checks, case())]


def test_a_cause_explains_findings_about_the_same_hop_alone() -> None:
    first = check("KNC1", finding("node-a", "api-1"))
    second = check("KNC2", finding("node-a", "api-1"), blocked_by=("KNC1",))
    third = check("KNC3", finding("node-b", "api-1"), blocked_by=("KNC1",))
    assert verdicts(first, second, third) == [
        (Verdict.ERROR, ()),
        (Verdict.SKIPPED, ("KNC1",)),
        (Verdict.ERROR, ()),
    ]


def test_a_cause_about_everything_explains_everything() -> None:
    first = check("KNC1", finding())
    second = check("KNC2", blocked_by=("KNC1",))
    assert verdicts(first, second)[1] == (Verdict.SKIPPED, ("KNC1",))


def test_what_was_skipped_names_the_root() -> None:
    first = check("KNC1", finding("a", "b"))
    second = check("KNC2", finding("a", "b"), blocked_by=("KNC1",))
    third = check("KNC3", finding("a", "b"), blocked_by=("KNC2",))
    assert verdicts(first, second, third)[2] == (Verdict.SKIPPED, ("KNC1",))


def test_a_check_that_fails_on_odd_objects_is_unknown_and_the_others_go_on() -> None:
    def stumble(_: Case) -> Any:
        raise TypeError("a list where a mapping should be")

    odd = check("KNC1", blocked_by=())
    odd = Check(code="KNC1", title="", layer=Layer.MESH, needs=(Source.ATTEMPTS,), evaluate=stumble)
    assert [each[0] for each in verdicts(odd, check("KNC2"))] == [Verdict.UNKNOWN, Verdict.OK]


def test_exit_statuses() -> None:
    fine, bad = check("KNC1"), check("KNC2", finding("a"))
    mild = check("KNC3", finding("b"), severity=Severity.WARNING)
    assert exit_status(run([fine], case())) == 0
    assert exit_status(run([fine, mild], case())) == 1
    assert exit_status(run([fine, mild, bad], case())) == 2
    assert exit_status(run([], case())) == 3


def test_connections_that_end_at_the_same_age_are_cut_by_a_timer() -> None:
    ages = [600.2, 17.0, 601.0, 599.8]
    events = tuple(
        Event(str(at), "agent_disconnected", Time(0.0), {"seconds": age, "tunnels": 0})
        for at, age in enumerate(ages)
    )
    body = json.dumps(STATUS)
    server = ServerFacts("api-1", "http://x", status=from_json(body), events=events)  # type: ignore[arg-type]
    found = [each for each in run(CHECKS, case(servers=(server,))) if each.findings]
    assert [each.check.code for each in found] == ["KNC306"]
    assert "600 s, 3 times" in found[0].findings[0].evidence


def test_a_thousand_agents_that_fail_are_told_in_few_lines() -> None:
    attempts = [
        Attempt(
            origin=f"node-{at}",
            target="api:8091",
            witness=f"heartbeat of node-{at}",
            stage="tcp",
            cause=Cause.REFUSED,
            error="connection refused",
            sources=(f"10.0.{at // 250}.{at % 250}",),
        )
        for at in range(1000)
    ]
    facts = {"agent": "a", "address": "10.0.0.1:5", "error": "no", "reason": "rejected"}
    events = tuple(Event(str(at), "agent_refused", Time(0.0), facts) for at in range(1000))
    status = from_json(json.dumps(STATUS))
    server = ServerFacts("api-1", "http://x", status=status, events=events)  # type: ignore[arg-type]
    results = list(run(CHECKS, case(*attempts, servers=(server,))))
    assert {each.check.code: len(each.findings) for each in results if each.findings} == {
        "KNC302": 1000
    }
    shown = io.StringIO()
    page = Page(Console(file=shown, width=80))
    for each in results:
        page.show(each)
    assert len(shown.getvalue().splitlines()) < 100


STATUS: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ServerStatus",
    "generatedAt": "2027-01-15T08:00:00Z",
    "lastEvent": "x-1",
    "server": {
        "id": "api-1",
        "version": "1",
        "startedAt": "2027-01-15T07:00:00Z",
        "state": "running",
        "ready": True,
        "unready": "",
        "modes": ["grpc"],
        "strategies": [],
        "listeners": [],
        "limits": [],
        "certificates": [],
    },
    "agents": [],
    "dials": {"pending": 0, "succeeded": 0, "failed": {}, "recent": [], "recentFailures": []},
    "tunnelCounts": {},
    "tunnelsEnded": {},
    "tunnels": [],
}


def test_what_peers_chose_reaches_neither_terminal_nor_markup() -> None:
    attempt = Attempt(
        origin=HOSTILE,
        target=HOSTILE,
        witness=HOSTILE,
        stage="tcp",
        cause=Cause.REFUSED,
        error=HOSTILE,
    )
    made = case(attempt)
    results = list(run(CHECKS, made))
    ElementTree.fromstring(to_junit(results, made))  # noqa: S314 - our own
    assert "\x1b" not in to_json(results, made)
    console = Console(width=80, record=True, file=io.StringIO())
    page = Page(console, verbose=True)
    for each in results:
        page.show(each)
    text = console.export_text() + "\n".join(short(results))
    assert "\x1b" not in text
    assert "[red]" in text
    assert not [line for line in text.splitlines() if line.startswith("✗ KNC999")]


@pytest.mark.parametrize(
    ("stage", "error", "cause"),
    [
        ("tcp", "cannot connect to server x:1: connection refused", Cause.REFUSED),
        ("tcp", "cannot connect to server x:1: 10.0.0.1:1: no answer within 20 s", Cause.TIMED_OUT),
        ("tcp", "cannot connect to server x:1: no route to host", Cause.UNREACHABLE),
        ("name", "cannot resolve server name x: no such host", Cause.NO_SUCH_NAME),
        ("proxy", "proxy p:3128 answered 407 to CONNECT x:1", Cause.PROXY_REFUSED),
        ("stream", "server x: closed: too_many_pings (gRPC code 14)", Cause.PINGS),
        ("http2", "something new", Cause.OTHER),
    ],
)
def test_words_have_a_meaning(stage: str, error: str, cause: Cause) -> None:
    assert classify(stage, error) is cause


# Pages


def test_codes_are_unique_and_none_is_both_checked_and_reserved() -> None:
    assert len(CODES) == len(CHECKS)
    assert not CODES & set(NOT_CHECKED)
    order = [each.code for each in CHECKS]
    for each in CHECKS:
        later = {code for code in each.blocked_by if order.index(code) > order.index(each.code)}
        assert not later, f"{each.code} cannot be blocked by what is asked later"


@pytest.mark.parametrize(("path", "text"), list(pages(ROOT / "docs/checks")), ids=lambda e: "")
def test_the_pages_are_what_their_generator_writes(path: Path, text: str) -> None:
    assert path.read_text() == text, "run make reference"
    if path.name != "README.md":
        hand = text.partition(FENCE)[2]
        assert re.search(r"## Cause\n\n\S.*## Remedy\n\n\S", hand, re.DOTALL), f"{path} is empty"
