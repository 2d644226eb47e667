"""TensorBoard: losses, learning rate, gradient norm, evaluation metrics, pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import UInt8


class Summaries:
    """Writes one run's events below `directory`."""

    def __init__(self, directory: str) -> None:
        self._writer = tf.summary.create_file_writer(directory)

    def scalars(self, values: Mapping[str, Any], step: int, group: str = "train") -> None:
        """Numbers under `group/`; anything that is not a number (lists, tables) is left out."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                if isinstance(value, int | float):
                    tf.summary.scalar(f"{group}/{name}", value)
        self._writer.flush()

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """One picture."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, image[np.newaxis])  # [1, height, width, 3]
        self._writer.flush()
