"""TensorBoard: losses, learning rate, gradient norm, metrics, pictures; the newest pictures as files, too."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import UInt8

from official.vision.draw import save_picture


class Summaries:
    """Writes below a run's folder: events into tensorboard/`part`, the newest picture of each name into pictures/."""

    def __init__(self, directory: str, part: str) -> None:
        self._pictures = f"{directory}/pictures"
        self._writer = tf.summary.create_file_writer(f"{directory}/tensorboard/{part}")

    def scalars(self, values: Mapping[str, Any], step: int, group: str = "train") -> None:
        """Numbers under `group/`; anything that is not a number (lists, tables) is left out."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                if isinstance(value, int | float):
                    tf.summary.scalar(f"{group}/{name}", value)
        self._writer.flush()

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """One picture; a name `a/b` is the file a_b.jpg."""
        tf.io.gfile.makedirs(self._pictures)
        save_picture(image, f"{self._pictures}/{name.replace('/', '_')}.jpg")
        with self._writer.as_default(step=step):
            tf.summary.image(name, image[np.newaxis])  # [1, height, width, 3]
        self._writer.flush()
