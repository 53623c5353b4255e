"""`python -m sim` is `kvplan`."""

from sim.cli.app import main

main()
