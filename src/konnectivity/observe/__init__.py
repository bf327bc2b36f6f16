"""What an operator sees: logs, metrics, health, status and events."""
