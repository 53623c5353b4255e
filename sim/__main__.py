"""`python -m sim` is `kvplan`."""

from kvplan.__main__ import main

main()
