"""The weights in `.keras` and `.weights.h5` files, read by their layers' names.

Keras's own `load_weights` finds layers by their class and number, so that the weights of another network whose first
layers have the same shapes would be loaded without a word.
"""

import io
import zipfile

import h5py
import keras
import numpy as np
import tensorflow as tf

from official.core.errors import UserError, first_line
from official.core.task import Loaded

SUFFIXES = (".keras", ".weights.h5")
_INSIDE = "model.weights.h5"  # of a .keras file, which is a zip archive


class KerasFileError(UserError):
    """A file that cannot be used; the message names file and layer."""


def load_keras_file(model: keras.Model, path: str) -> Loaded:
    """Gives a model the weights in a `.keras` or `.weights.h5` file of the same network; all of them or none.

    Raises:
        KerasFileError: the file cannot be read, or is not of a network with just these layers and shapes.
    """
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            content = file.read()
        if path.endswith(".keras"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read(_INSIDE)
        with h5py.File(io.BytesIO(content), "r") as store:
            assignments = _assignments(model, store, path)
    except UserError:
        raise
    except Exception as error:  # zipfile and h5py tell of a damaged file by errors of many types
        raise KerasFileError(f"{path}: cannot read this file of weights: {first_line(error)}") from None
    for variable, value in assignments:
        variable.assign(value)
    return Loaded(f"loaded all {len(assignments)} variables from {path}", None)


def save_keras_file(model: keras.Model, path: str) -> None:
    """Writes network and weights to a `.keras` file, or the weights alone to a `.weights.h5` file."""
    if path.endswith(".keras"):
        model.save(path)
    else:
        model.save_weights(path)


def _assignments(model: keras.Model, store: h5py.File, path: str) -> list[tuple[keras.Variable, np.ndarray]]:
    """What each of the model's variables becomes; arrays are read only where they have the variable's shape."""
    groups: dict[str, h5py.Group] = {}

    def collect(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and "name" in item.attrs and len(item):
            groups[str(item.attrs["name"])] = item

    store.visititems(collect)  # follows no links, so nothing outside the file is read
    layers = {layer.name: layer for layer in model.layers if layer.variables}
    if layers.keys() != groups.keys():
        missing, further = sorted(layers.keys() - groups.keys()), sorted(groups.keys() - layers.keys())
        raise KerasFileError(
            f"{path}: is of another network: it lacks {len(missing)} layers ({', '.join(missing[:3])}) and has"
            f" {len(further)} others ({', '.join(further[:3])})"
        )
    assignments = []
    for name, layer in layers.items():
        variables = layer._trainable_variables + layer._non_trainable_variables  # the order in which Keras writes them
        arrays = [groups[name][str(number)] for number in range(len(groups[name]))]
        expected, found = [tuple(variable.shape) for variable in variables], [array.shape for array in arrays]
        if expected != found or any(array.external for array in arrays):
            raise KerasFileError(f"{path}: layer {name} has arrays of shape {found}; the network has {expected}")
        assignments += [(variable, array[()]) for variable, array in zip(variables, arrays, strict=True)]
    return assignments
