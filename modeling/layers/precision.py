"""What a network computes in where a policy of less must not reach."""

import keras


def output_dtype() -> str:
    """The type of what predicts and of what it predicts: float32 under every policy, but float64 under that of float64.

    Networks of float64 are built for comparisons: they show how much of a difference float32 makes by rounding.
    """
    return "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"
