"""Timing the real kernels and the real data path on one machine: `kvplan validate measure`. Needs PyTorch, NumPy and PyYAML only."""
