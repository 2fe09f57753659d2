"""The steps of an export, each cached."""
