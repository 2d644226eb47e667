"""Darknet's parameters in and out of Keras models: those built from a cfg, and those built from parts.

A parameter's Keras variable follows from the layer's class: convolution kernels are HWIO here and OIHW in Darknet, a
[connected] kernel is [inputs, outputs] here, and Darknet's bias under batch-norm is the norm's own (`beta`). A model
without batch-norm layers (`folded`) takes in what has them; it cannot give them back.
"""

from collections.abc import Sequence

import keras
import numpy as np
from jaxtyping import Float

from modeling.darknet.weights import (
    Head,
    Header,
    Record,
    Values,
    WeightsError,
    WeightsFile,
    read_weights,
    write_weights,
)
from modeling.folding import folding_scale
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.connected import Connected, Local
from modeling.layers.convolution import Convolution
from modeling.layers.style import Made
from modeling.weights.keras_file import SUFFIXES, load_keras_file
from official.core.task import Loaded

# Darknet's axes in Keras's order: a Keras array is Darknet's transposed by these.
_AXES: dict[tuple[type, str], tuple[int, ...]] = {
    (Convolution, "weights"): (2, 3, 1, 0),  # [filters, channels, rows, columns] -> HWIO
    (Connected, "weights"): (1, 0),
    (Local, "weights"): (0, 1, 4, 5, 3, 2),  # [y, x, filters, channels, rows, columns] -> [y, x, HWIO]
    (Local, "biases"): (1, 2, 0),
}
_NORM_VARIABLES = {
    "biases": "beta",
    "scales": "gamma",
    "rolling_mean": "moving_mean",
    "rolling_variance": "moving_variance",
}


def model_records(model: keras.Model) -> list[Record]:
    """The records of a parts-built detector (modeling/yolo/network.py): its convolutions in the cfg's order.

    `model.made` has that order (modeling.layers.style.Made).

    Raises:
        WeightsError: the model has no record of it, or layers that no section of a cfg stands for.
    """
    made = _all_made(model)
    known = {one.norm for one in made}
    known |= {one.convolution for one in made if isinstance(model.get_layer(one.convolution), Convolution)}
    if others := [layer.name for layer in model.layers if layer.variables and layer.name not in known]:
        raise WeightsError(f"a Darknet file has no place for the weights of {', '.join(others[:3])}")
    heads = iter(model.outputs)
    records = []
    for one in made:
        name, normalised = one.convolution, one.norm is not None
        height, width, channels, filters = model.get_layer(name).kernel.shape
        norm = {"scales": (filters,), "rolling_mean": (filters,), "rolling_variance": (filters,)} if normalised else {}
        parameters = {"biases": (filters,)} | norm | {"weights": (filters, channels, height, width)}
        head = None
        if not normalised:  # what predicts has no batch-norm; its output is [b, rows, columns, anchors, 5 + classes]
            anchors, entries = next(heads).shape[-2:]
            head = Head(anchors, 5, entries - 5)
        records.append(Record(name, parameters, head=head))
    return records


def load_weights(model: keras.Model, path: str, records: Sequence[Record]) -> Loaded:
    """Fills a model from a .weights or *.conv.N file, or from a .keras or .weights.h5 file of the same network.

    records: of `model_records(model)`, or of the cfg the model was built from (`network_records`).

    Raises:
        WeightsError, KerasFileError: the file cannot be read or is another network's; nothing has been loaded then.
    """
    if path.endswith(SUFFIXES):
        return load_keras_file(model, path)
    weights = read_weights(path, records)
    load_into(model, records, weights, path)
    loaded = [record.name for record in records if weights.values.get(record.name)]
    lines = [f"loaded {len(loaded)} of {len(records)} layers with weights from {path}"]
    if loaded:
        lines[0] += f": {loaded[0]} to {loaded[-1]}"
    fresh = [record.name for record in records if record.name not in loaded]
    if fresh:
        lines.append(f"  not in the file, so with their initial weights: {', '.join(fresh)}")
    return Loaded("\n".join(lines), weights.header.seen, complete=not fresh)


def save_weights(model: keras.Model, path: str, records: Sequence[Record], seen: int = 0) -> None:
    """Writes a model as a .weights file that Darknet reads with the same cfg. `seen`: images it was trained with.

    Raises:
        WeightsError: see `values_of`.
    """
    write_weights(path, WeightsFile(Header(seen=seen), values_of(model, records)), records)


def load_into(model: keras.Model, records: Sequence[Record], weights: WeightsFile, source: str = "weights") -> None:
    """Gives a model the parameters of `weights`; layers that it does not hold keep theirs.

    `source` names the weights in errors. Nothing is assigned unless everything fits.

    Raises:
        WeightsError: the model has no such layer, or of another shape; a parameter is not finite.
    """
    assignments: list[tuple[keras.Variable, np.ndarray]] = []
    for record in records:
        values = dict(weights.values.get(record.name, {}))
        for name, value in values.items():
            if not np.isfinite(value).all() or (name == "rolling_variance" and value.min() < 0):
                what = "NaN, infinity or a negative variance"
                raise WeightsError(f"{source}: {name} of {record.name} hold {what}; the file is damaged")
        layer = _layer(model, record)
        if "scales" in record.parameters and _norm(model, layer) is None:
            values = _fold(record, values, _made(model, layer).epsilon, source)
        for name, value in values.items():
            variable = _variable(model, layer, name)
            value = np.transpose(value, _axes(layer, name) or range(value.ndim))
            if tuple(variable.shape) != value.shape:
                raise WeightsError(
                    f"{source}: {name} of {record.name} are {value.shape} in Keras's order of axes; the model has"
                    f" {tuple(variable.shape)}"
                )
            assignments.append((variable, value))
    for variable, value in assignments:
        variable.assign(value)


def values_of(model: keras.Model, records: Sequence[Record]) -> Values:
    """A model's parameters in Darknet's shapes, for `write_weights`; float32, but float64 of a model of float64.

    Raises:
        WeightsError: a batch-norm is folded into its convolution, so that its parameters are no more.
    """
    values: dict[str, dict[str, Float[np.ndarray, ...]]] = {}
    for record in records:
        layer = _layer(model, record)
        if "scales" in record.parameters and _norm(model, layer) is None:
            raise WeightsError(
                f"{record.name}: its batch-norm is folded into its kernel; write the model that was trained instead"
            )
        values[record.name] = {}
        for name in record.parameters:
            value = keras.ops.convert_to_numpy(_variable(model, layer, name))
            value = value if value.dtype == np.float64 else value.astype(np.float32)
            axes = _axes(layer, name)
            value = value if axes is None else np.transpose(value, np.argsort(axes))
            values[record.name][name] = np.ascontiguousarray(value).reshape(record.parameters[name])
    return values


def _layer(model: keras.Model, record: Record) -> keras.layers.Layer:
    try:
        return model.get_layer(record.name)
    except ValueError:
        raise WeightsError(f"the model has no layer {record.name}; it was built from another cfg or config") from None


def _norm(model: keras.Model, layer: keras.layers.Layer) -> BatchNorm | None:
    """The batch-norm that belongs to a layer, or is the layer."""
    if isinstance(layer, BatchNorm):
        return layer
    made = _made(model, layer)
    if made is None or made.norm is None:
        return None
    try:
        return model.get_layer(made.norm)
    except ValueError:  # it is folded
        return None


def _made(model: keras.Model, layer: keras.layers.Layer) -> Made | None:
    return next((one for one in _all_made(model) if one.convolution == layer.name), None)


def _all_made(model: keras.Model) -> tuple[Made, ...]:
    made = getattr(model, "made", None)
    if made is None:
        raise WeightsError(f"model {model.name!r} does not say its convolutions' order; build it with build_detector")
    return made


def _axes(layer: keras.layers.Layer, name: str) -> tuple[int, ...] | None:
    """Darknet's axes of a parameter in Keras's order, where they differ."""
    return next((axes for (kind, of), axes in _AXES.items() if isinstance(layer, kind) and of == name), None)


def _variable(model: keras.Model, layer: keras.layers.Layer, name: str) -> keras.Variable:
    """The Keras variable of Darknet's parameter `name`."""
    if name == "weights":
        return layer.kernel
    norm = _norm(model, layer)
    return layer.bias if norm is None else getattr(norm, _NORM_VARIABLES[name])


def _fold(record: Record, values: dict[str, np.ndarray], epsilon: float, source: str) -> dict[str, np.ndarray]:
    """Weights and biases that do what they and the batch-norm after them did (as modeling.folding.fold_into)."""
    if not values:
        return values
    if values.keys() != record.parameters.keys():
        raise WeightsError(f"{source}: {record.name} needs all of {', '.join(record.parameters)} to be folded")
    gamma, variance = (values[name].astype(np.float64) for name in ("scales", "rolling_variance"))
    scale = folding_scale(gamma, variance, epsilon)
    weights = values["weights"] * scale.reshape(-1, *[1] * (values["weights"].ndim - 1))
    biases = values["biases"] - values["rolling_mean"] * scale
    return {"biases": biases.astype(np.float32), "weights": weights.astype(np.float32)}
