"""The rules of training stated a second time, in float64 NumPy, to compare what a run executes with."""
