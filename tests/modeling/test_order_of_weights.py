"""Networks of parts make their convolutions in the order of the original's cfg, which is that of files of weights.

Unlike a comparison of numbers, this names the convolution that a part makes too early or too late.
"""

import dataclasses
from collections.abc import Sequence

import keras
import pytest

from modeling.darknet.build import build_network
from modeling.darknet.cfg import read_cfg
from modeling.layers.style import Made
from modeling.yolo.network import build_detector
from tests.modeling.yolo.test_parts import CFGS, heavy, model_of

SIZE = (64, 96)  # (height, width)


@dataclasses.dataclass(frozen=True)
class Place:
    """What tells a convolution from its neighbours in a file: its kernel, and the places of those that it reads."""

    kernel: tuple[int, ...]
    normalised: bool
    reads: frozenset[int]  # empty: the image


def places(model: keras.Model, made: Sequence[Made]) -> list[Place]:
    """Of each convolution, in the order of the record."""
    numbers = {one.convolution: number for number, one in enumerate(made)}

    def read_by(tensor: keras.KerasTensor) -> frozenset[int]:
        operation, node, _ = tensor._keras_history
        if operation.name in numbers:
            return frozenset([numbers[operation.name]])
        if operation not in known:
            inputs = operation._inbound_nodes[node].input_tensors
            known[operation] = frozenset().union(*map(read_by, inputs))
        return known[operation]

    known: dict[keras.Operation, frozenset[int]] = {}
    layers = [model.get_layer(one.convolution) for one in made]
    return [
        Place(tuple(layer.kernel.shape), one.norm is not None, read_by(layer.input))
        for one, layer in zip(made, layers, strict=True)
    ]


def misplaced(model: keras.Model, made: Sequence[Made], original: keras.Model) -> str | None:
    """The first convolution that is not the one which the original has at this place."""
    ours, theirs = places(model, made), places(original, original.made)
    for number, (one, section) in enumerate(zip(made, original.made, strict=False)):
        if ours[number] != theirs[number]:
            return (
                f"{one.convolution} is made as number {number}, where the cfg has {section.convolution}: "
                f"{ours[number]}, but the cfg's {theirs[number]}"
            )
    if len(ours) != len(theirs):
        return f"{len(ours)} convolutions are made, the cfg has {len(theirs)}"
    return None


def networks(shared, experiment: str) -> tuple[keras.Model, keras.Model]:
    config = model_of(experiment).model_copy(update={"input_size": SIZE})
    cfg = read_cfg(str(shared / "assets/darknet/cfg" / CFGS[experiment]))
    return build_detector(config, 80, seed=0), build_network(cfg, seed=0, input_size=SIZE).model


@pytest.mark.parametrize("experiment", heavy(CFGS))
def test_convolutions_are_made_in_the_order_of_the_cfg(shared, experiment):
    model, original = networks(shared, experiment)
    assert misplaced(model, model.made, original) is None


def test_the_convolution_that_is_made_too_early_is_named(shared):
    """Every two neighbours in turn, also those with kernels of one shape."""
    model, original = networks(shared, "yolov7_tiny")
    alike = 0
    for first in range(len(model.made) - 1):
        swapped = list(model.made)
        swapped[first : first + 2] = reversed(swapped[first : first + 2])
        message = misplaced(model, swapped, original)
        early, late = swapped[first].convolution, swapped[first + 1].convolution
        shapes = {tuple(model.get_layer(name).kernel.shape) for name in (early, late)}
        alike += len(shapes) == 1
        assert message is not None, (early, late)
        # Where both have one kernel and read the same, the first that reads one of them tells.
        named = [model.made[number].convolution for number in range(first, len(model.made))]
        assert message.split()[0] in named if len(shapes) == 1 else message.split()[0] == early
    assert alike > 10


def test_a_convolution_too_few_is_said(shared):
    model, original = networks(shared, "yolov4_tiny")
    assert misplaced(model, model.made[:-1], original) == "20 convolutions are made, the cfg has 21"
