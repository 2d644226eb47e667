"""A small Darknet project on disk: a cfg like yolov4-tiny's, images of coloured boxes with label files, weights."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from modeling.darknet.build import build_network
from modeling.darknet.cfg import read_cfg
from modeling.darknet.loading import save_weights
from modeling.darknet.weights import network_records

NAMES = ("red box", "blue box")

NET = """[net]
batch=4
subdivisions=2
width=96
height=64
channels=3
momentum=0.9
decay=0.0005
saturation=1.5
exposure=.75
hue=.1
learning_rate=0.001
burn_in=2
max_batches=6
policy=steps
steps=4,5
scales=.1,.1
"""
LAYERS = """
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky

[route]
layers=-1
groups=2
group_id=1

[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky

[route]
layers=-1,-3

[maxpool]
size=2
stride=2

[convolutional]
batch_normalize=1
filters=16
size=3
stride=1
pad=1
activation=leaky

[convolutional]
filters={filters}
size=1
activation=linear

[yolo]
mask=3,4,5
anchors=6,8, 10,12, 16,14, 24,20, 30,36, 48,40
classes={classes}
num=6
jitter=.2
ignore_thresh=.7
iou_loss=ciou
iou_normalizer=0.07
scale_x_y=1.05
nms_kind=greedynms
beta_nms=0.6
max=20

[route]
layers=-3

[upsample]
stride=2

[convolutional]
filters={filters}
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=6,8, 10,12, 16,14, 24,20, 30,36, 48,40
classes={classes}
num=6
jitter=.2
resize=1.2
ignore_thresh=.7
iou_loss=ciou
iou_normalizer=0.07
scale_x_y=1.05
nms_kind=greedynms
beta_nms=0.6
max=20
"""


class DarknetFiles(NamedTuple):
    """Paths of what is needed to train, and the same images in COCO's format."""

    cfg: str
    data: str
    names: str
    weights: str


def write_cfg(path: Path, net: str = "", classes: int = 2) -> str:
    """The cfg, with `net` lines that win over its own, since the first of two wins."""
    text = NET.replace("[net]\n", f"[net]\n{net}") + LAYERS.format(classes=classes, filters=3 * (5 + classes))
    path.write_text(text)
    return str(path)


def write_images(folder: Path, count: int, seed: int) -> list[str]:
    """Non-square images with one or two boxes each, and their label files; every third has no object."""
    folder.mkdir(parents=True)
    random, paths = np.random.default_rng(seed), []
    for number in range(count):
        height, width = (60, 88) if number % 2 else (72, 64)
        pixels = random.integers(90, 130, (height, width, 3)).astype(np.uint8)
        lines = []
        for kind in range(0 if number % 3 == 2 else 1 + number % 2):
            w, h = random.uniform(0.2, 0.5, 2)
            x, y = random.uniform([w / 2, h / 2], [1 - w / 2, 1 - h / 2])
            rows = slice(round((y - h / 2) * height), round((y + h / 2) * height))
            pixels[rows, round((x - w / 2) * width) : round((x + w / 2) * width)] = ((220, 30, 30), (30, 30, 220))[kind]
            lines.append(f"{kind} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n")
        paths.append(str(folder / f"{seed}_{number}.jpg"))
        Image.fromarray(pixels).save(paths[-1], quality=95)
        (folder / f"{seed}_{number}.txt").write_text("".join(lines))
    return paths


def write_weights(cfg: str, path: Path, seen: int = 0) -> str:
    """Weights of an untrained network."""
    network = read_cfg(cfg)
    save_weights(build_network(network, seed=7).model, str(path), network_records(network), seen)
    return str(path)


def write_project(root: Path) -> DarknetFiles:
    """Everything in `root`: x.cfg, x.data, x.names, x.weights, images/, lists."""
    (root / "x.names").write_text("\n".join(NAMES) + "\n")
    for split, count, seed in (("train", 7, 1), ("valid", 4, 2)):
        (root / f"{split}.txt").write_text("\n".join(write_images(root / split, count, seed)) + "\n")
    lines = [f"classes = {len(NAMES)}", *(f"{key} = {root}/{key}.txt" for key in ("train", "valid"))]
    (root / "x.data").write_text("\n".join([*lines, f"names = {root}/x.names", "backup = backup/"]) + "\n")
    cfg = write_cfg(root / "x.cfg")
    weights = write_weights(cfg, root / "x.weights", seen=8)
    return DarknetFiles(cfg, str(root / "x.data"), str(root / "x.names"), weights)
