"""A torch model in memory: loaded, its linears named, run."""
