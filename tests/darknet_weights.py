"""Original .weights files into our detectors, for the tests that compare with what the originals compute."""

from pathlib import Path

import keras
import numpy as np


def convolution_names(model: keras.Model) -> list[str]:
    """The convolutions of a tiny detector in the cfg's order: backbone, then level by level."""
    names = [layer.name for layer in model.layers]
    backbone = sorted(name for name in names if name.startswith("backbone_conv") and name.count("_") == 1)
    parts = ("decoder_{}_reduce", "decoder_{}_fuse", "head_{}")
    return backbone + [part.format(level) for level in range(len(model.outputs)) for part in parts]


def load_darknet(model: keras.Model, path: Path) -> None:
    """Reads a .weights file (int32 major, minor, revision; uint64 seen; float32 ...) to its end, in the cfg's order."""
    values = np.fromfile(path, np.float32, offset=20)
    position = 0

    def take(variable, shape=None):
        nonlocal position
        shape = shape or tuple(variable.shape)
        part = values[position : position + np.prod(shape)].reshape(shape)
        position += part.size
        variable.assign(np.transpose(part, (2, 3, 1, 0)) if part.ndim == 4 else part)

    for name in convolution_names(model):
        layer = model.get_layer(name)
        if layer.bias is not None:
            take(layer.bias)
        else:
            norm = model.get_layer(f"{name}_norm")
            for variable in (norm.beta, norm.gamma, norm.moving_mean, norm.moving_variance):
                take(variable)
        height, width, channels, filters = layer.kernel.shape
        take(layer.kernel, (filters, channels, height, width))
    assert position == values.size
