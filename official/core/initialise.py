"""What happens to a fresh model before its first step: weights of another run, frozen layers."""

import fnmatch
from collections.abc import Sequence

import keras
import tensorflow as tf

from official.core.checkpoint import find_checkpoint, load_matching
from official.core.config import Initialise
from official.core.config_io import ConfigError


def variables_by_path(model: keras.Model) -> dict[str, tf.Variable]:
    """All variables of a model by their path, such as `backbone_conv00/kernel`."""
    return {variable.path: variable.value for variable in model.variables}


def initialise(model: keras.Model, config: Initialise) -> str:
    """Loads what agrees in name and shape from another run; returns a report of what was and was not loaded."""
    path = find_checkpoint(config.checkpoint)
    loaded, skipped = load_matching(path, variables_by_path(model), config.prefer_moving_average)
    layers = ", ".join(sorted({name.partition("/")[0] for name in loaded}))
    lines = [f"initialised {len(loaded)} of {len(loaded) + len(skipped)} variables from {path}", f"  loaded: {layers}"]
    return "\n".join(lines + [f"  not loaded: {reason}" for reason in skipped])


def freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    """Stops the layers whose name matches a pattern from training; their batch-norm keeps its statistics.

    Raises:
        ConfigError: a pattern that matches no layer with weights.
    """
    layers = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
    for pattern in patterns:
        matching = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not matching:
            names = ", ".join(layer.name for layer in layers[:8])
            raise ConfigError(f"trainer.freeze: {pattern!r} matches no layer; layers are named {names}, …")
        for layer in matching:
            layer.trainable = False
    if not model.trainable_variables:
        raise ConfigError(f"trainer.freeze: {', '.join(patterns)} leave nothing to train")
