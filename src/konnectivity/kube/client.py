"""A client of the Kubernetes API: lightkube's, with bounds, and with errors in one line.

`connect` is called where a flag asks for the API; nothing is imported or opened before. Requests
are rate-limited as client-go's are, each has a time limit, and the errors that may come of one are
`failures()`, for `except`, and `describe(error)`, for people.

Proxies are taken from `HTTPS_PROXY` and `NO_PROXY`, as lightkube's HTTP library reads them:
differs from client-go, which never asks a proxy for loopback addresses.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from konnectivity import __version__
from konnectivity.errors import ConfigError
from konnectivity.kube.kubeconfig import ACCOUNT, from_file, from_pod, one_line

if TYPE_CHECKING:
    import httpx2
    from lightkube import AsyncClient
    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.core.generic_client import GenericAsyncClient

DEFAULT_QPS: Final = 5.0
DEFAULT_BURST: Final = 10
"""What client-go does without settings (rest.DefaultQPS, rest.DefaultBurst)."""
REQUEST_LIMIT: Final = 10.0
"""Seconds for one request, from its sending to the last byte; of a watch, to its first."""


class RateLimit:
    """A token bucket that is waited for: `burst` at once, then `qps` a second, in order.

    Source: client-go `util/flowcontrol`. A waiter that is cancelled takes nothing.
    """

    def __init__(self, *, qps: float, burst: int) -> None:
        self._interval = 1 / qps if qps > 0 else 0.0
        self._lead = (max(burst, 1) - 1) * self._interval
        self._due = 0.0
        """When the bucket would be full of debts: later than now by what was taken early."""
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait until one more request is within the limit."""
        async with self._turn:
            clock = asyncio.get_running_loop().time
            await asyncio.sleep(max(0.0, self._due - self._lead - clock()))
            self._due = max(self._due, clock()) + self._interval


def connect(
    kubeconfig: str,
    *,
    qps: float = 0.0,
    burst: int = 0,
    timeout: float = REQUEST_LIMIT,
    account: str = ACCOUNT,
    multiplex: bool = False,
) -> AsyncClient:
    """A client for the cluster of `kubeconfig`, or of the pod we run in if that is empty.

    Reads files, talks to nobody. A token file, such as a pod's, is read again when the API has
    refused what it held, and the request is repeated with what it holds now. A `qps` or `burst` of
    0 is client-go's default, a negative `qps` no limit. With `multiplex` all requests share one
    HTTP/2 connection, which pays for who has many watches. `close` it.

    Raises:
        ConfigError: with file, field and remedy.
    """
    config = from_file(Path(kubeconfig).expanduser()) if kubeconfig else from_pod(account)
    where = f"kubeconfig {kubeconfig}" if kubeconfig else f"service account in {account}"
    return connect_with(
        config, where=where, qps=qps, burst=burst, timeout=timeout, multiplex=multiplex
    )


def connect_with(
    config: SingleConfig,
    *,
    where: str,
    qps: float = 0.0,
    burst: int = 0,
    timeout: float = REQUEST_LIMIT,
    multiplex: bool = False,
) -> AsyncClient:
    """As `connect`, for a kubeconfig that has been read; `where` is what errors call it.

    Raises:
        ConfigError: with what cannot be loaded.
    """
    from lightkube import AsyncClient

    try:
        client = AsyncClient(config, transport=_transport(config) if multiplex else None)
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ConfigError(
            f"{where}: cannot load CA, client certificate or key: {error}; "
            "certificates and keys must be PEM, and belong together"
        ) from error.with_traceback(None)  # its frames hold temporary files with keys in them
    except _config_error() as error:
        raise ConfigError(f"{where}: {error}") from error
    # The one place that all requests pass, watches included; lightkube has no hook for it.
    inner: GenericAsyncClient = client._client
    inner.send = _BoundedSend(  # type: ignore[method-assign]
        inner, RateLimit(qps=qps or DEFAULT_QPS, burst=burst or DEFAULT_BURST), timeout
    )
    return client


def _transport(config: SingleConfig) -> httpx2.AsyncBaseTransport | None:
    """One HTTP/2 connection; None, which is lightkube's own, without TLS or through a proxy."""
    from urllib.request import getproxies

    from lightkube.config.client_adapter import verify_cluster

    proxied = {"https", "all"} & getproxies().keys()
    if proxied or config.user is None or not config.cluster.server.startswith("https://"):
        return None
    from konnectivity.kube.http2 import Http2Transport

    return Http2Transport(verify_cluster(config.cluster, config.user, config.abs_file))


class _BoundedSend:
    """Sends a request when its turn has come, and waits for the answer for so long."""

    def __init__(self, inner: GenericAsyncClient, rate: RateLimit, timeout: float) -> None:
        self._send: Callable[..., Awaitable[httpx2.Response]] = inner.send
        self._rate = rate
        self._timeout = timeout

    async def __call__(self, request: httpx2.Request, stream: bool = False) -> httpx2.Response:
        import httpx2

        await self._rate.take()
        request.headers["User-Agent"] = f"konnectivity/{__version__}"
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._send(request, stream=stream)
        except TimeoutError as error:
            raise httpx2.ReadTimeout(
                f"no answer within {self._timeout:g} s", request=request
            ) from error
        response.headers.setdefault("Content-Type", "")  # lightkube takes it for granted
        return response


def _config_error() -> type[Exception]:
    from lightkube.core.exceptions import ConfigError as LightkubeError

    return LightkubeError


def failures() -> tuple[type[Exception], ...]:
    """What a request may raise when the API refuses, is away, or answers nonsense."""
    import httpx2

    # ValueError: what is no JSON, or not of the right shape.
    return (httpx2.HTTPError, httpx2.InvalidURL, _config_error(), ValueError, OSError)


def describe(error: BaseException) -> str:
    """One line for any of `failures()`: the API's own words and its status, or what is in the way.

    No secret is in it: neither headers nor bodies of requests.
    """
    import httpx2
    from lightkube import ApiError

    if isinstance(error, ApiError):
        status = error.status
        text = one_line(status.message or "no message")
        return f"{text} (HTTP {status.code}{f' {status.reason}' if status.reason else ''})"
    if isinstance(error, httpx2.HTTPStatusError):
        response = error.response
        return f"HTTP {response.status_code} {response.reason_phrase} from {_target(error)}"
    if isinstance(error, httpx2.TimeoutException):
        return f"{_target(error)}: {one_line(error) or 'too slow to connect'}"
    if isinstance(error, httpx2.HTTPError):
        return f"{_target(error)}: {one_line(_deepest(error)) or type(error).__name__}"
    return one_line(error) or type(error).__name__


def _target(error: httpx2.HTTPError) -> str:
    """Which API server; its path may name objects and stays out."""
    try:
        url = error.request.url
    except RuntimeError:
        return "the Kubernetes API"
    return f"{url.scheme}://{url.netloc.decode()}"


def _deepest(error: BaseException) -> BaseException:
    """The cause that says most: the libraries wrap the system's words several times.

    An answer of the API is no cause of theirs: it was to the request before this one.
    """
    from httpx2 import HTTPStatusError

    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, HTTPStatusError):
        error = inner
        inner = error.__cause__ or error.__context__
        if isinstance(error, BaseExceptionGroup):
            inner = error.exceptions[0]
    return error
