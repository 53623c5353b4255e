"""The real kernels: a decoder of LLaMA's kind in PyTorch, whose KV cache is kept without positions (CachedAttention section 3.4).

Needs PyTorch and PyYAML only. Weights are random: times and equalities are real, texts would not be.
"""
