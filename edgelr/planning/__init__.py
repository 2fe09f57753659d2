"""Candidates, allocators, and a plan that fits."""
