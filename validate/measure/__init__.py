"""Timing the real kernels and the real data path on one machine: `python -m validate measure`. Needs PyTorch, NumPy and PyYAML only."""
