"""What is tried from here: names, TCP, TLS, proxies, clocks, and dials from end to end."""
