"""How families are traced: routes, example inputs, one module per kind of graph."""
