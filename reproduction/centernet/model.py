"""A recorded CenterNet rebuilt: parts and sizes read from its parameters' names and shapes, and the parameters.

`NAME_trace.npz` has its parameters beside it, all in PyTorch's names and axes: as `NAME_state_dict.npz`, or as the rule
that makes each of them, `NAME_params.json`.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pydantic
from jaxtyping import Float, Float32

from configs.centernet.task import CenterNetModel
from modeling.backbones.resnet import DEPTHS
from modeling.centernet.network import build_centernet
from modeling.weights.torch_names import from_torch, torch_name
from official.core.config import Config
from reproduction.traces.case import Case
from reproduction.traces.trace import Trace, TraceError, read_trace

Shapes = Mapping[str, tuple[int, ...]]


class Rule(Config):
    """One parameter: numbers from -1 to 1, drawn by its name, and what is made of them."""

    shape: tuple[pydantic.NonNegativeInt, ...]
    kind: Literal["conv", "deconv", "updeconv", "last", "gamma", "beta", "mean", "var", "bias", "hm_bias"]
    first3: tuple[float, ...] = ()  # what it gives, for whoever writes the rule anew
    sum: float | None = None

    def value(self, name: str, salt: str) -> Float32[np.ndarray, "..."]:
        """float32, of `shape`."""
        seed, count = zlib.crc32((salt + name).encode()), int(np.prod(self.shape))
        u = np.random.RandomState(seed).uniform(-1, 1, count).reshape(self.shape)
        fan_in = np.prod(self.shape[1:])
        made = {
            "conv": lambda: u * np.sqrt(6 / fan_in),
            "deconv": lambda: u * np.sqrt(6 / (self.shape[0] * self.shape[2] ** 2 / 4)),  # a quarter of the taps meet
            "updeconv": lambda: (0.5 * u + 1) / 4,
            "last": lambda: u * np.sqrt(3 / fan_in),
            "gamma": lambda: 1 + 0.4 * u,
            "beta": lambda: 0.2 * u,
            "mean": lambda: 0.1 * u,
            "var": lambda: 1 + 0.5 * u,
            "bias": lambda: 0.1 * u,
            "hm_bias": lambda: np.full(self.shape, -2.19),
        }
        value = made[self.kind]().astype(np.float32)
        return value * np.float32(0.4) if name.endswith("conv_offset_mask.weight") else value


class Rules(Config):
    """`NAME_params.json`."""

    salt: str
    rule: dict[str, Rule]
    parameters: int | None = None


@dataclass(frozen=True)
class Parameters:
    """Where the recorded parameters come from: a file of arrays, or one of rules."""

    path: Path
    source: Trace | Rules

    @classmethod
    def of(cls, case: Case) -> "Parameters":
        stem = case.path.stem.removesuffix("_trace")
        arrays, rules = (case.path.with_name(f"{stem}_{kind}") for kind in ("state_dict.npz", "params.json"))
        if arrays.is_file():
            return cls(arrays, read_trace(arrays))
        if not rules.is_file():
            raise TraceError(f"{case.path}: expected its parameters beside it, in {arrays.name} or {rules.name}")
        try:
            return cls(rules, Rules.model_validate_json(rules.read_bytes()))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise TraceError(f"{rules}: not rules for parameters: {where}: {first['msg']}") from None

    def shapes(self) -> Shapes:
        """Of every parameter and moving statistic."""
        if isinstance(self.source, Rules):
            return {name: rule.shape for name, rule in self.source.rule.items()}
        return {name: self.source[name].shape for name in self.source}

    def value(self, name: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        """float32, in PyTorch's axes."""
        if isinstance(self.source, Trace):
            return self.source.array(name, shape, np.floating)
        rule = self.source.rule.get(name)
        if rule is None or rule.shape != shape:
            found = "none" if rule is None else f"shape {rule.shape}"
            raise TraceError(f"{self.path}: expected parameter {name!r} of shape {shape}, found {found}")
        value = rule.value(name, self.source.salt)
        if not np.array_equal(value.ravel()[:3], np.array(rule.first3, np.float32)[: value.size]):
            raise TraceError(f"{self.path}: the rule of {name!r} gives {value.ravel()[:3]}, recorded is {rule.first3}")
        return value


def build(case: Case) -> tuple[keras.Model, CenterNetModel]:
    """The network that the trace was recorded from, with its parameters, of the type that Keras has now."""
    parameters = Parameters.of(case)
    *_, height, width = case.trace.array("input", ("batch", 3, "height", "width"), np.floating).shape
    try:
        parts, classes = architecture(parameters.shapes())
        config = CenterNetModel(input_size=(height, width), **parts)
    except (KeyError, ValueError) as error:
        reason = f"no parameter {error}" if isinstance(error, KeyError) else error
        raise TraceError(f"{parameters.path}: not the parameters of a network that is built here: {reason}") from None
    model = build_centernet(config, classes, seed=0)
    for variable in model.variables:
        shape = tuple(variable.shape)
        shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
        variable.assign(from_torch(parameters.value(torch_name(variable.path), shape)))
    return model, config


def architecture(shapes: Shapes) -> tuple[dict[str, Any], int]:
    """(parts of a CenterNetModel, number of classes) by the names and shapes of a state dict.

    Raises:
        KeyError: a parameter by which they are told is missing.
    """
    if "base.base_layer.0.weight" in shapes:
        parts = {"backbone": {"type": "dla34"}, "decoder": {"type": "dla_up"}}
    elif "pre.0.conv.weight" in shapes:
        parts = {"backbone": _hourglass(shapes)}
    else:
        parts = {"backbone": _resnet(shapes), "decoder": _deconv(shapes)}
    first, last = ("hm.0.0.conv.weight", "{}.0.1.weight") if "decoder" not in parts else ("hm.0.weight", "{}.2.weight")
    classes = shapes[last.format("hm")][0]
    head = {
        "head_conv": shapes[first][0],
        "cat_spec_wh": shapes[last.format("wh")][0] != 2,
        "reg_offset": last.format("reg") in shapes,
    }
    return parts | {"head": head}, classes


def _resnet(shapes: Shapes) -> dict[str, Any]:
    told = "layer1.0.conv3.weight" in shapes, tuple(_children(shapes, f"layer{stage}") for stage in range(1, 5))
    depths = {value: depth for depth, value in DEPTHS.items()}
    return {"type": "resnet", "depth": depths[told]}


def _deconv(shapes: Shapes) -> dict[str, Any]:
    """Transposed convolutions are the 4x4 ones; their filters are the second axis."""
    steps = range(_children(shapes, "deconv_layers"))
    kernels = [shapes.get(f"deconv_layers.{step}.weight", ()) for step in steps]
    filters = tuple(kernel[1] for kernel in kernels if kernel[2:] == (4, 4))
    return {"type": "deconv", "filters": filters, "deformable": "deconv_layers.0.conv_offset_mask.weight" in shapes}


def _hourglass(shapes: Shapes) -> dict[str, Any]:
    dims, modules, name = [], [], "kps.0"
    while f"{name}.up1.0.conv1.weight" in shapes:
        dims.append(shapes[f"{name}.up1.0.conv1.weight"][0])
        modules.append(_children(shapes, f"{name}.up1"))
        name += ".low2"
    dims.append(shapes[f"{name}.0.conv1.weight"][0])
    modules.append(_children(shapes, name))
    return {
        "type": "hourglass",
        "stacks": _children(shapes, "kps"),
        "dims": tuple(dims),
        "modules": tuple(modules),
        "pre": shapes["pre.0.conv.weight"][0],
        "cnv_dim": shapes["cnvs.0.conv.weight"][0],
    }


def _children(shapes: Shapes, name: str) -> int:
    """How many parts a Sequential or ModuleList has, counted to the last one with parameters."""
    numbers = [key.removeprefix(f"{name}.").split(".")[0] for key in shapes if key.startswith(f"{name}.")]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)


def layer_of(model: keras.Model, stage: str) -> keras.Layer | None:
    """The layer that puts out what PyTorch's module of this name does. A Sequential puts out what its last part does,
    a tree of DLA what its root, or that of its second tree, does."""
    for prefix in ("backbone", "decoder", "head"):
        names = {layer.name for layer in model.layers if layer.name.startswith(f"{prefix}_{stage}")}
        name = f"{prefix}_{stage}"
        while names and name not in names:
            parts = _children(dict.fromkeys(names, ()), name)
            inner = [f"{name}.{parts - 1}"] if parts else [f"{name}.root", f"{name}.tree2"]
            name = next((part for part in inner if any(f"{key}.".startswith(f"{part}.") for key in names)), "")
            if not name:
                break
        else:
            if names:
                return model.get_layer(name)
    return None
