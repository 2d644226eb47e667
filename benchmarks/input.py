"""CPU of the input pipeline per output image, as a ratio to decoding one such image; its memory, and its start.

`python -m benchmarks.input [--json FILE] [--only WORD] [--soak BATCHES]`: the 80 COCO images of ../shared/assets, one
process, fixed threads. Each figure is the CPU of all threads of the process (time.process_time), measured in turn with
the decoding; the medians of the ratios of the rounds.
"""

import argparse
import functools
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import tensorflow as tf

from benchmarks.report import arguments, publish
from configs.centernet.augmentation import CenterNetAugmentation
from configs.centernet.task import CenterNetProtocol
from configs.data import AffineAugmentation, CocoSource, DarknetAugmentation, ReuseWindow, TrainSplit
from dataloaders.centernet.input import Centred
from dataloaders.compose.composer import Composer
from dataloaders.pipeline import train_dataset
from dataloaders.reading.sources import DetectionDataset, open_source
from official.vision.protocol import EvaluationProtocol

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets" / "coco_val"
BATCH = 8
IMAGES = 80  # output images in a round
COLOUR = {"hue": 0.1, "saturation": 1.5, "exposure": 1.5}
DARKNET = {"jitter": 0.3, **COLOUR}
SCALED_V4 = {
    "centre": "middle", "translate": 0.5, "scale": (0.5, 1.5), "least_area": 0.2,
}  # fmt: skip
V7 = {"nine": 0.2, "mixup": 0.15, "translate": 0.2, "scale": (0.1, 2.0)}


class Row(NamedTuple):
    """A configuration, what Model Garden 2.20.0 was measured to cost, and what ours may."""

    name: str
    batches: Callable[[DetectionDataset, CocoSource, tf.data.Dataset], tf.data.Dataset]
    model_garden: float | None
    target: float | None


def yolo(
    side: int, augmentation: DarknetAugmentation | AffineAugmentation, threads: int = 1
) -> Callable[[DetectionDataset, CocoSource, tf.data.Dataset], tf.data.Dataset]:
    """The batches of a YOLO task of square input."""

    def batches(data: DetectionDataset, source: CocoSource, steps: tf.data.Dataset) -> tf.data.Dataset:
        split = TrainSplit(source=source, batch_size=BATCH, threads=threads, augmentation=augmentation)
        make = Composer(data.examples("cxcywh"), split, (side, side), EvaluationProtocol(), "cxcywh", 0)
        return train_dataset(make, split, steps)

    return batches


def centernet(
    side: int, augmentation: CenterNetAugmentation
) -> Callable[[DetectionDataset, CocoSource, tf.data.Dataset], tf.data.Dataset]:
    """The batches of a CenterNet task of square input."""
    protocol = CenterNetProtocol()

    def batches(data: DetectionDataset, source: CocoSource, steps: tf.data.Dataset) -> tf.data.Dataset:
        split = TrainSplit(source=source, batch_size=BATCH, threads=1, augmentation=augmentation)
        make = Centred(data.examples("xyxy_pixels"), split, (side, side), protocol, 0)
        return train_dataset(make, split, steps)

    return batches


# What the least that any pipeline does costs on this machine: the targets were set where it cost 1.40.
FLOOR = "decode, tf.image.resize to 416, uint8"
NO_BARS = {"target": None, "Model Garden": None}
ROWS = (
    Row("YOLO 416, jitter, HSV, flip", yolo(416, DarknetAugmentation(**DARKNET)), 6.6, 1.4),
    Row("YOLO 416, mosaic, independent", yolo(416, DarknetAugmentation(mosaic=1, fill="mean", **DARKNET)), 15, 3.2),
    Row(
        "YOLO 416, mosaic, window",
        yolo(416, DarknetAugmentation(mosaic=1, fill="mean", window=ReuseWindow(examples=32, reuse=4), **DARKNET)),
        None,
        1.8,
    ),
    Row("640, Scaled-YOLOv4, independent", yolo(640, AffineAugmentation(**SCALED_V4)), 48, 5),
    Row(
        "640, Scaled-YOLOv4, window",
        yolo(640, AffineAugmentation(window=ReuseWindow(examples=32, reuse=4), **SCALED_V4)),
        48,
        3,
    ),
    Row("640, YOLOv7, independent", yolo(640, AffineAugmentation(**V7)), 112, 8),
    Row("CenterNet 512", centernet(512, CenterNetAugmentation()), None, 1.6),
    Row("CenterNet 512, precise", centernet(512, CenterNetAugmentation(precise=True)), None, None),
    Row("640, YOLOv7, window", yolo(640, AffineAugmentation(window=ReuseWindow(examples=100, reuse=5), **V7)), 112, 4),
)


def open_images() -> tuple[DetectionDataset, CocoSource]:
    """The 80 images and their boxes."""
    path = ASSETS / "instances_val2017_80.json"
    names = tuple(category["name"] for category in json.loads(path.read_text())["categories"])
    source = CocoSource(annotations=str(path), images=str(ASSETS / "images"))
    return open_source(source, names, "skip", 100), source


def cpu_of(function: Callable[[], Any]) -> float:
    """Seconds of all threads of this process, until none works any more: what is made in advance counts where it is."""
    began = time.process_time()
    function()
    settle()
    return time.process_time() - began


def settle() -> None:
    """Waits until buffers are full: no thread has worked for a while, though the machine be busy with others."""
    idle, before = 0, time.process_time()
    while idle < 5:
        time.sleep(0.04)
        idle = idle + 1 if time.process_time() - before < 0.002 else 0
        before = time.process_time()


def _take(stream: Iterator[Any]) -> None:
    for _ in range(IMAGES // BATCH):
        next(stream)


def ratios(rows: tuple[Row, ...], rounds: int) -> list[dict[str, Any]]:
    """Every row against decoding, in turn."""
    data, source = open_images()
    encoded = [tf.io.read_file(path) for path in data.image_paths]

    def decode() -> None:
        for image in encoded:
            tf.io.decode_jpeg(image, channels=3)

    def resize() -> None:
        for image in encoded:
            tf.cast(tf.image.resize(tf.io.decode_jpeg(image, channels=3), [416, 416]), tf.uint8)

    work = {FLOOR: resize}
    for row in rows:
        stream = iter(row.batches(data, source, tf.data.Dataset.counter(dtype=tf.int64)))
        work[row.name] = functools.partial(_take, stream)
    measured: dict[str, list[float]] = {name: [] for name in work}
    decoding = []
    for number in range(rounds + 1):
        for name, made in work.items():
            once = cpu_of(decode) / len(encoded)
            cost = cpu_of(made) / IMAGES
            if number:  # the first round warms up
                decoding.append(once)
                measured[name].append(cost / once)
    print(f"decode_jpeg of one image: {1000 * statistics.median(decoding):.2f} ms of CPU")
    bars = {row.name: {"target": row.target, "Model Garden": row.model_garden} for row in rows}
    return [
        {"what": name, "decodes": statistics.median(costs), "least": min(costs), **bars.get(name, NO_BARS)}
        for name, costs in measured.items()
    ]


def soak(row: Row, batches: int) -> list[dict[str, Any]]:
    """Resident memory above the process's base, and seconds to the first batch."""
    data, source = open_images()
    tf.io.decode_jpeg(tf.io.read_file(data.image_paths[0]))
    base, began = resident(), time.perf_counter()
    iterator = iter(row.batches(data, source, tf.data.Dataset.range(batches)))
    next(iterator)
    first, rows = time.perf_counter() - began, []
    for number in range(1, batches):
        next(iterator)
        if number % max(1, batches // 20) == 0:
            rows.append({"what": row.name, "batch": number, "MB above base": (resident() - base) / 1e6})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{row.name}: first batch after {first:.2f} s, peak {(peak - base) / 1e6:.0f} MB above the base")
    return rows


def resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--soak", type=int, metavar="BATCHES", help="memory of the first such row instead")
    options = parser.parse_args()
    rows = tuple(row for row in ROWS if options.only in row.name)
    if options.soak:
        publish("Memory of the input pipeline", soak(rows[0], options.soak), options.json)
    else:
        publish("CPU per output image, in decodes of one image", ratios(rows, options.rounds), options.json)


if __name__ == "__main__":
    main()
