"""Caches of blocks that all requests share, without a clock: one request at a time, each engine by its own rules.

A context is a `Path`: one opaque key for each of its blocks, from the start, where two contexts have equal keys at a place exactly when
they are the same up to there. A chain of hashes is one. So a cache never looks at tokens, and whatever keeps contexts apart (a salt, a
tenant, a LoRA) is in the keys.
"""
