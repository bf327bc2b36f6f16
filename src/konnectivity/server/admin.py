"""What the server serves on its two HTTP listeners (`admin.py`), health and admin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Self

from konnectivity.admin import Doors
from konnectivity.net.address import join_host_port
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe import status
from konnectivity.observe.api import api, flags, health
from konnectivity.observe.exposition import CONTENT_TYPE, render
from konnectivity.observe.route import Request, Response, Route
from konnectivity.server import metrics
from konnectivity.server.exchange import Exchange
from konnectivity.server.options import ServerOptions
from konnectivity.server.status import ServerReport


class AdminListeners:
    """Both listeners of one server. `unready` says why it is not ready; empty when it is."""

    def __init__(
        self,
        options: ServerOptions,
        exchange: Exchange,
        *,
        watch: CertificateWatch,
        unready: Callable[[], str],
        stopping: Callable[[], bool],
    ) -> None:
        self._options = options
        self._exchange = exchange
        self._watch = watch
        self._unready = unready
        self._report = ServerReport(
            options=options,
            exchange=exchange,
            unready=unready,
            stopping=stopping,
            certificates=lambda: watch.certificates,
            listeners=lambda: list(listeners(options)),
            started_at=time.time(),
        )
        self._doors = Doors()

    async def __aenter__(self) -> Self:
        """Open both.

        Raises:
            ConfigError: a file is wrong or an address cannot be had; nothing stays open.
        """
        options = self._options
        try:
            await self._doors.open(
                options.health_bind_address,
                options.health_port,
                self.health,
                flag="--health-port",
            )
            await self._doors.open_admin(
                options, options.admin_port, self.admin, flag="--admin-port", watch=self._watch
            )
        except BaseException:
            await self._doors.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._doors.close()

    @property
    def health(self) -> dict[str, Route]:
        """What the health port serves."""
        return health(self._ready, self._metrics)

    @property
    def admin(self) -> dict[str, Route]:
        """What the admin port serves, profiles aside."""
        own = api(self._report.take, self._exchange.events) | flags(self._options)
        return {"/metrics": self._metrics, **own}

    def _ready(self, request: Request) -> Response:
        """Upstream's words; with `?verbose` in Kubernetes' form, as its agent has it."""
        cause = self._unready()
        if not request.asks("verbose"):
            return Response(cause.encode(), status=500) if cause else Response(b"ok")
        if cause:
            text = f"[+]ping ok\n[-]agent-connected failed: {cause}\ncheck failed\n"
            return Response(text.encode(), status=500)
        return Response(b"[+]ping ok\n[+]agent-connected ok\ncheck passed\n")

    def _metrics(self, request: Request) -> Response:
        page = render(metrics.families(self._exchange, self._watch.certificates))
        return Response(page, content_type=CONTENT_TYPE)


def listeners(options: ServerOptions) -> Iterator[status.Listener]:
    """Where a server with these options listens."""
    frontend = options.uds_name or join_host_port(options.server_bind_address, options.server_port)
    agent = join_host_port(options.agent_bind_address, options.agent_port)
    health = join_host_port(options.health_bind_address, options.health_port)
    admin = join_host_port(options.admin_bind_address, options.admin_port)
    yield status.Listener("frontend", frontend, tls=not options.uds_name)
    yield status.Listener("agent", agent, tls=True)
    yield status.Listener("health", health, tls=False)
    yield status.Listener("admin", admin, tls=bool(options.admin_cert))
