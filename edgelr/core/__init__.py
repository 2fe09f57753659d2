"""Words, errors, values, settings, registry, cache."""
