"""What is wanted in a cluster now, and what was wanted before and is to go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from konnectivity.kube.collection import Object
from konnectivity.lifecycle.reconciling.plan import WORKLOADS, Key, key_of


class Wanted:
    """The objects of one cluster, by key, in the order in which they are applied."""

    def __init__(self, objects: Iterable[Object], overrides: Sequence[str] = ()) -> None:
        self.objects = {key_of(item): item for item in objects}
        self.overrides = tuple(overrides)
        """Fields of the workload that users may change."""
        self.retired: set[Key] = set()
        """What is to be removed, until it is known to be gone."""
        self.added: set[Key] = set()
        """What was not wanted at first."""

    @property
    def keys(self) -> set[Key]:
        """All objects to be followed."""
        return self.objects.keys() | self.retired

    @property
    def workload(self) -> Key | None:
        """The agents."""
        return next((key for key in self.objects if key.kind in WORKLOADS), None)

    def spaces(
        self, observed: Mapping[Key, Object | None], troubles: Collection[Key]
    ) -> dict[Key, Object | None]:
        """Namespaces that are to be made, but for those that cannot be followed.

        None: it is not there, or that is not known yet.
        """
        found = [key for key in self.objects if key.kind == "Namespace" and key not in troubles]
        return {key: observed.get(key) for key in found}

    def change(self, objects: Iterable[Object], overrides: Sequence[str]) -> set[Key]:
        """Want other objects; return those that are wanted otherwise than before."""
        before, self.objects = self.objects, {key_of(item): item for item in objects}
        self.overrides = tuple(overrides)
        self.retire(before.keys())
        self.added |= self.objects.keys() - before.keys()
        return {key for key, item in self.objects.items() if before.get(key) != item}

    def retire(self, keys: Iterable[Key]) -> None:
        """Let go of those that are not wanted; what is wanted again is not."""
        self.retired = (self.retired | set(keys)) - self.objects.keys()
