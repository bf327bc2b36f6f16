"""Command lines: flags in, programs out."""
