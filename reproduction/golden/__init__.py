"""Compares this implementation with traces recorded from Darknet: `python -m reproduction.golden --root DIR`."""
