"""Small and full-size model configurations shared by the tests of modeling/."""

import pytest

from configs.yolo.task import YoloModel

ANCHORS = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319), (12, 16), (19, 36), (40, 28))


@pytest.fixture(scope="session")
def yolo_model():
    """`yolo_model("yolov4_tiny", levels=2, size=(height, width), width=1.0, **model fields)` -> YoloModel."""

    def make(backbone, levels=2, size=(64, 96), width=1.0, lateral="half_of_skip", **fields):
        masks = [(3, 4, 5), (1, 2, 3), (0, 1, 2)][:levels]
        return YoloModel(
            input_size=size,
            backbone={"type": backbone, "width": width},
            decoder={"lateral": lateral},
            head={"anchors": ANCHORS, "levels": [{"mask": mask} for mask in masks]},
            **fields,
        )

    return make
