"""Many clusters on one manager: how fast it mends, and what it costs. `python -m bench.fleet`."""
