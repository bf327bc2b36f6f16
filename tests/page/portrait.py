"""Pictures of the page for the documentation: `python -m tests.page.portrait [FOLDER]`.

A server with a thousand agents, five minutes of its life told in some seconds, by day, by night
and on a phone.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.page.browser import Browser, Page
from tests.page.reading import rows, says
from tests.page.scenes import DAY, Scene, agent, busy, server

from konnectivity.observe.status import PeerCertificate, ServerStatus, Status, Time

STEP = 12
LOOKS = 26
PICTURES = {
    "page-light": (1360, 1100, "light"),
    "page-dark": (1360, 1100, "dark"),
    "page-phone": (400, 800, "light"),
}


@dataclass
class Fast(Scene):
    """Each look is `STEP` seconds later than the one before."""

    looks: int = 0
    began: float = 0.0
    first: ServerStatus = field(default_factory=server)

    async def take(self, most: int) -> Status:
        self.looks += 1
        self.status = busy(self.first, self.looks * STEP)
        moment = Time(self.began + (self.looks - LOOKS) * STEP)
        return replace(await super().take(most), generated_at=moment)


def scene() -> Fast:
    """A server where some things are wrong, and most are not."""
    now = time.time()
    status = server(1000, tunnels=420, failures=37)
    agents = list(status.agents)
    shown = PeerCertificate("CN=node", Time(now - 3.4 * DAY))
    agents[17] = agent(17, certificate=shown)
    agents[31] = agent(31, version="", software="grpc-go/1.72.2", credit=False)
    agents[77] = agent(77, draining=True)
    agents[402] = agent(402, certificate=replace(shown, not_after=Time(now + 5.2 * DAY)))
    agents[901] = agent(901, round_trip=1.84)
    del agents[12]
    status = replace(status, agents=tuple(agents))
    made = Fast(status, first=status)
    gone = {"address": "10.0.12.7:40012", "version": "1.0.0", "tunnels": 4, "seconds": 86_400.2}
    cause = "connection reset by peer"
    made.events.publish("agent_disconnected", agent="node-0012", cause=cause, **gone)
    return made


async def portray(page: Page, made: Fast) -> bytes:
    made.looks, made.began = 0, time.time()
    await page.open(made.address)
    await page.until(f"{rows('peers', 20)} && {says('#peers tbody', 'gone')}")
    for number in range(LOOKS):
        known = made.looks
        made.events.publish(
            "dial_failed",
            destination=f"10.0.3.{number}:10250",
            agent=f"node-{number * 7:04}",
            reason="error_response",
            error=f"dial tcp 10.0.3.{number}:10250: connect: connection refused",
            untold=0,
        )
        while made.looks == known:  # noqa: ASYNC110 - a look is no event
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    return await page.picture()


async def main(folder: Path) -> None:
    with Browser() as browser:
        made = scene()
        async with made.served(), browser.page() as page:
            for name, (width, height, scheme) in PICTURES.items():
                await page.look(width=width, height=height, scheme=scheme)
                (folder / f"{name}.png").write_bytes(await portray(page, made))
            assert not page.complaints, page.complaints


if __name__ == "__main__":
    asyncio.run(main(Path(*sys.argv[1:2] or ["docs/images"])))
