"""The agents' certificates in a cluster."""
