"""A split of an experiment's data as the doctor sees it: what its files state, and what is in its images."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Integer

from configs.data import Split, TrainSplit
from dataloaders.reading.annotations import Annotations, clip_boxes
from dataloaders.reading.checks import Examined, examine
from dataloaders.reading.sources import read_source
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import placement
from tools.doctor.images import ImageFacts, decode_all


class SplitData(NamedTuple):
    """One split.

    Attributes:
        stated: the annotations before anything was looked at.
        examined: by reading/checks.py, which drops nothing here; its sizes are those of `stated`, or else the files'.
        images: of each row of `stated`, what its file holds.
    """

    name: str
    config: Split
    classes: tuple[str, ...]
    stated: Annotations
    examined: Examined
    images: tuple[ImageFacts, ...]

    @property
    def kept(self) -> Bool[np.ndarray, " images"]:
        """Images that pass the checks and can be decoded."""
        decoded = np.array([facts.problem == "" for facts in self.images], bool)
        return self.examined.keep_image & decoded

    @property
    def kept_boxes(self) -> Bool[np.ndarray, " boxes"]:
        """Boxes that can be used, on images that can be."""
        keep = self.examined.keep_box.copy()
        keep[keep] = self.kept[self.examined.image_of_box[keep]]
        return keep

    def files(self, rows: Integer[np.ndarray, " rows"] | list[int]) -> tuple[str, ...]:
        """The image files of these rows, each once; a box of no image has none."""
        wanted = dict.fromkeys(int(row) for row in rows)
        return tuple(self.stated.image_paths[row] for row in wanted if row >= 0)

    def files_of_boxes(self, boxes: Bool[np.ndarray, " boxes"]) -> tuple[str, ...]:
        return self.files(self.examined.image_of_box[boxes])


def read_split(name: str, config: Split, classes: tuple[str, ...]) -> SplitData:
    """Reads the annotations and decodes every image.

    Raises:
        FileNotFoundError, DataError: as `read_source`.
    """
    stated = read_source(config.source, classes)
    examined = examine(stated, classes, config.max_boxes if isinstance(config, TrainSplit) else None)
    readable = ~np.isin(examined.image_kinds, ["missing_image", "unreadable_image", "truncated_image"])
    images = decode_all(stated.image_paths, readable, f"decoding {name}")
    return SplitData(name, config, classes, stated, examined, images)


def sides_in_input(
    data: SplitData, boxes: Bool[np.ndarray, " boxes"], input_size: tuple[int, int], protocol: EvaluationProtocol
) -> Float64[np.ndarray, "chosen 2"]:
    """(width, height) of the chosen boxes, clipped to their images, in pixels of the network's input.

    Boxes are on images of known size.
    """
    sizes = data.examined.found.image_sizes[data.examined.image_of_box[boxes]]  # [chosen, 2], (height, width)
    scale = placement(tf.constant(sizes), input_size, protocol).size.numpy() / sizes
    return clip_boxes(data.examined.found.boxes[boxes], sizes)[:, 2:] * scale[:, ::-1]
