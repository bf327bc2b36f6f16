"""The patches that an API server takes, apart from apply: JSON patch, merge patch, strategic."""

from __future__ import annotations

import json
from typing import Any

from tests.peers.field_ownership import merge
from tests.peers.kube_store import Object, Refusal


def patch(item: Object, body: Any, content: str) -> Object:
    """`item`, which is changed, after a patch of the media type `content`."""
    match content:
        case "application/json-patch+json":
            for step in body:
                _step(item, step)
            return item
        case "application/merge-patch+json":
            return _merged(item, body)
        case "application/strategic-merge-patch+json":
            merge(item, body)
            return item
    raise Refusal(415, f"no patch: {content}")


def _merged(into: Any, body: Any) -> Any:
    """Source: RFC 7396."""
    if not isinstance(body, dict):
        return body
    into = into if isinstance(into, dict) else {}
    for name, value in body.items():
        if value is None:
            into.pop(name, None)
        else:
            into[name] = _merged(into.get(name), value)
    return into


def _step(item: Any, step: Object) -> None:
    """Source: RFC 6902; add, remove, replace and test."""
    *parents, last = [
        part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]
    ]
    for part in parents:
        item = item[int(part)] if isinstance(item, list) else item[part]
    key: Any = last
    if isinstance(item, list):
        key = len(item) if last == "-" else int(last)
    if step["op"] == "test":
        if item[key] != step["value"]:
            raise Refusal(422, f"the server rejected our request: test of {json.dumps(step)}")
    elif step["op"] == "remove":
        del item[key]
    elif step["op"] == "add" and isinstance(item, list):
        item.insert(key, step["value"])
    else:
        item[key] = step["value"]
