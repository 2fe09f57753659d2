"""Tracing of model families: routes, example inputs, one module per kind of graph."""
