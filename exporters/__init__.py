"""The catalogue: which model families edgelr can be pointed at, one per file, declarative."""
