"""One server as several processes, for more than one core (`--workers`)."""
