"""`python -m konnectivity` is the command `konnectivity`."""

from konnectivity.cli.main import main

main()
