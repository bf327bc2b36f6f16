"""New agents for old ones: followed, judged, stopped."""
