"""What points a real kube-apiserver at the server: its EgressSelectorConfiguration.

Only the selection `cluster` goes through the tunnel. Source: Kubernetes, group and version
`apiserver.k8s.io/v1beta1`.
"""

from __future__ import annotations

from typing import Final

PROTOCOLS: Final = {"grpc": "GRPC", "http-connect": "HTTPConnect"}
"""The frontend mode, and the `proxyProtocol` that speaks it."""

FLAG: Final = "--egress-selector-config-file"


def egress_selector_configuration(mode: str, socket: str) -> str:
    """The file's YAML for one frontend mode, reached over the Unix socket at `socket`."""
    return f"""\
apiVersion: apiserver.k8s.io/v1beta1
kind: EgressSelectorConfiguration
egressSelections:
- name: cluster
  connection:
    proxyProtocol: {PROTOCOLS[mode]}
    transport:
      uds:
        udsName: {socket}
- name: controlplane
  connection:
    proxyProtocol: Direct
- name: etcd
  connection:
    proxyProtocol: Direct
"""
