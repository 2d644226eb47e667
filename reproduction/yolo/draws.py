"""What the pipeline draws for Darknet's augmentation, beside the restated formula."""

import tensorflow as tf

from configs.data import DarknetAugmentation
from dataloaders.augment import colour
from dataloaders.compose import darknet
from reproduction.experiment.original import Draws, Size
from reproduction.yolo.restated import draws


def _drawn(config: DarknetAugmentation, seed: tf.Tensor, image: Size, size: Size) -> dict[str, tf.Tensor]:
    """The numbers of a lone image, in the pipeline's own parts; edges in pixels."""
    split = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    drawn = colour.draw_colour(config, split[0])
    geometry = darknet.draw(config, split[1], tf.constant([image]), size, letterbox=False, flip=tf.constant(False))
    top, left, height, width = tf.unstack(tf.cast(geometry.window[0], tf.float64))
    bottom, right = image[0] - height - top, image[1] - width - left
    colours = {name: getattr(drawn, name) for name in ("flip", "hue", "saturation", "exposure")}
    return {**colours, "top": top, "left": left, "bottom": bottom, "right": right}


DRAWS = {DarknetAugmentation: Draws(_drawn, draws.drawn)}
