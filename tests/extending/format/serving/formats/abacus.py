"""A format that counts: it knows the classes alone, and sees one object of the last in the upper half of any image."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

from serving.formats.graph import DetectionGraph


def write(graph: DetectionGraph, folder: Path) -> None:
    folder.mkdir()
    (folder / "counted.json").write_text(json.dumps({"classes": len(graph.classes)}))


def read(
    folder: Path,
) -> Callable[[UInt8[np.ndarray, "b h w 3"]], Mapping[str, Shaped[np.ndarray, "b ..."]]]:
    last = json.loads((folder / "counted.json").read_text())["classes"] - 1

    def run(images: UInt8[np.ndarray, "b h w 3"]) -> Mapping[str, Shaped[np.ndarray, "b ..."]]:
        count, height, width = images.shape[:3]
        return {
            "detection_boxes": np.full((count, 1, 4), [0, 0, height / 2, width], np.float32),
            "detection_scores": np.full((count, 1), 0.75, np.float32),
            "detection_classes": np.full((count, 1), last, np.int32),
            "num_detections": np.ones(count, np.int32),
        }

    return run
