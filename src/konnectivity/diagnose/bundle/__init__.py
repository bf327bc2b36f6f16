"""The archive of `konnectivity bundle`: what is in it, what is not, and what was masked."""
