"""How far the simulator is from a real server: the same trace through both, side by side, with errors and what explains them."""
