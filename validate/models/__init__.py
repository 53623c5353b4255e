"""Sizes of models beside an independent count."""
