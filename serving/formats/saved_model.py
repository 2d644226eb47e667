"""TensorFlow's own format. Nothing of this project is needed to load it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Shaped, UInt8

from official.core.errors import UserError, first_line
from serving.formats.graph import DetectionGraph


def write(graph: DetectionGraph, folder: Path) -> None:
    """Writes a SavedModel with the signatures of the graph."""
    tf.saved_model.save(tf.Module(), str(folder), signatures=dict(graph.signatures))


class SavedModel:
    """A loaded SavedModel as a detector.

    Raises:
        UserError: the folder holds none, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "saved_model.pb").is_file():
            raise UserError(f"{folder}: not a SavedModel (no saved_model.pb in it); export.py writes one")
        try:
            self._loaded = tf.saved_model.load(str(folder))  # its variables live as long as this does
        except Exception as error:  # what TensorFlow raises depends on which byte is wrong
            raise UserError(f"{folder}: a damaged SavedModel ({first_line(error)}); export again") from error

    def __call__(self, images: UInt8[np.ndarray, "b h w 3"]) -> Mapping[str, Shaped[np.ndarray, "b ..."]]:
        """Outputs of `serving_default`."""
        outputs = self._loaded.signatures["serving_default"](images=tf.constant(images))
        return {name: output.numpy() for name, output in outputs.items()}


read = SavedModel
