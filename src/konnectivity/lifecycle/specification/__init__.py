"""What is to be installed, as data: read, checked, kept, followed."""
