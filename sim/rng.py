"""Random numbers: one seed, one named stream per source of randomness, so that a new source leaves the others as they were."""

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator of a named stream; the same for the same seed and name on every machine and in every process."""
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
