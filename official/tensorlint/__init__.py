"""Checks that public functions on tensors state dtype, named shape and, for boxes, the format: `python -m official.tensorlint`.

What is checked is only parsed: nothing of it is imported or run.
"""
