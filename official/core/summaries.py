"""TensorBoard: losses, learning rate, gradient norm, metrics, pictures; the newest pictures as files, too."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import UInt8
from matplotlib.figure import Figure

from official.vision.draw import pixels_of, save_figure, save_picture
from official.vision.plots import history_figure

History = dict[str, tuple[list[int], list[float]]]  # steps and values of each quantity


class Summaries:
    """Writes below a run's folder: events into tensorboard/`part`, the newest picture of each name into pictures/."""

    def __init__(self, directory: str, part: str) -> None:
        self._directory, self._pictures = directory, f"{directory}/pictures"
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
        save_picture(image, self._file(name, "jpg"))
        self._image(name, image, step)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """One figure; a name `a/b` is the file a_b.png."""
        save_figure(figure, self._file(name, "png"))
        self._image(name, pixels_of(figure), step)

    def losses(self, step: int) -> None:
        """The curves of all that the training has written so far, as the figure `train/curves`; none: nothing."""
        history = read_history(f"{self._directory}/tensorboard/train")
        if history:
            self.figure("train/curves", history_figure(history), step)

    def _file(self, name: str, kind: str) -> str:
        tf.io.gfile.makedirs(self._pictures)
        return f"{self._pictures}/{name.replace('/', '_')}.{kind}"

    def _image(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        with self._writer.as_default(step=step):
            tf.summary.image(name, image[np.newaxis])  # [1, height, width, 3]
        self._writer.flush()


class NoSummaries(Summaries):
    """Of the workers that are not the chief: writes nothing."""

    def __init__(self) -> None:
        pass

    def scalars(self, values: Mapping[str, Any], step: int, group: str = "train") -> None:
        """Nothing."""

    def picture(self, name: str, image: UInt8[np.ndarray, "height width 3"], step: int) -> None:
        """Nothing."""

    def figure(self, name: str, figure: Figure, step: int) -> None:
        """Nothing."""

    def losses(self, step: int) -> None:
        """Nothing."""


def read_history(directory: str) -> History:
    """The scalars in a folder of TensorBoard's events, by name. A step made again counts once, the last time."""
    found: dict[str, dict[int, float]] = {}
    for name, step, value in _scalars(directory):
        found.setdefault(name.removeprefix("train/"), {})[step] = value
    ordered = {name: sorted(values.items()) for name, values in found.items()}
    return {name: ([step for step, _ in pairs], [value for _, value in pairs]) for name, pairs in ordered.items()}


def _scalars(directory: str) -> Iterator[tuple[str, int, float]]:
    """In the order of writing; of a file whose writer was killed, what is whole."""
    for path in sorted(tf.io.gfile.glob(f"{directory}/events.out.tfevents.*")):  # named by the time of their start
        try:
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                for value in event.summary.value:
                    if value.metadata.plugin_data.plugin_name == "scalars":
                        yield value.tag, event.step, float(tf.make_ndarray(value.tensor))
        except tf.errors.DataLossError:
            continue
