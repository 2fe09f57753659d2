"""The steps of an export, each cached: texts chosen, costs found, bundles written."""
