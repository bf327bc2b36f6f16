"""Keeps the objects of one cluster as wanted: observe, plan, apply."""
