"""Rates of a GPU's kernels, fitted to the public tables of a wheel that the user fetches."""
