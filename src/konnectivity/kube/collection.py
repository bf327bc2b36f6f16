"""The objects of one kind in one namespace as plain JSON: list, get, write, delete, watch.

Thin on top of lightkube's client, for what its typed interface lacks: objects with any content,
selectors as text, deletes with a precondition, the status of a watch that is refused.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from konnectivity.observe.histogram import RequestCounts

if TYPE_CHECKING:
    import httpx2
    from lightkube import AsyncClient

Object: TypeAlias = dict[str, Any]
T = TypeVar("T")

APPLY_PATCH: Final = "application/apply-patch+yaml"
"""JSON is YAML, and the API takes it as such."""
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"

LEASES = "apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def status_of(error: BaseException) -> tuple[int, str] | None:
    """HTTP status and reason of an error that the API answered; None: it did not answer."""
    import httpx2
    from lightkube import ApiError

    if isinstance(error, ApiError):
        return error.status.code or 0, error.status.reason or ""
    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code, ""
    return None


def is_named(item: object) -> bool:
    """Whether it is an object with a name, as every object of the API is."""
    meta = item.get("metadata") if isinstance(item, dict) else None
    return isinstance(meta, dict) and isinstance(meta.get("name"), str)


async def timed(request: Awaitable[T], counts: RequestCounts) -> T:
    """The result of a request, which is counted by the status of its answer."""
    started = time.monotonic()
    try:
        result = await request
    except Exception as error:
        if status := status_of(error):
            counts.observe(time.monotonic() - started, status=status[0], reason=status[1])
        raise
    counts.observe(time.monotonic() - started)
    return result


class Collection:
    """Requests for the objects under `path`.

    With a `name`, lists and watches tell of that object alone. Each request raises one of
    `client.failures()`.
    """

    def __init__(self, client: AsyncClient, path: str, *, name: str = "") -> None:
        self._inner: Any = client._client  # untyped
        self._path = path
        self._fields = f"metadata.name={name}" if name else ""

    async def list(self, selector: str = "", *, version: str = "") -> tuple[list[Object], str]:
        """The objects that match, and the version that a watch goes on from.

        `version` "0" lets the API server answer from its cache.
        """
        query = _query(labelSelector=selector, fieldSelector=self._fields, resourceVersion=version)
        content = await self._send("GET", query=query)
        items, meta = content.get("items"), content.get("metadata")
        if not isinstance(items, list) or not isinstance(meta, dict):
            raise ValueError("the API answered with no list")  # noqa: TRY004 - not our fault
        return [each for each in items if is_named(each)], str(meta.get("resourceVersion") or "")

    async def get(self, name: str) -> Object:
        return await self._send("GET", name)

    async def create(self, item: Object) -> Object:
        return await self._send("POST", body=item)

    async def replace(self, item: Object) -> Object:
        """Write over the object of this name; its version, if given, must be the stored one."""
        return await self._send("PUT", item["metadata"]["name"], body=item)

    async def apply(
        self, item: Object, *, manager: str, force: bool = False, dry_run: bool = False
    ) -> Object:
        """Server-side apply: `manager` owns exactly the fields of `item`; created if not there.

        With `force` fields of others are taken over; without, a conflict is a 409 that names
        them.
        """
        query = _query(
            fieldManager=manager,
            force="true" if force else "",
            dryRun="All" if dry_run else "",
        )
        name = item["metadata"]["name"]
        return await self._send("PATCH", name, body=item, query=query, content=APPLY_PATCH)

    async def patch(self, name: str, body: object, *, content: str, manager: str) -> Object:
        """Change an object by a patch of the media type `content`."""
        query = {"fieldManager": manager}
        return await self._send("PATCH", name, body=body, query=query, content=content)

    async def text(self, name: str, query: dict[str, str]) -> str:
        """What is no JSON, such as the log of a pod, `<pod>/log`."""
        response: httpx2.Response = await self._inner.send(self._request("GET", name, query, None))
        self._inner.raise_for_status(response)
        return response.text

    async def delete(self, name: str, *, version: str = "", uid: str = "") -> None:
        """Delete; with `version` only that very version, with `uid` only that very object."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if preconditions := _query(resourceVersion=version, uid=uid):
            options["preconditions"] = preconditions
        await self._send("DELETE", name, body=options)

    async def watch(
        self, selector: str, version: str, *, limit: float
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Changes since `version`, bookmarks among them, as `(type, object)`.

        The API server is asked to end it after `limit` seconds; there is no limit of ours.
        First of all, when the watch is under way, comes `("", {})`.
        """
        query = _query(
            labelSelector=selector,
            fieldSelector=self._fields,
            resourceVersion=version,
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=str(int(limit)),
        )
        request = self._request("GET", "", query, None, timeout=self._inner._watch_timeout)
        response: httpx2.Response = await self._inner.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
                self._inner.raise_for_status(response)
            yield "", {}
            async for line in response.aiter_lines():
                yield _event(line)
        finally:
            await response.aclose()

    async def _send(
        self,
        method: str,
        name: str = "",
        *,
        body: object = None,
        query: dict[str, str] | None = None,
        content: str = "",
    ) -> Object:
        request = self._request(method, name, query or {}, body, media_type=content)
        response: httpx2.Response = await self._inner.send(request)
        self._inner.raise_for_status(response)
        answer = response.json()
        if not isinstance(answer, dict):
            raise ValueError("the API answered with no object")  # noqa: TRY004 - not our fault
        return answer

    def _request(
        self,
        method: str,
        name: str,
        query: dict[str, str],
        body: object,
        *,
        media_type: str = "",
        timeout: httpx2.Timeout | None = None,
    ) -> httpx2.Request:
        from lightkube.core.generic_client import BasicRequest

        url = f"{self._path}/{name}" if name else self._path
        headers = {"Content-Type": media_type} if media_type else None
        asked = BasicRequest(
            method=method, url=url, params=query, data=body, headers=headers, timeout=timeout
        )
        request: httpx2.Request = self._inner.build_adapter_request(asked)
        return request


def _query(**values: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if value}


def _event(line: str) -> tuple[str, Object]:
    """One line of a watch.

    Raises:
        ApiError: the API ends the watch with an error, such as 410.
        ValueError: it is no event.
    """
    from lightkube import ApiError
    from lightkube.models.meta_v1 import Status

    event = json.loads(line)
    if not isinstance(event, dict) or not isinstance(event.get("object"), dict):
        raise ValueError("a watch sent what is no event")  # noqa: TRY004 - not our fault
    kind, item = str(event.get("type")), event["object"]
    if kind == "ERROR":
        status: Any = Status.from_dict(item)
        raise ApiError(status=status)
    return kind, item
