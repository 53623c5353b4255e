"""A small but real CachedAttention server on a CPU: real kernels, KV in host memory and in files on SSD, the simulator's policies.

It takes the simulator's configuration and workload and gives the same columns and the same summary, so the two can be laid side by side
(`miniserver.fidelity`). One thread owns the queue and the store and computes; other threads only move bytes, and post what they have
done.
"""
