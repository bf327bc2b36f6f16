"""Kubernetes objects of the agent, one module for each concern; `render.py` puts them in order."""
