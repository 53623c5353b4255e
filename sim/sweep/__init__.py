"""Many runs side by side: what varies (axes), the runs and their replications, what is measured, and what can be told apart."""
