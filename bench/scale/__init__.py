"""What thousands of agents and tunnels cost, measured, and simulated past one machine."""
