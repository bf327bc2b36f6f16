"""Certificates: an authority, its leaves, and their renewal."""
