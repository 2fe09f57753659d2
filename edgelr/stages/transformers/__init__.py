"""Models of transformers as a source: statistics, factors and graphs by torch."""
