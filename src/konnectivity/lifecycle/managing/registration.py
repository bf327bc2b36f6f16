"""What is known of a cluster before it is reached: a kubeconfig, and what it wants of its own.

It is raw, as it lies in a folder or in a Secret, and may be malformed: that shows when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from konnectivity.errors import ConfigError
from konnectivity.kube.client import REQUEST_LIMIT, connect_with
from konnectivity.kube.kubeconfig import from_content
from konnectivity.lifecycle.specification import spec_file
from konnectivity.lifecycle.specification.spec import AgentSpec

if TYPE_CHECKING:
    from lightkube import AsyncClient

LARGEST: Final = 1 << 20
"""Bytes of one kubeconfig or specification; the API allows no more in a Secret either."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One cluster as it is registered. `place` and `own_place` are what errors call the two."""

    name: str
    place: str
    kubeconfig: bytes
    own: bytes = b""
    """TOML whose keys win over the specification of all."""
    own_place: str = ""
    trouble: str = ""
    """Why the rest could not be read; it is empty then."""

    def specification(self, base: AgentSpec) -> AgentSpec:
        """What is wanted in this cluster, where all want `base`.

        Raises:
            ConfigError: it cannot be used; all that is wrong, in one line.
        """
        if self.trouble:
            raise ConfigError(self.trouble)
        return spec_file.over(base, self.own, self.own_place) if self.own else base

    def connect(self, *, qps: float, burst: int, timeout: float = REQUEST_LIMIT) -> AsyncClient:
        """A client for the cluster; `close` it.

        Raises:
            ConfigError: with field and remedy.
        """
        config = from_content(self.kubeconfig, self.place)
        return connect_with(
            config, where=self.place, qps=qps, burst=burst, timeout=timeout, multiplex=True
        )
