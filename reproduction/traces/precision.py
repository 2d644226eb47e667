"""Networks of float64, beside which the rounding of float32 is measured; and graphs that round as they are written."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import keras
import tensorflow as tf


@contextlib.contextmanager
def precision(name: Literal["float32", "float64"]) -> Iterator[None]:
    """What networks that are built inside compute in."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def graphs_as_written() -> Iterator[None]:
    """TensorFlow runs the graphs inside as they were written.

    It otherwise rewrites them: a level times 1/255 in place of a level over 255 is another number in float32 for half
    of the levels, and a deep network enlarges that. The rewriting also takes a third of the time of a first step, and
    copies an export's weights.
    """
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})
