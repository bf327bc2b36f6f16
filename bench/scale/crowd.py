"""Many agents in one process: the agent's own code from its connections down, without its ports.

    python -m bench.scale.crowd --port 8091 --count 2500 --first 0 --ca ... --cert ... --key ...

Says `ready` on a line of its own once every agent is connected, and ends when its input does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from konnectivity.agent.connections import Connections, SyncOptions
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.link import LinkOptions
from konnectivity.net import tls
from konnectivity.net.h2 import H2Options, H2Settings
from konnectivity.net.loop import run
from konnectivity.tunnel.budget import TunnelLimits

KEEPALIVE = 10.0  # seconds, as the agent has it
LOOK = 0.02  # seconds between looks at whether all are connected


def main() -> int:
    """Run the crowd until the input ends; return the exit status."""
    arguments = _parser().parse_args()
    return run(lambda: _crowd(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.scale.crowd")
    for name in ("port", "count", "first"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--identifiers", default="", help="of each, as ipv4=127.0.0.1")
    return parser


async def _crowd(arguments: argparse.Namespace) -> int:
    context = tls.client_context(
        arguments.ca, cert=arguments.cert, key=arguments.key, alpn=["h2"], insist_on_alpn=True
    )
    agents = [
        Connections(
            LinkOptions(
                host="127.0.0.1",
                port=arguments.port,
                agent_id=f"agent-{arguments.first + number}",
                identifiers=arguments.identifiers,
                token_path="",
                h2=H2Settings(H2Options(keepalive=KEEPALIVE)),
                limits=TunnelLimits(),
            ),
            SyncOptions(interval=1.0, interval_cap=10.0, forever=False),
            context=lambda: context,
            counters=AgentCounters(),
        )
        for number in range(arguments.count)
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(agent.run()) for agent in agents]
        while not all(agent.links for agent in agents):  # noqa: ASYNC110 - a count, no event
            await asyncio.sleep(LOOK)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
    return 0


if __name__ == "__main__":
    sys.exit(main())
