"""The objects of a small Kubernetes API server: written, listed, and told about.

Any resource under its usual path; nothing is checked but names, versions, preconditions and who
owns which fields.
"""

from __future__ import annotations

import asyncio
import copy
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from tests.peers import field_ownership, kube_generation

Object = dict[str, Any]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}

GENERATED = frozenset(["daemonsets", "deployments"])
"""Resources whose specification is numbered."""


class Refusal(Exception):
    """An answer that is a `Status` of failure."""

    def __init__(self, code: int, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason or REASONS.get(code, ""),
            "code": code,
        }


class Place(NamedTuple):
    """What a path stands for; an empty `namespace` of a collection means all of them."""

    prefix: str
    namespace: str
    resource: str
    name: str

    @classmethod
    def parse(cls, path: str) -> Place:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        head = {"api": 2, "apis": 3}.get(parts[0], 0)
        rest = parts[head:]
        if not head or not rest:
            raise Refusal(404, f"the server could not find {path}")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        name = rest[1] if len(rest) > 1 else ""
        return cls("/".join(parts[:head]), namespace, rest[0], name)

    def holds(self, other: Place) -> bool:
        """Whether `other`, an object, is in this collection."""
        return (
            (self.prefix, self.resource) == (other.prefix, other.resource)
            and self.namespace in ("", other.namespace)
        )  # fmt: skip

    @property
    def api_version(self) -> str:
        return self.prefix.partition("/")[2]


class Change(NamedTuple):
    version: int
    place: Place
    old: Object | None
    new: Object | None


@dataclass(eq=False)
class Watcher:
    place: Place
    selector: str
    bookmarks: bool
    fields: str = ""
    events: asyncio.Queue[Object | None] = field(default_factory=asyncio.Queue)

    def tell(self, change: Change) -> None:
        """The event that this watcher sees of a change, if any."""
        if not self.place.holds(change.place) or not named(change.place, self.fields):
            return
        before = change.old is not None and selected(change.old, self.selector)
        after = change.new is not None and selected(change.new, self.selector)
        if after:
            self.events.put_nowait(
                {"type": "MODIFIED" if before else "ADDED", "object": change.new}
            )
        elif before:
            gone = copy.deepcopy(change.old or {})
            gone["metadata"]["resourceVersion"] = str(change.version)
            self.events.put_nowait({"type": "DELETED", "object": gone})


def named(place: Place, fields: str) -> bool:
    """Whether an object matches a field selector; only `metadata.name=` is known."""
    key, _, name = fields.partition("=")
    if key not in ("", "metadata.name"):
        raise Refusal(400, f"field label not supported: {key}")
    return not fields or place.name == name.removeprefix("=")


def selected(item: Object, selector: str) -> bool:
    """Whether the labels of `item` match a label selector."""
    labels = item.get("metadata", {}).get("labels") or {}
    for part in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", selector))):
        if found := re.fullmatch(r"(\S+)\s+(in|notin)\s*\((.*)\)", part):
            key, how, values = found.groups()
            among = labels.get(key) in {value.strip() for value in values.split(",")}
            matches = (key in labels and among) if how == "in" else not among
        elif "!=" in part:
            key, _, value = part.partition("!=")
            matches = labels.get(key.strip()) != value.strip()
        elif "=" in part:
            key, value = re.split("==?", part, maxsplit=1)
            matches = labels.get(key.strip()) == value.strip()
        elif part.startswith("!"):
            matches = part[1:].strip() not in labels
        else:
            matches = part in labels
        if not matches:
            return False
    return True


class Store:
    """Objects by their place, their history, and who watches them."""

    def __init__(self) -> None:
        self._objects: dict[Place, Object] = {}
        self._version = 100
        self._oldest = 0
        self._history: list[Change] = []
        self._watchers: set[Watcher] = set()

    # Objects, for tests

    def put(self, path: str, item: Object, *, manager: str = "") -> Object:
        """Create or replace the object at `path`, as another client would, without checks.

        With a `manager` that one owns what it changes.
        """
        place = Place.parse(path)
        item = copy.deepcopy(item)
        if manager:
            item = field_ownership.update(self._objects.get(place), item, manager=manager)
        meta = item.setdefault("metadata", {})
        meta["name"] = place.name
        if place.namespace:
            meta.setdefault("namespace", place.namespace)
        meta.setdefault("uid", str(uuid.uuid4()))
        return self._store(place, item)

    def get(self, path: str) -> Object | None:
        return copy.deepcopy(self._objects.get(Place.parse(path)))

    def remove(self, path: str) -> None:
        self._delete(Place.parse(path))

    def items(self, path: str, selector: str = "") -> list[Object]:
        """The objects of a collection."""
        place = Place.parse(path)
        return [
            copy.deepcopy(item)
            for at, item in sorted(self._objects.items())
            if place.holds(at) and selected(item, selector)
        ]

    # Watches, for tests

    @property
    def watches(self) -> int:
        """Watches under way."""
        return len(self._watchers)

    def bookmark(self) -> None:
        """Send a bookmark to all watches that asked for them."""
        for watcher in self._watchers:
            if watcher.bookmarks:
                item = {"metadata": {"resourceVersion": str(self._version)}}
                watcher.events.put_nowait({"type": "BOOKMARK", "object": item})

    def end_watches(self) -> None:
        """End all watches, as a server does after some minutes."""
        for watcher in self._watchers:
            watcher.events.put_nowait(None)

    def expire_watches(self) -> None:
        """Forget the history: all watches end with 410, those of older versions too."""
        self._version += 1
        self._oldest = self._version
        self._history.clear()
        gone = Refusal(410, "too old resource version")
        for watcher in self._watchers:
            watcher.events.put_nowait({"type": "ERROR", "object": gone.status})
            watcher.events.put_nowait(None)

    # Requests

    def _missed(self, watcher: Watcher, since: int) -> Iterator[Object | None]:
        """What happened after version `since`; for 0 everything that is there."""
        if since == 0:
            for place, item in sorted(self._objects.items()):
                here = watcher.place.holds(place) and named(place, watcher.fields)
                if here and selected(item, watcher.selector):
                    yield {"type": "ADDED", "object": item}
        elif since < self._oldest:
            yield {"type": "ERROR", "object": Refusal(410, "too old resource version").status}
            yield None
        else:
            for change in self._history:
                if change.version > since:
                    watcher.tell(change)

    def _list(self, place: Place, selector: str, fields: str = "") -> Object:
        items = [
            item
            for at, item in sorted(self._objects.items())
            if place.holds(at) and selected(item, selector) and named(at, fields)
        ]
        return {
            "kind": "List",
            "apiVersion": place.api_version,
            "metadata": {"resourceVersion": str(self._version)},
            "items": items,
        }

    def _existing(self, place: Place) -> Object:
        try:
            return self._objects[place]
        except KeyError:
            raise Refusal(404, f'{place.resource} "{place.name}" not found') from None

    def _create(
        self, place: Place, item: Object, *, manager: str = "", dry_run: bool = False
    ) -> Object:
        meta = item.setdefault("metadata", {})
        if "name" not in meta and "generateName" in meta:
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        if not meta.get("name"):
            raise Refusal(422, "metadata.name: Required value")
        place = place._replace(name=meta["name"])
        if place in self._objects:
            text = f'{place.resource} "{place.name}" already exists'
            raise Refusal(409, text, reason="AlreadyExists")
        if place.namespace:
            meta["namespace"] = place.namespace
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if manager:
            item = field_ownership.update(None, item, manager=manager)
        return item if dry_run else self._store(place, item)

    def _apply(
        self, place: Place, item: Object, *, manager: str, force: bool, dry_run: bool
    ) -> Object:
        """Server-side apply; what changes nothing is not stored anew."""
        old = self._objects.get(place)
        for key in ("name", "namespace"):
            if (wanted := getattr(place, key)) and item["metadata"].get(key, wanted) != wanted:
                raise Refusal(400, f"the {key} of the object does not match the URL")
        try:
            new = field_ownership.apply(old, item, manager=manager, force=force)
        except field_ownership.Conflict as conflict:
            refusal = Refusal(409, str(conflict))
            refusal.status["details"] = {
                "causes": [
                    {"reason": "FieldManagerConflict", "field": each} for each in conflict.fields
                ]
            }
            raise refusal from None
        if old is None:
            if place.namespace:
                new["metadata"].setdefault("namespace", place.namespace)
            new["metadata"]["uid"] = str(uuid.uuid4())
            new["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        _refuse_immutable(place, old, new)
        return old if new == old else new if dry_run else self._store(place, new)

    def _update(
        self, place: Place, item: Object, *, manager: str = "", dry_run: bool = False
    ) -> Object:
        before = self._existing(place)
        old = before["metadata"]
        meta = item.setdefault("metadata", {})
        if meta.get("resourceVersion") not in (None, "", old["resourceVersion"]):
            raise Refusal(409, f'{place.resource} "{place.name}": the object has been modified')
        for key in ("uid", "creationTimestamp", "namespace", "generation"):
            if key in old:
                meta[key] = old[key]
        if manager or old.get("managedFields"):
            item = field_ownership.update(before, item, manager=manager or "unknown")
            item["metadata"]["resourceVersion"] = old["resourceVersion"]
            if item == before:
                return before
        _refuse_immutable(place, before, item)
        return item if dry_run else self._store(place, item)

    def _store(self, place: Place, item: Object) -> Object:
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        old = self._objects.get(place)
        if place.resource in GENERATED:
            same = old is not None and old.get("spec") == item.get("spec")
            before = old["metadata"].get("generation", 0) if old else 0
            item["metadata"]["generation"] = before if same else before + 1
            kube_generation.number_template(old, item)
        self._objects[place] = item
        self._tell(Change(self._version, place, old, item))
        return item

    def _delete(self, place: Place, options: Object | None = None) -> Object:
        old = self._existing(place)
        for key, value in ((options or {}).get("preconditions") or {}).items():
            if value is not None and old["metadata"].get(key) != value:
                text = f"Precondition failed: {key} in precondition: {value}"
                raise Refusal(409, f'{place.resource} "{place.name}": {text}')
        if place.resource == "namespaces":
            for inside in [each for each in self._objects if each.namespace == place.name]:
                self._delete(inside)
        self._version += 1
        del self._objects[place]
        self._tell(Change(self._version, place, old, None))
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _tell(self, change: Change) -> None:
        change = change._replace(new=copy.deepcopy(change.new))
        self._history.append(change)
        for watcher in self._watchers:
            watcher.tell(change)


def _refuse_immutable(place: Place, old: Object | None, new: Object) -> None:
    """A Secret's type cannot be changed, and nothing of what is marked as immutable."""
    if old is None:
        return
    fixed = ["type"] if place.resource == "secrets" else []
    fixed += ["data", "immutable"] if old.get("immutable") else []
    for name in fixed:
        if old.get(name) != new.get(name):
            raise Refusal(422, f"{name}: Invalid value: field is immutable", reason="Invalid")
