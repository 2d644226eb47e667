"""Compiling, and the test for draws that change nothing: shared by all changes of colours."""

from functools import partial

import tensorflow as tf
from jaxtyping import Bool

from dataloaders.batch import ColourDraws

# One loop over the pixels instead of one per operation: an eighth of the time on a CPU. A TPU compiles anyway.
fused = partial(tf.function, autograph=False, jit_compile=True)


def unchanged(draws: ColourDraws) -> Bool[tf.Tensor, "b 1 1 1"]:
    """The examples whose colours stay as they are."""
    same = (draws.hue == 0.0) & (draws.saturation == 1.0) & (draws.exposure == 1.0)
    return same[:, tf.newaxis, tf.newaxis, tf.newaxis]
