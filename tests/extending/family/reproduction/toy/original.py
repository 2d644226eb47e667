"""The toy as an original: nothing of it is recorded, so an experiment is compared with its formulas alone."""

import tensorflow as tf

from configs.data import DarknetAugmentation
from dataloaders.augment.colour import draw_colour
from reproduction.experiment.original import Draws, Original, Recipe, RecipeRules, Size
from reproduction.toy import restated
from reproduction.toy.seeded import Toy


def _drawn(config: DarknetAugmentation, seed: tf.Tensor, image: Size, size: Size) -> dict[str, tf.Tensor]:
    return {"flip": draw_colour(config, seed).flip}


TOY = Original(
    name="toy",
    family="toy",
    recognises=lambda text: text == "toy",
    checks=(),
    recipe=RecipeRules(lambda subject: Recipe(None), named_by="the word toy"),
    draws={DarknetAugmentation: Draws(_drawn, restated.drawn)},
    seeded=Toy,
    network=("backbone",),
    coarsest_stride=lambda model: 32,
    fixes_size=lambda model: False,
)
