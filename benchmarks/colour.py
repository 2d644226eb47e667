"""Flip, colour and effects on the accelerator: what they add to a training step of YOLOv4-tiny at the same input size.

`python -m benchmarks.colour [--json FILE]`: 416 x 416, batch 8, calls in turn. Added: beyond normalising the same
bytes, which every step does; as a share of the whole step, by the wall clock and by CPU time.
At most 3 % for flip and colour; blur and noise, which no published cfg switches on, apart.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from benchmarks.report import arguments, interleaved, publish
from benchmarks.step import endless, tiny_run
from configs.data import DarknetAugmentation
from dataloaders.augment.colour import apply_colour, draw_colour
from dataloaders.batch import TrainBatch

WARM_UP = 2
DARKNET = {"hue": 0.1, "saturation": 1.5, "exposure": 1.5}
VARIANTS = {
    "normalise": None,
    "darknet_float": DARKNET,
    "darknet_opencv": DARKNET | {"colour": {"type": "darknet_opencv"}},
    "hsv_gains": {"colour": {"type": "hsv_gains"}},
    "darknet_opencv, blur": DARKNET | {"colour": {"type": "darknet_opencv", "blur": 1}},
    "darknet_opencv, noise": DARKNET | {"colour": {"type": "darknet_opencv", "gaussian_noise": 10}},
}


def variant(batch: TrainBatch, config: DarknetAugmentation | None) -> Callable[[], Any]:
    """Applies draws of its own to the batch, each call the same."""
    drawn = [draw_colour(config, tf.constant([row, 1], tf.int64)) for row in range(len(batch.image))]
    batch = batch._replace(draws=tf.nest.map_structure(lambda *rows: tf.stack(rows), *drawn))
    apply = tf.function(lambda batch: apply_colour(batch, config)[0][:, 0, 0], autograph=False)
    compiled = apply.get_concrete_function(batch)
    return lambda: compiled(batch).numpy()


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=416, help="input height and width (default 416)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    run, batch = tiny_run(options.size, options.batch)
    iterator, one = endless(batch), tf.constant(1, tf.int64)
    functions = {"training step": lambda: run._loop(iterator, one)["scalars"]["loss"].numpy()}
    for name, words in VARIANTS.items():
        functions[name] = variant(batch, words and DarknetAugmentation(**words))
    cpu: dict[str, list[float]] = {name: [] for name in functions}

    def timed(name: str) -> None:
        began = time.process_time()
        functions[name]()
        cpu[name].append(time.process_time() - began)

    wall = interleaved({name: lambda name=name: timed(name) for name in functions}, options.rounds, WARM_UP)
    of_wall, of_cpu = ({n: statistics.median(times) for n, times in clock.items()} for clock in (wall, cpu))
    rows = [
        {
            "what": name,
            "median ms": 1000 * of_wall[name],
            "CPU ms": 1000 * of_cpu[name],
            "added, of a step's time": (of_wall[name] - of_wall["normalise"]) / of_wall["training step"],
            "added, of its CPU time": (of_cpu[name] - of_cpu["normalise"]) / of_cpu["training step"],
        }
        for name in VARIANTS
    ]
    step = {"what": "training step", "median ms": 1000 * of_wall["training step"]}
    rows.append(step | {"CPU ms": 1000 * of_cpu["training step"]} | dict.fromkeys(list(rows[0])[3:], "-"))
    publish(f"Colour, {options.size} x {options.size}, batch {options.batch}", rows, options.json)


if __name__ == "__main__":
    main()
