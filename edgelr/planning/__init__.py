"""Candidates, allocators, the search for a plan that fits."""
