import functools
from typing import NamedTuple

import keras
import numpy as np
import pytest
from PIL import Image

from configs.backbones import TinyV4Backbone
from configs.yolo.heads import YoloHead, YoloLevel
from configs.yolo.task import YoloModel
from modeling.yolo.heads.yolo import decode
from modeling.yolo.network import build_detector, fold_batch_norm
from official.vision.detect import Decode
from official.vision.protocol import EvaluationProtocol
from serving.formats import write_export
from serving.formats.graph import DetectionGraph, detection_graph

INPUT_SIZE = (96, 64)
CLASSES = ("circle", "star", "square")


class Exported(NamedTuple):
    directory: object
    model: keras.Model
    decode: Decode
    protocol: EvaluationProtocol
    input_size: tuple[int, int]
    graph: DetectionGraph


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> Exported:
    """A narrow YOLOv4-tiny with random weights, exported."""
    config = YoloModel(
        input_size=INPUT_SIZE,
        backbone=TinyV4Backbone(type="yolov4_tiny", width=0.25),
        head=YoloHead(
            anchors=((8, 9), (16, 12), (20, 30), (40, 40)),
            levels=(YoloLevel(mask=(2, 3), scale_x_y=1.05), YoloLevel(mask=(0, 1))),
        ),
    )
    model = fold_batch_norm(config, len(CLASSES), build_detector(config, len(CLASSES), seed=1))
    bound = functools.partial(decode, head=config.head, input_size=INPUT_SIZE)
    # A low threshold and few detections: so that NMS has something to do on random weights.
    protocol = EvaluationProtocol(detections_per_image=20, nms_threshold=0.3)
    directory = tmp_path_factory.mktemp("exported") / "nested" / "saved_model"
    graph = detection_graph(model, bound, protocol, CLASSES, INPUT_SIZE, category_ids=(3, 7, 90))
    write_export(graph, "saved_model", directory)
    return Exported(directory, model, bound, protocol, INPUT_SIZE, graph)


@pytest.fixture(scope="session")
def graph(exported) -> DetectionGraph:
    return exported.graph


@pytest.fixture
def photos(tmp_path):
    """A folder of three images that differ in size and kind, and a file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size in {"a.jpg": (120, 90), "b.png": (50, 130), "c.JPEG": (64, 64)}.items():
        coarse = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size[::-1]).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder
