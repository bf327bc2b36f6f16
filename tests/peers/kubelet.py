"""Stand-ins for kubelets: they say how pods are, or run them as the agent's real program.

A node of a `ProgramKubelet` is this machine: pods share its network, so their ports are replaced
by free ones, and files that a pod mounts are those of folders here.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.peers.ports import free_port
from tests.peers.program import Program, running

Object = dict[str, Any]


class Kubelet(Protocol):
    """Runs pods; all of one cluster's nodes."""

    async def start(self, pod: Object) -> None:
        """Begin to run a pod that is assigned to a node."""

    async def state(self, pod: Object) -> Object:
        """The `status` of a pod that was started."""

    async def stop(self, pod: Object) -> None:
        """End a pod, with its grace period."""

    def log(self, pod: Object, lines: int) -> str:
        """The last lines of its log."""


def status(*, ready: bool, why: str = "", waiting: Mapping[str, str] | None = None) -> Object:
    """The `status` of a pod with one container."""
    state = {"waiting": dict(waiting)} if waiting else {"running": {}}
    condition = {"type": "Ready", "status": str(ready)}
    if why:
        condition["message"] = why
    return {
        "phase": "Pending" if waiting else "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}, condition],
        "containerStatuses": [
            {"name": "konnectivity-agent", "ready": ready, "restartCount": 0, "state": state}
        ],
    }


@dataclass
class ToldKubelet:
    """Nothing runs: pods are as `judge` says, and have an empty log."""

    judge: Callable[[Object], Object] = lambda pod: status(ready=True)
    stopping: float = 0.0
    """Seconds for which a pod that is told to go stays."""

    async def start(self, pod: Object) -> None:
        pass

    async def state(self, pod: Object) -> Object:
        return self.judge(pod)

    async def stop(self, pod: Object) -> None:
        await asyncio.sleep(self.stopping)

    def log(self, pod: Object, lines: int) -> str:
        return ""


@dataclass
class Run:
    """One pod's process."""

    program: Program
    port: int
    doors: AsyncExitStack
    ended: str = ""


@dataclass
class ProgramKubelet:
    """Runs `konnectivity agent` with the arguments of the pod's container.

    `mounts` are folders here by the path where a pod mounts them; `kubeconfig` stands for the
    mount of its service account, and says where the Kubernetes API is.
    """

    mounts: Mapping[str, Path]
    kubeconfig: Path
    runs: dict[str, Run] = field(default_factory=dict)
    """By the name of the pod; those that have ended too, for their logs."""

    async def start(self, pod: Object) -> None:
        port = free_port()
        own = (
            "--health-server-host=127.0.0.1",
            f"--health-server-port={port}",
            f"--admin-server-port={free_port()}",
            f"--kubeconfig={self.kubeconfig}",
        )
        doors = AsyncExitStack()
        environment = _environment(pod)
        arguments = [self._here(each) for each in _arguments(pod, environment)]
        program = await doors.enter_async_context(
            running("agent", *arguments, *own, environment=environment)
        )
        self.runs[pod["metadata"]["name"]] = Run(program, port, doors)

    def _here(self, argument: str) -> str:
        for path, folder in self.mounts.items():
            argument = argument.replace(f"={path}/", f"={folder}/")
        return argument

    async def state(self, pod: Object) -> Object:
        """Asks the readiness probe, as a kubelet does."""
        run = self.runs[pod["metadata"]["name"]]
        if run.program.ended:
            waiting = {"reason": "CrashLoopBackOff", "message": "the container ended"}
            return status(ready=False, waiting=waiting)
        probe = pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
        code = await _get(run.port, probe)
        failed = f"Readiness probe failed: HTTP probe failed with statuscode: {code}"
        return status(ready=code == 200, why="" if code == 200 else failed)

    async def stop(self, pod: Object) -> None:
        run = self.runs[pod["metadata"]["name"]]
        if not run.program.ended:
            run.program.signal(signal.SIGTERM)
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
            try:
                async with asyncio.timeout(grace):
                    await run.program.status()
            except TimeoutError:
                run.ended = "killed"
        await run.doors.aclose()

    def log(self, pod: Object, lines: int) -> str:
        run = self.runs[pod["metadata"]["name"]]
        return "\n".join(run.program.lines[-lines:])

    async def close(self) -> None:
        """End all that still runs."""
        for run in self.runs.values():
            await run.doors.aclose()


def _environment(pod: Object) -> dict[str, str]:
    """That of the container, with what a kubelet knows of the pod."""
    meta = pod["metadata"]
    fields = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": pod["spec"]["nodeName"],
        "status.hostIP": "127.0.0.1",
    }
    values: dict[str, str] = {}
    for each in pod["spec"]["containers"][0].get("env") or []:
        source = each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        values[each["name"]] = fields[source] if source else each["value"]
    return values


def _arguments(pod: Object, environment: Mapping[str, str]) -> list[str]:
    """Those of the container, with its variables in them."""
    return [
        re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), each)
        for each in pod["spec"]["containers"][0]["args"]
    ]


async def _get(port: int, path: str) -> int:
    """The status that a probe is answered with; 0: there is no answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(1):
            line = await reader.readline()
    except (OSError, TimeoutError):
        return 0
    finally:
        writer.transport.abort()
    return int(line.split()[1]) if line else 0
