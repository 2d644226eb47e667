"""`python -m tools.tensorlint`: do public functions on tensors state dtype, named shape and, for boxes, the format?

What is checked is only parsed: nothing of it is imported or run.
"""
