"""The asyncio shell: sockets, TLS, timers."""
