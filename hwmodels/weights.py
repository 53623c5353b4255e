"""Weights of a model: how many there are, by part."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """Matrices of all layers together, without norms and biases."""

    attention: int
    """Projections of attention, and of states in its place."""
    dense: int
    """Feed-forward part of layers without experts, and beside experts."""
    expert: int
    """One routed expert of each layer that has them."""
    router: int
    """What chooses experts, and the way to and from latent ones."""
    shared: int
    """Experts that every token passes."""
    embedding: int
    """Of the input."""
    head: int
    """Of the output; 0 where it is the input's."""
