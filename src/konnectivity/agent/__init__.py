"""The agent: runs in the cluster, dials out to the servers and opens endpoints for them."""
