"""Our own numbers: every layer of a Keras model, any function with its gradients, and steps of an optimiser."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Shaped

from reproduction.traces.align import cfg_names
from reproduction.traces.causes.residual import Array
from reproduction.traces.record.names import fresh, legal, maps_in
from reproduction.traces.trace import Source, TraceError, write_trace
from reproduction.traces.walk import layer_tensors, run

OURS = Source(program="detector-reproduction")


def record_model(
    model: keras.Model, inputs: Mapping[str, Array], path: str | os.PathLike, source: Source = OURS
) -> None:
    """Every layer of a functional model in evaluation mode, by its name; maps are NHWC.

    The layers of a network built from a cfg that end its sections are called by their number: L004_output.

    inputs: by the names of the model's inputs.

    Raises:
        TraceError: an input is missing, or of another shape.
    """
    given = {tensor.name: checked(tensor.name, tensor.shape, inputs, model.name) for tensor in model.inputs}
    tensors = {name: tensor for name, tensor in layer_tensors(model).items() if name not in given}
    outputs = run(model.inputs, list(tensors.values()), [tf.constant(array) for array in given.values()])
    of_cfg, arrays = cfg_names(model), dict(given)
    for name, output in zip(tensors, outputs, strict=True):
        arrays[fresh(legal(of_cfg.get(name, name)), arrays)] = output.numpy()
    write_trace(path, arrays, source, maps_in("NHWC", arrays))


def record_function(
    function: Callable[..., Any], inputs: Mapping[str, Array], path: str | os.PathLike, source: Source = OURS
) -> None:
    """A loss, a decoder, an augmentation: what a function of tensors gives, and of a scalar the gradients, too.

    inputs: by the function's parameters; recorded as `in/NAME`. It gives a tensor, or a mapping or sequence of tensors:
        `out`, `out/NAME`. Of a single scalar `grad/NAME` is the derivative by each floating input.
    """
    tensors = {name: tf.constant(array) for name, array in inputs.items()}
    with tf.GradientTape() as tape:
        floating = {name: tensor for name, tensor in tensors.items() if tensor.dtype.is_floating}
        tape.watch(list(floating.values()))
        result = function(**tensors)
    arrays = {f"in/{name}": tensor.numpy() for name, tensor in tensors.items()}
    arrays |= {name: np.asarray(value) for name, value in _named("out", result).items()}
    if isinstance(result, tf.Tensor) and result.shape == ():
        for name, gradient in tape.gradient(result, floating, unconnected_gradients="zero").items():
            arrays[f"grad/{name}"] = gradient.numpy()
    write_trace(path, arrays, source)


def record_steps(
    model: keras.Model,
    loss: Callable[..., Any],
    optimizer: keras.optimizers.Optimizer,
    batches: Iterable[tuple],
    path: str | os.PathLike,
    source: Source = OURS,
) -> None:
    """Steps of an optimiser: `init/VARIABLE`; of step N from 0 `itN/loss`, `itN/grad/VARIABLE`, `itN/after/VARIABLE`.

    loss: (what the model gives in training, the batch's targets) -> a scalar.
    batches: (inputs, targets), one for each step.
    """
    arrays = {f"init/{variable.path}": variable.numpy() for variable in model.variables}
    for step, (inputs, targets) in enumerate(batches):
        with tf.GradientTape() as tape:
            value = loss(model(inputs, training=True), targets)
        gradients = tape.gradient(value, model.trainable_variables, unconnected_gradients="zero")
        optimizer.apply(gradients, model.trainable_variables)
        arrays[f"it{step}/loss"] = value.numpy()
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            arrays[f"it{step}/grad/{variable.path}"] = np.asarray(gradient)
        arrays |= {f"it{step}/after/{variable.path}": variable.numpy() for variable in model.variables}
    write_trace(path, arrays, source)


def checked(name: str, shape: tuple, inputs: Mapping[str, Array], where: str) -> Shaped[np.ndarray, "..."]:
    """The input of this name if it has the shape, in which anything but a number is any length.

    Raises:
        TraceError: it is missing, or has another.
    """
    if name not in inputs:
        raise TraceError(f"{where} wants an input {name!r}; given are {', '.join(inputs) or 'none'}")
    array = np.asarray(inputs[name])
    lengths = zip(shape, array.shape, strict=False)
    if len(shape) != array.ndim or any(isinstance(want, int) and want != have for want, have in lengths):
        raise TraceError(f"{where}: expected input {name!r} of shape {tuple(shape)}, found {array.shape}")
    return array


def _named(prefix: str, value: Any) -> dict[str, Any]:
    """The tensors in nested mappings and sequences, by their way there."""
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (tuple, list)):
        parts = getattr(value, "_asdict", lambda: dict(enumerate(value)))().items()
    else:
        return {prefix: value}
    return {name: leaf for key, part in parts for name, leaf in _named(f"{prefix}/{key}", part).items()}
