"""Tracing: routes from a module to a graph, example inputs, one module per kind of graph."""
