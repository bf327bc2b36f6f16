"""Counts the servers by their leases (`--count-server-leases`).

The count is there at once and never waited for (W41): 1 until the API has answered, and the last
good one while it is away.

Source: upstream `pkg/agent/lease_counter.go`; differs: only leases with the labels are asked for
(W60), and one that cannot be judged does not count (W33).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.options import AgentOptions
from konnectivity.kube.client import connect
from konnectivity.kube.collection import LEASES, Collection
from konnectivity.kube.leases import OddLeases, State, access_rule, judge, name_of, server_of
from konnectivity.kube.watch import Reflector, WatchOptions
from konnectivity.observe import logs

if TYPE_CHECKING:
    from lightkube import AsyncClient

log = logs.get(__name__)

VERBS: Final = ("get", "list", "watch")


class LeaseCounter:
    """The leases that match `selector`. `async with counter:` follows them until the block ends.

    The client is closed then.

    `changed` is called after each change; it may ask for the count then.
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        namespace: str,
        selector: str,
        counters: AgentCounters,
        changed: Callable[[], None],
        watch: WatchOptions | None = None,
    ) -> None:
        self._client = client
        self._odd = OddLeases()
        self._reflector = Reflector(
            Collection(client, LEASES.format(namespace=namespace)),
            selector,
            what=f"server leases in namespace {namespace}",
            remedy=access_rule(VERBS, namespace),
            changed=changed,
            lists=counters.lease_lists,
            watches=counters.lease_watches,
            options=watch,
        )

    async def __aenter__(self) -> LeaseCounter:
        await self._reflector.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reflector.__aexit__()
        await self._client.close()

    @property
    def count(self) -> int:
        """How many servers have a valid lease; at least 1."""
        return max(1, len(self._valid()))

    @property
    def synced(self) -> bool:
        """Whether the API has answered at all."""
        return self._reflector.synced

    @property
    def servers(self) -> dict[str, str] | None:
        """The agent address, which may be empty, of each server that has a valid lease, by id.

        None unless that is all of them: there was no answer yet, no lease is valid, or one of
        them does not say whose it is.
        """
        servers = dict(self._valid())
        return servers if servers and "" not in servers else None

    def _valid(self) -> list[tuple[str, str]]:
        """Id and address behind each valid lease."""
        now = self._reflector.as_of
        valid, odd = [], {}
        for item in self._reflector.objects.values():
            judgement = judge(item, now)
            if judgement.state is State.VALID:
                valid.append(server_of(item))
            elif judgement.state is State.ODD:
                odd[name_of(item)] = judgement.reason
        for name, reason in self._odd.news(odd):
            log.warning("A lease does not count", lease=name, reason=reason)
        return valid


async def open_counter(
    options: AgentOptions, counters: AgentCounters, *, changed: Callable[[], None]
) -> LeaseCounter:
    """A counter with a client of its own; requests begin when it is entered.

    Raises:
        ConfigError: the flags give no way to the API.
    """
    client = await asyncio.to_thread(connect, options.kubeconfig)  # in a thread: imports, files
    return LeaseCounter(
        client,
        namespace=options.lease_namespace,
        selector=options.lease_label_selector,
        counters=counters,
        changed=changed,
    )
