"""Statistics, decomposition and rounding, factors, refit and healing."""
