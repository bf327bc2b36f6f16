"""What a directory of certificates is meant to hold, and how far a change of its CA has come.

All of it is one small file, `state.json`, replaced in one piece: each step of a rotation begins
with it, and everything else in the directory follows from it. It holds no secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from konnectivity.errors import ConfigError
from konnectivity.pki.authority import LEAF_LIFETIME
from konnectivity.pki.role import Leaf, Role

VERSION: Final = 1


class Phase(StrEnum):
    """A step on the way from one CA to another."""

    TRUST_BOTH = "trust-both"
    REISSUE = "reissue"
    DROP_OLD = "drop-old"


@dataclass(frozen=True, slots=True)
class Rotation:
    """The way from CA number `old` to CA number `new`."""

    phase: Phase
    old: int
    new: int
    since: float = 0.0
    """Unix seconds of the moment when all files were as the phase wants them; 0: not yet."""
    issued: bool = False
    """Whether the new CA has issued certificates, which may be in use somewhere."""


@dataclass(frozen=True, slots=True)
class State:
    """CAs are numbered from 1; number n is `ca/<n>.crt` and `ca/<n>.key`."""

    leaves: tuple[Leaf, ...]
    lifetime: float = LEAF_LIFETIME  # of leaves, seconds
    authority: int = 1  # the one CA while there is no rotation
    rotation: Rotation | None = None

    @property
    def signing(self) -> int:
        """The CA that issues."""
        if self.rotation is None:
            return self.authority
        return self.rotation.old if self.rotation.phase is Phase.TRUST_BOTH else self.rotation.new

    @property
    def trusted(self) -> tuple[int, ...]:
        """The CAs in the bundle, the older first; they keep their keys."""
        if self.rotation is None:
            return (self.authority,)
        if self.rotation.phase is Phase.DROP_OLD:
            return (self.rotation.new,)
        return (self.rotation.old, self.rotation.new)

    @property
    def known(self) -> tuple[int, ...]:
        """The CAs whose certificates are kept, for the way back."""
        return (self.rotation.old, self.rotation.new) if self.rotation else (self.authority,)

    @property
    def agent(self) -> Leaf | None:
        """The leaf that a cluster's agents share: the one called so, or the first of the role."""
        found = [leaf for leaf in self.leaves if leaf.role is Role.AGENT]
        return next((leaf for leaf in found if leaf.name == Role.AGENT), next(iter(found), None))

    def with_leaf(self, leaf: Leaf) -> State:
        """The same with one leaf more, or another in the place of the one of its name."""
        others = tuple(each for each in self.leaves if each.name != leaf.name)
        return replace(self, leaves=(*others, leaf))


def encode(state: State) -> bytes:
    """The file's content."""
    rotation = state.rotation
    content = {
        "version": VERSION,
        "lifetime": state.lifetime,
        "authority": state.authority,
        "rotation": rotation
        and {
            "phase": rotation.phase,
            "old": rotation.old,
            "new": rotation.new,
            "since": rotation.since,
            "issued": rotation.issued,
        },
        "leaves": [
            {"name": leaf.name, "role": leaf.role, "hosts": leaf.hosts} for leaf in state.leaves
        ],
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def decode(content: bytes, *, path: str) -> State:
    """What the file says.

    Raises:
        ConfigError: it is damaged, or of a later version of this program.
    """
    try:
        found = json.loads(content)
        if found["version"] != VERSION:
            raise ConfigError(f"{path}: version {found['version']} is unknown; {VERSION} is known")
        return State(
            leaves=tuple(_leaf(each) for each in found["leaves"]),
            lifetime=float(found["lifetime"]),
            authority=int(found["authority"]),
            rotation=_rotation(found["rotation"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged: {error!r}; restore it from a backup") from error


def _leaf(found: Mapping[str, Any]) -> Leaf:
    return Leaf(str(found["name"]), Role(found["role"]), tuple(map(str, found["hosts"])))


def _rotation(found: Mapping[str, Any] | None) -> Rotation | None:
    if found is None:
        return None
    return Rotation(
        phase=Phase(found["phase"]),
        old=int(found["old"]),
        new=int(found["new"]),
        since=float(found["since"]),
        issued=bool(found["issued"]),
    )
