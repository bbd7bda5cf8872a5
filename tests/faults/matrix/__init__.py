"""Every kind of operation, killed at each of its steps, on each engine."""
