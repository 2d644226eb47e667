"""Networks of float64, beside which the rounding of float32 is measured."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import keras


@contextlib.contextmanager
def precision(name: Literal["float32", "float64"]) -> Iterator[None]:
    """What networks that are built inside compute in."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
