"""The objects of a batch, as every loss takes them."""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32


class Truth(NamedTuple):
    """The objects of each image, padded to a fixed count.

    Boxes are cxcywh or xyxy, in the unit of the original: each family states its own.
    """

    boxes: Float32[tf.Tensor, "batch truths box=4"]
    classes: Int32[tf.Tensor, "batch truths"]  # contiguous, 0-based
    valid: Bool[tf.Tensor, "batch truths"]  # False: padding, whatever the other fields hold
