"""What the agent serves on its two HTTP listeners (`admin.py`), health and admin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Self

from konnectivity.admin import Doors
from konnectivity.agent import metrics
from konnectivity.agent.connections import Connections
from konnectivity.agent.counters import AgentCounters
from konnectivity.agent.options import AgentOptions
from konnectivity.agent.status import AgentReport
from konnectivity.net.address import join_host_port
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe import status
from konnectivity.observe.api import api, flags, health
from konnectivity.observe.exposition import CONTENT_TYPE, render
from konnectivity.observe.route import Request, Response


class AdminListeners:
    """Both listeners of one agent. `unready` says why it is not ready; empty when it is."""

    def __init__(
        self,
        options: AgentOptions,
        connections: Connections,
        counters: AgentCounters,
        *,
        watch: CertificateWatch,
        unready: Callable[[], str],
    ) -> None:
        self._options = options
        self._connections = connections
        self._counters = counters
        self._watch = watch
        self._unready = unready
        self._report = AgentReport(
            options=options,
            connections=connections,
            counters=counters,
            unready=unready,
            certificates=lambda: watch.certificates,
            listeners=lambda: list(_listeners(options)),
            started_at=time.time(),
        )
        self._doors = Doors()

    async def __aenter__(self) -> Self:
        """Open both.

        Raises:
            ConfigError: a file is wrong or an address cannot be had; nothing stays open.
        """
        options = self._options
        events = self._connections.endpoints.events
        try:
            await self._doors.open(
                options.health_server_host,
                options.health_server_port,
                health(self._ready, self._metrics),
                flag="--health-server-port",
            )
            await self._doors.open_admin(
                options,
                options.admin_server_port,
                {"/metrics": self._redirect, **api(self._report.take, events), **flags(options)},
                flag="--admin-server-port",
                watch=self._watch,
            )
        except BaseException:
            await self._doors.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._doors.close()

    def _ready(self, request: Request) -> Response:
        cause = self._unready()
        if cause:
            text = f"[+]ping ok\n[-]server-connected failed: {cause}\n"
            return Response(text.encode(), status=503)
        if request.asks("verbose"):
            return Response(b"[+]ping ok\n[+]server-connected ok\ncheck passed\n")
        return Response(b"ok")

    def _metrics(self, request: Request) -> Response:
        certificates = self._watch.certificates
        page = render(metrics.families(self._connections, self._counters, certificates))
        return Response(page, content_type=CONTENT_TYPE)

    def _redirect(self, request: Request) -> Response:
        """Metrics live on the health port; scheme-relative, as upstream redirects."""
        host = request.host.rpartition(":")[0] or request.host
        query = f"?{request.query}" if request.query else ""
        where = f"//{host}:{self._options.health_server_port}/metrics{query}"
        return Response(b"", status=301, location=where)


def _listeners(options: AgentOptions) -> Iterator[status.Listener]:
    health = join_host_port(options.health_server_host, options.health_server_port)
    admin = join_host_port(options.admin_bind_address, options.admin_server_port)
    yield status.Listener("health", health, tls=False)
    yield status.Listener("admin", admin, tls=bool(options.admin_cert))
