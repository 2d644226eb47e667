"""Our exported SavedModel against OpenCV's dnn on the same Darknet weights, on the CPU, one image at a time.

`python -m benchmarks.inference --assets DIR [--json FILE]`: signature `raw` (batch-norm folded, with decode, without
NMS) and OpenCV's forward pass in turn. At most 0.8 times OpenCV's time for the tiny models at 416, at most 1.0 for
yolo-fastest-1.1 at 320. OpenCV reads Darknet's files up to version 4. Also: what it takes to build the largest cfg.

DIR holds cfg/ and the folders of the models, each with its .cfg and .weights.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from benchmarks.report import arguments, interleaved, publish, timing_rows
from modeling.darknet.build import build_network
from modeling.darknet.cfg import read_cfg
from serving.jobs import export_checkpoint
from tasks.yolo.darknet_files import export_experiment

MODELS = {"yolov3-tiny": (416, 0.8), "yolov4-tiny": (416, 0.8), "yolo-fastest-1.1": (320, 1.0)}  # side, target
LARGEST = "cspx-p7-mish.cfg"


def ours(
    cfg: Path, weights: Path, image: Float32[np.ndarray, "1 height width 3"], folder: str
) -> Callable[[], list[np.ndarray]]:
    """A call of the exported model on one image [1, height, width, 3]."""
    overrides = ["runtime.device=cpu", f"task.model.input_size={list(image.shape[1:3])}"]
    export_checkpoint(export_experiment(str(cfg), None, None, overrides), str(weights), folder)
    loaded = tf.saved_model.load(folder)
    raw, images = loaded.signatures["raw"], tf.constant(image)
    return lambda _keep=loaded: [output.numpy() for output in raw(images=images).values()]


def opencvs(
    cfg: Path, weights: Path, image: Float32[np.ndarray, "1 height width 3"]
) -> Callable[[], tuple[np.ndarray, ...]]:
    """The same of OpenCV; its [yolo] layers decode too."""
    network = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    names = network.getUnconnectedOutLayersNames()
    blob = np.ascontiguousarray(np.transpose(image, (0, 3, 1, 2)))

    def run() -> tuple[np.ndarray, ...]:
        network.setInput(blob)
        return network.forward(names)

    return run


def compare(assets: Path, name: str, rounds: int) -> dict[str, Any]:
    side, target = MODELS[name]
    cfg, weights = (assets / name / f"{name}.{suffix}" for suffix in ("cfg", "weights"))
    image = np.random.default_rng(0).uniform(size=(1, side, side, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        functions = {"OpenCV": opencvs(cfg, weights, image), "ours": ours(cfg, weights, image, f"{folder}/export")}
        seconds = interleaved(functions, rounds, warm_up=5)
    opencv, own = timing_rows(seconds, "OpenCV")
    return {
        "what": f"{name} at {side}",
        "median ms": own["median ms"],
        f"OpenCV {cv2.__version__}, median ms": opencv["median ms"],
        "ratio": own["ratio to OpenCV"],
        "target": target,
    }


def build_largest(assets: Path) -> dict[str, Any]:
    """Seconds and peak memory of building the largest cfg, as a row like `compare`'s."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    graph = build_network(read_cfg(str(assets / "cfg" / LARGEST)), seed=0)
    seconds = time.perf_counter() - began
    mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = f"{len(graph.network.layers)} layers, {graph.model.count_params() / 1e6:.0f} million weights"
    return {"what": f"build of {LARGEST} ({size}): {mebibytes:.0f} MiB", "median ms": 1000 * seconds}


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, required=True, metavar="DIR", help="cfg files and weights")
    parser.add_argument("--rounds", type=int, default=30, help="of each comparison, at least 20 (default 30)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    build = build_largest(options.assets)  # first: peak memory only rises
    rows = [compare(options.assets, name, options.rounds) for name in options.models]
    rows.append({key: build.get(key, "") for key in rows[0]})
    publish("Exported SavedModel against OpenCV's dnn, CPU, batch 1", rows, options.json)


if __name__ == "__main__":
    main()
