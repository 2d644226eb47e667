"""Compares this implementation with recorded traces: `python reproduce.py --traces DIR`."""
