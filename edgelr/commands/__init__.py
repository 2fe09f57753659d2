"""The work of every other command: bench, sweep, inspect, validate, detect, list."""
