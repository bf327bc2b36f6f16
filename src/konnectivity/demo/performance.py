"""The scenes in order: first without a tunnel, then all of them through each frontend."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from typing import Final

from konnectivity.client import grpc, http_connect
from konnectivity.demo.network import Network
from konnectivity.demo.report import Bar, Row
from konnectivity.demo.scenes import (
    SCENES,
    Advance,
    Kubelet,
    Measurement,
    Scene,
    SceneError,
    expect_unreachable,
)
from konnectivity.demo.stage import Stage
from konnectivity.errors import KonnectivityError

SCENE_TIMEOUT: Final = 20.0
"""Seconds for one scene; a bulk transfer through a slow machine included."""
NOTICE: Final = 0.2
"""Seconds after a failure in which the end of the process that caused it comes to light."""

_DIALS: Final = {"grpc": grpc.dial, "http-connect": http_connect.dial}
_FAULTS: Final = (KonnectivityError, OSError, EOFError, ValueError, LookupError)
"""How a scene fails when the tunnel does not hold; anything else is a mistake of ours."""


class Performance:
    """Plays everything once; `rows` are the outcomes, in order."""

    def __init__(self, modes: Sequence[str]) -> None:
        self.rows: list[Row] = []
        self._modes = modes

    def __len__(self) -> int:
        return 1 + len(self._modes) * len(SCENES)

    @property
    def failure(self) -> str | None:
        """How many rows did not hold, and the first of them; None if all held."""
        failures = [row.summary for row in self.rows if row.held is False]
        if not failures:
            return None
        return f"{len(failures)} of {len(self)} did not hold: {failures[0]}"

    async def play(self, stage: Stage, network: Network, bar: Bar) -> None:
        """Try everything, also after a failure, as long as the processes are alive.

        Raises:
            ProcessError: one of them has ended.
        """
        self._add(await _dial_directly(stage, network, bar), bar)
        tls = ssl.create_default_context(cafile=stage.ca_bundle)
        for mode in self._modes:
            dial = partial(_DIALS[mode], stage.socket_path)
            kubelet = Kubelet(dial, stage.kubelet_host, stage.kubelet_port, tls)
            for what, scene in SCENES.items():
                advance = bar.begin(f"{mode}: {what}")
                measured, held = await _play_scene(scene, kubelet, advance)
                self._add(Row(mode, what, held, measured), bar)
                if not held:
                    await asyncio.sleep(NOTICE)
                stage.expect_alive()

    def _add(self, row: Row, bar: Bar) -> None:
        self.rows.append(row)
        bar.finish(row)


async def _dial_directly(stage: Stage, network: Network, bar: Bar) -> Row:
    bar.begin(what := "direct connection")
    if not network.is_isolated:
        text = "not shown on loopback"
        return Row("", what, None, Measurement(text))
    try:
        failure = await expect_unreachable(stage.kubelet_host, stage.kubelet_port)
    except SceneError as error:
        return Row("", what, False, Measurement(str(error)))
    return Row("", what, True, Measurement(failure))


async def _play_scene(scene: Scene, kubelet: Kubelet, advance: Advance) -> tuple[Measurement, bool]:
    try:
        async with asyncio.timeout(SCENE_TIMEOUT) as limit:
            return await scene(kubelet, advance), True
    except _FAULTS as error:
        late = isinstance(error, TimeoutError) and limit.expired()
        text = f"not done in {SCENE_TIMEOUT:g} s" if late else str(error) or type(error).__name__
        return Measurement(text), False
