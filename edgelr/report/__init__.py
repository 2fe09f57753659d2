"""Results, for machines and people."""
