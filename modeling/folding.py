"""Batch-norm folded into the convolution before it: the same network for inference, with fewer operations."""

import keras
import numpy as np
from jaxtyping import Float64

from modeling.layers.style import Made
from modeling.layers.torch_blocks import UpConvolution


def fold_into(folded: keras.Model, trained: keras.Model) -> None:
    """Gives `folded` the weights that make it equal `trained`, the same network with batch-norm layers.

    folded: made with a style of norm "folded"; its record (modeling.layers.style.Made) says which batch-norm each
    convolution takes in. All other layers' variables are copied.

    With scale = gamma / sqrt(variance + epsilon), from the moving statistics: kernel' = kernel * scale, bias' = (bias -
    mean) * scale + beta.

    Raises:
        ValueError: `trained` is another network.
    """
    source = {variable.path: variable for variable in trained.variables}
    made = {one.convolution: one for one in folded.made if one.norm}
    for layer in folded.layers:
        if layer.name in made:
            values = _folded_weights(layer, made[layer.name], trained, source)
        else:
            values = {variable.path: _read(source, variable) for variable in layer.variables}
        for variable in layer.variables:
            variable.assign(values[variable.path])


def folding_scale(
    gamma: Float64[np.ndarray, " filters"], variance: Float64[np.ndarray, " filters"], epsilon: float
) -> Float64[np.ndarray, " filters"]:
    """What each filter of the convolution is multiplied by."""
    return gamma / np.sqrt(variance + epsilon)


def _folded_weights(
    layer: keras.layers.Layer, made: Made, trained: keras.Model, source: dict[str, keras.Variable]
) -> dict[str, np.ndarray]:
    """The variables of a folded `layer` by path, from the unfolded network and its variables by path."""
    kernel, bias = layer.kernel.path, layer.bias.path
    # Some layers have more, such as a kernel for offsets, and some have a bias of their own before batch-norm.
    values = {
        variable.path: _read(source, variable)
        for variable in layer.variables
        if variable.path != bias or variable.path in source
    }
    gamma, beta, mean, variance = (
        _read(source, layer.bias, f"{made.norm}/{part}") for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = folding_scale(gamma, variance, trained.get_layer(made.norm).epsilon)
    # An UpConvolution's kernel has its filters before its channels.
    by_filter = scale[:, np.newaxis] if isinstance(layer, UpConvolution) else scale
    return values | {kernel: values[kernel] * by_filter, bias: (values.get(bias, 0.0) - mean) * scale + beta}


def _read(source: dict[str, keras.Variable], like: keras.Variable, path: str | None = None) -> np.ndarray:
    """A variable of the trained network, in float64 for one rounding at the end; its shape is that of `like`."""
    path = path or like.path
    if path not in source:
        raise ValueError(f"fold_batch_norm: the trained model has no weight {path}; so another config built it")
    if tuple(source[path].shape) != tuple(like.shape):
        raise ValueError(
            f"fold_batch_norm: {path} is {tuple(source[path].shape)} in the trained model, but this config makes it"
            f" {tuple(like.shape)}; give the config and class count it was trained with"
        )
    return keras.ops.convert_to_numpy(source[path]).astype(np.float64)
