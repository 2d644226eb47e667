"""Compares this implementation with recorded traces: `python -m reproduction.golden --root DIR`."""
