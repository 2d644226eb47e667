"""The convolutions that predict: heatmaps, sizes and offsets of each stack (CenterNet lib/models/networks/*.py)."""

from typing import NamedTuple

from configs.centernet.task import CenterNetHead, CenterNetModel
from modeling.layers.blocks import activated
from modeling.layers.precision import output_dtype
from modeling.layers.shapes import Features
from modeling.layers.style import Style
from modeling.layers.torch_blocks import Bias, TorchConvolution

HEATMAP_BIAS = -2.19  # a probability of 0.1


class HeadRule(NamedTuple):
    """How an original names its heads' two convolutions, and how those of sizes and offsets start.

    Those of the heatmaps start as PyTorch's default, but for the last bias, in all of them.
    """

    names: tuple[str, str]
    spreads: tuple[float | None, float | None] = (None, None)  # N(0, spread) of each kernel; None: PyTorch's default
    biases: tuple[Bias, Bias] = ("uniform", "uniform")


RULES = {
    "resnet": HeadRule(("{head}.0", "{head}.2"), spreads=(None, 0.001), biases=("uniform", 0.0)),
    "resnet_dcn": HeadRule(("{head}.0", "{head}.2"), spreads=(0.001, 0.001), biases=(0.0, 0.0)),
    "dla34": HeadRule(("{head}.0", "{head}.2"), biases=(0.0, 0.0)),
    "hourglass": HeadRule(("{head}.{stack}.0.conv", "{head}.{stack}.1")),
}


def head_rule(model: CenterNetModel) -> HeadRule:
    """That of the original with this decoder; of one that no original has, ResNet's."""
    decoder = model.decoder
    if decoder is None:
        return RULES["hourglass"]
    if decoder.type == "dla_up":
        return RULES["dla34"]
    return RULES["resnet_dcn" if decoder.type == "deconv" and decoder.deformable else "resnet"]


def centernet_maps(
    stacks: list[Features], config: CenterNetHead, num_classes: int, rule: HeadRule, style: Style
) -> list[Features]:
    """Raw hm, wh and (with reg_offset) reg of each stack in turn, of `output_dtype`."""
    dtype = output_dtype()
    channels = {"hm": num_classes, "wh": 2 * num_classes if config.cat_spec_wh else 2}
    if config.reg_offset:
        channels["reg"] = 2
    outputs = []
    for stack, features in enumerate(stacks):
        for head, count in channels.items():
            first, last = (f"head_{name.format(head=head, stack=stack)}" for name in rule.names)
            style.record(first)
            style.record(last)
            spreads, biases = rule.spreads, rule.biases
            if head == "hm":
                spreads, biases = (None, None), ("uniform", HEATMAP_BIAS)
            x = TorchConvolution(
                config.head_conv, 3, bias=biases[0], spread=spreads[0], seed=style.seed_of(first), name=first
            )(features)
            layer = TorchConvolution(
                count, 1, bias=biases[1], spread=spreads[1], seed=style.seed_of(last), name=last, dtype=dtype
            )
            outputs.append(layer(activated(x, f"{first}_relu", style)))
    return outputs
