"""How fast kvplan is, and how much memory it takes. What is counted (events, simulations, turns read) must be what it was."""
