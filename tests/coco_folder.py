"""Small data sets on disk: non-square images of noise, a gradient of sizes, boxes given by the test."""

import json

import numpy as np
import pytest
from PIL import Image

from configs.data import CocoSource

CLASSES = ("cell", "dot")


class CocoFolder:
    """Writes images and a COCO file; `boxes` are (image_id, category_id, [x, y, w, h])."""

    def __init__(self, root):
        self.root, self.images, self.annotations = root, [], []
        self.categories = [{"id": 7, "name": "cell"}, {"id": 3, "name": "dot"}]
        (root / "images").mkdir()

    def image(self, image_id, height=24, width=40, ending="jpg"):
        pixels = np.random.default_rng(image_id).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
        name = f"image_{image_id}.{ending}"
        Image.fromarray(pixels).resize((width, height)).save(self.root / "images" / name)
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        return self.root / "images" / name

    def box(self, image_id, box, category=7, **more):
        entry = {"id": len(self.annotations), "image_id": image_id, "category_id": category, "bbox": box, **more}
        self.annotations.append(entry)

    @property
    def source(self):
        path = self.root / "instances.json"
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        path.write_text(json.dumps(content))
        return CocoSource(annotations=str(path), images=str(self.root / "images"))


@pytest.fixture
def folder(tmp_path):
    return CocoFolder(tmp_path)


@pytest.fixture
def seven(folder):
    """Seven images of several sizes; image 14 has no box, image 15 a box on the border, image 16 five boxes."""
    for image_id in range(10, 17):
        folder.image(image_id, 20 + 4 * (image_id % 3), 40 + 4 * (image_id % 2))
        if image_id != 14:
            folder.box(image_id, [4.5, 3.25, 12, 9.5], category=7 if image_id % 2 else 3)
    folder.box(15, [0, 0, 10, 28 - 8])
    for number in range(4):
        folder.box(16, [2 * number, 1 + number, 8, 9])
    return folder


@pytest.fixture
def two_folders(tmp_path):
    """One for each split; images of equal id are equal."""
    for name in ("train", "validation"):
        (tmp_path / name).mkdir()
    return CocoFolder(tmp_path / "train"), CocoFolder(tmp_path / "validation")
