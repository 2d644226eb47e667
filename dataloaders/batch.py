"""What travels from the host to the accelerator. First dimension of every field: the example."""

from typing import NamedTuple

import tensorflow as tf
from jaxtyping import Bool, Float32, Int32, Int64, Shaped, UInt8

from official.vision.resize import Images

PADDING_ID = -1  # example_id of a row that only fills up the last evaluation batch


class Effects(NamedTuple):
    """Of a ColourDraws: what else Darknet's build with OpenCV does. Zeros change nothing, whatever the seed."""

    blur: Int32[tf.Tensor, " b"]  # 1: behind the objects; above: everywhere, by a kernel of this size
    noise: Int32[tf.Tensor, " b"]  # deviation in levels
    seed: Int32[tf.Tensor, "b 2"]  # of the noise


class ColourDraws(NamedTuple):
    """What was drawn for an example and is applied on the accelerator. False, 0, 1, 1 change nothing."""

    flip: Bool[tf.Tensor, " b"]
    hue: Float32[tf.Tensor, " b"]  # Darknet: added, in turns of the colour circle; hsv_gains: the hue's growth, a share
    saturation: Float32[tf.Tensor, " b"]  # multiplied
    exposure: Float32[tf.Tensor, " b"]  # multiplied
    effects: Effects | tuple[()] = ()  # empty where the configuration has none: nothing travels


class TrainBatch(NamedTuple):
    """Examples of a training step, before colour and flip.

    Boxes are cxcywh or xyxy; which, in what unit and whether flipped already, says the family's maker of examples.
    Padding rows: zeros, class 0, not valid.
    """

    image: UInt8[tf.Tensor, "b H W 3"]
    boxes: Float32[tf.Tensor, "b n box=4"]
    classes: Int32[tf.Tensor, "b n"]
    valid: Bool[tf.Tensor, "b n"]
    example_id: Int64[tf.Tensor, " b"]
    draws: tuple  # a NamedTuple of tensors: what the accelerator applies, in the words of the family's augmentation


class EvalBatch(NamedTuple):
    """Examples of an evaluation step. A padding row has example_id -1, image 0, image_size 1 by 1."""

    image: Images
    image_size: Int32[tf.Tensor, "b 2"]  # of the original (height, width)
    example_id: Int64[tf.Tensor, " b"]


def pad_rows(rows: Shaped[tf.Tensor, "n *rest"], count: int) -> Shaped[tf.Tensor, "{count} *rest"]:
    """[n, ...] -> [count, ...]: the first ones; zeros (False) after the rows there are."""
    shape = [count, *rows.shape[1:]]
    return tf.slice(tf.concat([rows, tf.zeros(shape, rows.dtype)], axis=0), [0] * len(shape), shape)
