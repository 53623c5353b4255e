"""What a machine really takes: kernels, links and drives measured, catalogue entries fitted; and the weights of the token estimate.

Needs PyTorch or real tokenizers, and a clone: the wheel leaves it out.
"""
