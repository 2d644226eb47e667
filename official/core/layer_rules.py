"""What single layers do otherwise: which do not train, which learn slower, and which wait."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras

from official.core.config import Duration, LayerRule
from official.core.config_io import ConfigError


class WeightRule(NamedTuple):
    """How one trainable weight is updated."""

    decays: bool
    learning_rate: float  # multiplies the schedule's
    no_gradient: int  # updates, from the first, for which its gradient is zero
    is_bias: bool  # of a convolution, or batch-norm's offset


def freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    """Stops the layers whose name matches a pattern from training; their batch-norm keeps its statistics.

    Raises:
        ConfigError: a pattern that matches no layer with weights, or nothing left to train.
    """
    for pattern in patterns:
        for layer in _matching(model, pattern, "trainer.freeze"):
            layer.trainable = False
    if not model.trainable_variables:
        raise ConfigError(f"trainer.freeze: {', '.join(patterns)} leave nothing to train")


def weight_rules(
    model: keras.Model, layers: Sequence[LayerRule], to_steps: Callable[[Duration], int]
) -> tuple[WeightRule, ...]:
    """A rule for each of the model's trainable weights, in their order. Kernels decay, nothing else does.

    Raises:
        ConfigError: a name that matches no layer with weights.
    """
    rules = {
        id(weight): WeightRule(weight.path.endswith("kernel"), 1.0, 0, weight.path.endswith(("bias", "beta")))
        for weight in model.trainable_variables
    }
    for number, config in enumerate(layers):
        no_gradient = to_steps(config.no_gradient) if config.no_gradient else 0
        matching = _matching(model, config.name, f"trainer.layers[{number}].name")
        for weight in {id(weight) for layer in matching for weight in layer.trainable_weights}:
            decays, rate, waits, is_bias = rules[weight]
            rules[weight] = WeightRule(decays, rate * config.learning_rate, max(waits, no_gradient), is_bias)
    return tuple(rules.values())


def _matching(model: keras.Model, pattern: str, key: str) -> list[keras.Layer]:
    layers = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
    matching = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
    if not matching:
        names = ", ".join(layer.name for layer in layers[:8])
        raise ConfigError(f"{key}: {pattern!r} matches no layer; layers are named {names}, …")
    return matching
