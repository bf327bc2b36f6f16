"""The inner ring: bytes to events and back. No IO, no clock, no randomness."""
