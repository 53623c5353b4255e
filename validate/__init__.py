"""Checks of kvplan against published figures and theory, and benchmarks. May import everything; nothing imports it."""
