"""Optimisers by the originals' own loops, and which weights they treat how, from names and ranks alone.

Sources: AlexeyAB convolutional_layer.c update_convolutional_layer and blas_kernels.cu adam_update_gpu; torch.optim.SGD;
Loshchilov and Hutter 2019. A list's arrays are float64 and follow one another as the model's trainable weights do.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from official.core.config import Adam, AdamW, Duration, LayerRule, Sgd

Array = Float64[np.ndarray, "..."]
Optimiser = Sgd | Adam | AdamW
Slots = Mapping[str, Sequence[Array]]
ToSteps = Callable[[Duration], int]


class Group(NamedTuple):
    """How one weight is updated."""

    decays: bool
    is_bias: bool  # of a convolution, or batch-norm's offset: what a warm-up starts at a rate of its own
    rate: float = 1.0  # multiplies the schedule's
    waits: int = 0  # updates, from the first, for which its gradient is zero


def slots_at_start(config: Optimiser, weights: Sequence[Array]) -> dict[str, list[Array]]:
    """What the optimiser remembers of each weight before the first update: zeros of the weight's shape."""
    names = ("momentum",) if isinstance(config, Sgd) else ("first_moment", "second_moment")
    return {name: [np.zeros(weight.shape) for weight in weights] for name in names}


def update(
    config: Optimiser,
    weights: Sequence[Array],
    gradients: Sequence[Array],
    slots: Slots,
    decays: Sequence[bool],
    rates: Sequence[float],
    step: int,
    momentum: float | None = None,
) -> tuple[list[Array], dict[str, list[Array]]]:
    """Weights and slots after one update.

    gradients: of the mean loss over the batch. step: number of this update, from 1. momentum: of SGD in this update
    where it is not the configuration's. AlexeyAB's Adam decays every weight, whatever `decays` says.
    """
    new_weights, new_slots = [], {name: [] for name in slots}
    for place, (weight, gradient, decay, rate) in enumerate(zip(weights, gradients, decays, rates, strict=True)):
        remembered = {name: arrays[place] for name, arrays in slots.items()}
        if isinstance(config, Sgd):
            kept = config.momentum if momentum is None else momentum
            changed, remembered = _sgd(config, weight, gradient, remembered, decay, rate, kept)
        else:
            changed, remembered = _adaptive(config, weight, gradient, remembered, decay, rate, step)
        new_weights.append(changed)
        for name, array in remembered.items():
            new_slots[name].append(array)
    return new_weights, new_slots


def _sgd(
    config: Sgd, weight: Array, gradient: Array, slot: Mapping[str, Array], decays: bool, rate: float, momentum: float
) -> tuple[Array, dict[str, Array]]:
    """The loop of torch.optim.SGD with dampening 0; without Nesterov it is AlexeyAB's, divided by minus the batch."""
    if decays:
        gradient = gradient + config.weight_decay * weight
    buffer = slot["momentum"] * momentum + gradient
    if config.nesterov:
        return weight - rate * (gradient + momentum * buffer), {"momentum": buffer}
    return weight - rate * buffer, {"momentum": buffer}


def _adaptive(
    config: Adam | AdamW,
    weight: Array,
    gradient: Array,
    slot: Mapping[str, Array],
    decays: bool,
    rate: float,
    step: int,
) -> tuple[Array, dict[str, Array]]:
    """Adam in PyTorch's order: the first moment's correction in the rate, the second's in its root, then epsilon.

    Adam's decay enters the gradient and so both moments; AdamW's shrinks the weight by the rate before the step.
    """
    if isinstance(config, Adam):
        gradient = gradient + config.weight_decay * weight
    elif decays:
        weight = weight * (1 - rate * config.weight_decay)
    first = slot["first_moment"] + (gradient - slot["first_moment"]) * (1 - config.beta1)
    second = slot["second_moment"] * config.beta2 + (1 - config.beta2) * gradient * gradient
    denominator = np.sqrt(second) / np.sqrt(1 - config.beta2**step) + config.epsilon
    weight = weight - rate / (1 - config.beta1**step) * (first / denominator)
    return weight, {"first_moment": first, "second_moment": second}


def groups(
    paths: Sequence[str], ranks: Sequence[int], layers: Sequence[LayerRule] = (), to_steps: ToSteps | None = None
) -> list[Group]:
    """The treatment of each weight.

    A bias is what is named bias, or batch-norm's beta. What else has two dimensions or more is a kernel and decays;
    what is left are batch-norm's scales (WongKinYiu yolov7 train.py's groups pg2, pg1, pg0). A rule changes the weights
    below a layer whose name it matches; several rules all count, the longest wait among them.

    Args:
        paths: layer/variable, or outer/inner/variable.
        ranks: how many dimensions each weight has.
        layers: the rules of `trainer.layers`.
        to_steps: turns a duration into steps; needed where a rule has one.

    Raises:
        ValueError: a rule that matches no weight.
    """
    found = []
    for path, rank in zip(paths, ranks, strict=True):
        is_bias = path.rpartition("/")[2].split("_")[-1] in ("bias", "beta")
        found.append(Group(decays=rank > 1 and not is_bias, is_bias=is_bias))
    for rule in layers:
        waits = to_steps(rule.no_gradient) if rule.no_gradient else 0
        places = [number for number, path in enumerate(paths) if _is_below(path, rule.name)]
        if not places:
            raise ValueError(f"groups: {rule.name!r} matches none of {', '.join(paths[:8])}, …")
        for number in places:
            group = found[number]
            found[number] = group._replace(rate=group.rate * rule.learning_rate, waits=max(group.waits, waits))
    return found


def _is_below(path: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(layer, pattern) for layer in path.split("/")[:-1])
