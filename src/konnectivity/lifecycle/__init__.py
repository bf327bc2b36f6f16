"""Installs the agent in clusters and keeps it there."""
