"""What a proof asks of an original: the program whose recordings, weights and recipe an experiment is compared with."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Shaped

from configs.experiment import Experiment
from reproduction.traces.check import Check

if TYPE_CHECKING:
    from reproduction.experiment.own import Own
    from reproduction.experiment.subject import Subject
    from reproduction.seeded.family import Family

Size = tuple[int, int]  # (height, width) in pixels
Samples = Mapping[str, Shaped[np.ndarray, "..."]]


class Draws(NamedTuple):
    """What one type of augmentation draws at random, and the original's formula for it. Numbers go by name.

    ours: (configuration, seed, image's size, input's size) -> what the pipeline draws for one image.
    stated: (configuration, image's size, generator, count) -> `count` of each number, by the formula.
    """

    ours: Callable[[Any, tf.Tensor, Size, Size], dict[str, tf.Tensor]]
    stated: Callable[[Any, Size, np.random.Generator, int], Samples]


class Recipe(NamedTuple):
    """The original's own hyper-parameters, in our words.

    experiment: as plain data with all defaults; None where the recipe is not at hand.
    notes: (section, option, message) of what it has beyond that.
    """

    experiment: Mapping[str, Any] | None
    notes: Sequence[tuple[str, str, str]] = ()


class RecipeRules(NamedTuple):
    """How an original's recipe is read, and what of it may differ.

    read: the recipe of the original that the subject names.
    named_by: what `reproduces.original` names, in words.
    unstated: beginnings of keys of the configuration that the recipe has no word for.
    listed: key of the configuration -> the row of docs/differences.md that names the difference.
    causes: end of a key -> what another value does to a reproduction (reproduction/traces/causes/causes.py).
    """

    read: Callable[["Subject"], Recipe]
    named_by: str
    unstated: tuple[str, ...] = ()
    listed: Mapping[str, str] = {}
    causes: Mapping[str, str] = {}


class Original(NamedTuple):
    """One original. A family of detectors may have several.

    name: its key in the table of originals.
    family: `task.type` of the experiments that reproduce it.
    recognises: whether a text of `reproduces.original` names a recipe of its.
    checks: comparisons with its recordings.
    recipe: how gate 1 reads it.
    draws: what gate 8 compares, by the type of the augmentation's configuration.
    seeded: seeded inputs of an experiment, and the stated formulas for them.
    network: fields of `task.model` that make the network.
    coarsest_stride: of a `task.model`, input pixels of a cell of the coarsest output.
    fixes_size: whether a `task.model` takes inputs of its own size alone.
    experiment_of: (recipe's file, weights, overrides) -> the experiment that it stands for; None: no file says it.
    """

    name: str
    family: str
    recognises: Callable[[str], bool]
    checks: tuple[Check, ...]
    recipe: RecipeRules
    draws: Mapping[type, Draws]
    seeded: Callable[["Own"], "Family"]
    network: tuple[str, ...]
    coarsest_stride: Callable[[Any], int]
    fixes_size: Callable[[Any], bool]
    experiment_of: Callable[[str, str | None, list[str]], Experiment] | None = None
