"""Specifications that reach every branch of the renderer, for several tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import trustme

from konnectivity.lifecycle.specification.spec import AgentSpec

CA = trustme.CA().cert_pem.bytes().decode()
PLAIN = AgentSpec(
    server="konnectivity.example.com:8091", image="registry.example.com/k:1", heartbeats=False
)


def every() -> Iterator[AgentSpec]:
    """Each mode with each authentication, and with everything else off and on."""
    for mode, shown, rich in itertools.product(
        ("daemonset", "deployment"), ("token", "certificate", "both"), (False, True)
    ):
        yield AgentSpec(
            server="konnectivity.example.com:8091",
            server_addresses=("192.0.2.1", "2001:db8::1") if rich else (),
            image="registry.example.com/k:1",
            image_pull_secrets=("registry",) if rich else (),
            mode=mode,
            authentication=shown,
            ca_bundle=CA if rich else "",
            count_leases=rich,
            heartbeats=rich,
            host_network=not rich,
            nodes=700 if rich else 0,
            tolerations=("team=net:NoExecute@60", "*") if rich else (),
            environment=("HTTPS_PROXY=http://proxy.example.com:3128",) if rich else (),
            extra_arguments=("--max-tunnels=100", "-v=5") if rich else (),
            labels=("team=net",) if rich else (),
            network_policy=rich,
            destinations=("10.0.0.0/8",) if rich else (),
            monitoring=rich,
        )
