"""Konnectivity in Python: the tunnel between a Kubernetes control plane and its cluster."""

__version__ = "0.1.0"
