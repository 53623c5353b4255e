"""Moving KV for real: host buffers, streams for loading and saving beside compute, and files on SSD. Needs PyTorch only.

On a GPU the streams are CUDA's; on a CPU the same code runs with threads in their place, so all of it is tested there.
Source: CachedAttention (USENIX ATC 2024) section 3.2.
"""
