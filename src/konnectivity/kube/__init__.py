"""Access to a cluster's Kubernetes API. Imported only where a flag asks for it."""
