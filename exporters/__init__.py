"""The catalogue ``edgelr.exporters``: one declarative file for each model family."""
