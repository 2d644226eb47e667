"""What the pipeline draws for CenterNet's augmentation, beside the restated formula."""

import tensorflow as tf

from configs.centernet.augmentation import CenterNetAugmentation
from dataloaders.centernet import augment
from reproduction.centernet.restated import draws
from reproduction.experiment.original import Draws, Size


def _drawn(config: CenterNetAugmentation, seed: tf.Tensor, image: Size, size: Size) -> dict[str, tf.Tensor]:
    """The numbers of one image, whatever the input's size."""
    maps, colours = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    affine = augment.draw_affine(config, maps, tf.constant(image))
    samples = {"flip": affine.flip, "scale": affine.s, "centre x": affine.c[0], "centre y": affine.c[1]}
    if config.colour:
        drawn = augment.draw_colours(config, colours, affine.flip)
        parts = {"colour": drawn.order, "strength": drawn.strength, "lighting": drawn.lighting}
        samples |= {f"{name} {place}": part[place] for name, part in parts.items() for place in range(3)}
    return samples


DRAWS = {CenterNetAugmentation: Draws(_drawn, draws.drawn)}
