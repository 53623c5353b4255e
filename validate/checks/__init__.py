"""Is the simulator right? Against theory, published figures, a second simulator and brute force.

Each check prints both sides; those with a verdict fail where the two differ.
"""
