"""How the programs open their two HTTP listeners: health for probes, admin for operators.

Health is plain and open, because kubelets and scrapers come without credentials; admin may have
TLS, client certificates and bearer tokens (W50). What is served there each program says itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

from konnectivity.net import bind
from konnectivity.net.admin_tls import for_admin
from konnectivity.net.listen import Listener
from konnectivity.net.reload import CertificateWatch
from konnectivity.observe.admin import AdminServer, Guard
from konnectivity.observe.host import is_loopback, refuse_names
from konnectivity.observe.page import page
from konnectivity.observe.protection import BearerTokens, warn_of_plain_text
from konnectivity.observe.route import Request, Response, Route


class AdminOptions(Protocol):
    """The flags of both programs that concern the admin listener."""

    @property
    def admin_bind_address(self) -> str: ...
    @property
    def admin_cert(self) -> str: ...
    @property
    def admin_key(self) -> str: ...
    @property
    def admin_client_ca(self) -> str: ...
    @property
    def admin_token_file(self) -> str: ...
    @property
    def enable_profiling(self) -> bool: ...
    @property
    def enable_contention_profiling(self) -> bool: ...


class Doors:
    """The listeners that were opened, until `close`, also of a part of them."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def close(self) -> None:
        """Stop listening and end all connections."""
        await self._stack.aclose()

    async def open(self, host: str, port: int, routes: dict[str, Route], *, flag: str) -> None:
        """Listen for whoever comes; `flag` names the port in errors.

        Raises:
            ConfigError: the address cannot be had.
        """
        await self._serve(bind.tcp_socket(host, port, flag=flag), routes)

    async def open_admin(
        self,
        options: AdminOptions,
        port: int,
        routes: dict[str, Route],
        *,
        flag: str,
        watch: CertificateWatch,
    ) -> None:
        """Listen for operators, with the page, the protection and the profiles of `options`.

        Raises:
            ConfigError: as `open`, or a certificate or the file of tokens is wrong.
        """
        routes = page() | routes
        if options.enable_profiling:
            routes = routes | await self._profiles(contention=options.enable_contention_profiling)
        context = for_admin(
            watch,
            cert=options.admin_cert,
            key=options.admin_key,
            client_ca=options.admin_client_ca,
        )
        guard = await _for_bearers(options, encrypted=context is not None)
        sock = bind.tcp_socket(options.admin_bind_address, port, flag=flag)
        # A web site that a browser takes for this port has no token, which the page keeps for its
        # own origin, and no certificate for its name. Other interfaces are asked by any name.
        if guard is None and context is None and is_loopback(sock):
            guard = refuse_names
        await self._serve(sock, routes, guard=guard, context=context)

    async def _serve(
        self,
        sock: socket.socket,
        routes: dict[str, Route],
        *,
        guard: Guard | None = None,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        server = await self._stack.enter_async_context(AdminServer(routes, guard=guard))
        await self._stack.enter_async_context(Listener(sock, server.accept, context=context))

    async def _profiles(self, *, contention: bool) -> dict[str, Route]:
        from konnectivity.observe.lag import LagWatch  # memory for those who ask for it
        from konnectivity.observe.profiling import Profiling

        if not contention:
            return Profiling().routes
        return Profiling(await self._stack.enter_async_context(LagWatch())).routes


async def _for_bearers(options: AdminOptions, *, encrypted: bool) -> Guard | None:
    """Who asks for a token, if one is wanted."""
    if not options.admin_token_file:
        return None
    warn_of_plain_text(options.admin_bind_address, encrypted=encrypted)
    tokens = await asyncio.to_thread(BearerTokens, options.admin_token_file)
    return _but_for_the_page(tokens.refusal)


def _but_for_the_page(guard: Guard) -> Guard:
    """Whoever has no token yet can load the page, which asks for it."""
    open_to_all = page().keys()

    async def refusal(request: Request) -> Response | None:
        return None if request.path in open_to_all else await guard(request)

    return refusal
