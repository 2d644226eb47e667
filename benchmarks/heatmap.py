"""Heatmaps drawn in the loss against heatmaps sent by the input pipeline: bytes, host time, step time, memory.

`python -m benchmarks.heatmap [--json FILE]`: 512 x 512, 80 classes, batch 8, room for 16, 64 and 128 boxes, all taken.
- pipeline: made on the host and sent as the original's sample does, image and heatmap as float32.
- dense: in the loss, as one tensor with a box and a class axis beside height and width.
- ours: in the loss, losses/centernet/gaussian.py.
Targets for ours: at least 9 times fewer bytes than pipeline; memory at most 3 heatmaps; at 128 boxes at most 3 % more
step time than with the heatmap at hand.

The network's part of the step (ResNet-18, forward and backward) and the loss with its gradient are timed apart and
added up: the network's own scatter is larger than the differences. Memory is the peak of the drawing alone, the
heatmap included, in a process of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int32, Shaped, UInt8

from benchmarks.report import arguments, interleaved, publish
from configs.centernet.task import CenterNetHead, CenterNetLoss, CenterNetModel
from losses.centernet.gaussian import cut_gaussian
from losses.centernet.loss import loss_against
from losses.centernet.targets import Objects, Targets, assign, place
from losses.truth import Truth
from modeling.centernet.decode import Stack
from modeling.centernet.network import build_centernet

Image = UInt8[np.ndarray, "height width 3"]
Corners = Float32[np.ndarray, "boxes xyxy=4"]  # xyxy in output pixels
Classes = Int32[np.ndarray, " boxes"]
Sent = dict[str, Shaped[np.ndarray, "..."]]

INPUT, STRIDE, CLASSES, BATCH = 512, 4, 80, 8
SIDE = INPUT // STRIDE
GRID = (SIDE, SIDE)
HEATMAP_BYTES = 4 * BATCH * SIDE * SIDE * CLASSES
ROOMS = (16, 64, 128)
PEAK_ONLY = "--peak-of"  # what the processes that measure memory are called with


def random_truth(room: int) -> Truth:
    rng = np.random.default_rng(0)
    centre, size = rng.uniform(0, SIDE, [BATCH, room, 2]), rng.uniform(1, 0.4 * SIDE, [BATCH, room, 2])
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=2).astype(np.float32)
    classes = rng.integers(0, CLASSES, [BATCH, room], np.int32)
    return Truth(tf.constant(boxes), tf.constant(classes), tf.ones([BATCH, room], tf.bool))


def sent_by_pipeline(image: Image, boxes: Corners, classes: Classes) -> Sent:
    """One example as the original sends it: normalised image, heatmap and targets, all drawn in NumPy. Boxes: xyxy."""
    room = len(boxes)
    mean, deviation = np.float32([0.408, 0.447, 0.470]), np.float32([0.289, 0.274, 0.278])
    hm = np.zeros([CLASSES, SIDE, SIDE], np.float32)
    wh, reg = np.zeros([2, room, 2], np.float32)
    ind, mask = np.zeros(room, np.int64), np.zeros(room, np.uint8)
    for row, (box, cls) in enumerate(zip(np.clip(boxes, 0, SIDE - 1), classes, strict=True)):
        size = box[2:] - box[:2]
        if size.min() <= 0:
            continue
        centre = (box[:2] + box[2:]) / 2
        x, y = centre.astype(int)
        total, area = np.ceil(size).sum(), np.ceil(size).prod()
        radius = int((np.sqrt(1.96 * total**2 + 3.36 * area) - 1.4 * total) / 2)
        line = np.arange(-radius, radius + 1)
        gaussian = np.exp(-18 * (line**2 + line[:, np.newaxis] ** 2) / (2 * radius + 1) ** 2)
        left, top, right, bottom = max(x - radius, 0), max(y - radius, 0), x + radius + 1, y + radius + 1
        window = hm[cls, top:bottom, left:right]
        part = gaussian[top - y + radius :, left - x + radius :][: window.shape[0], : window.shape[1]]
        np.maximum(window, part, out=window)
        wh[row], reg[row], ind[row], mask[row] = size, centre - [x, y], y * SIDE + x, 1
    image = (image.astype(np.float32) / 255 - mean) / deviation
    return {"input": image, "hm": hm, "wh": wh, "reg": reg, "ind": ind, "reg_mask": mask}


def sent_by_ours(image: Image, boxes: Corners, classes: Classes) -> Sent:
    """One example as ours is sent: pixels and padded boxes, xyxy."""
    return {"image": image, "boxes": boxes.copy(), "classes": classes.copy(), "valid": np.ones(len(boxes), bool)}


def dense_heatmap(objects: Objects) -> Float32[tf.Tensor, "batch rows columns classes"]:
    across = cut_gaussian(objects.ct_int[..., 0], objects.radius, SIDE)  # [batch, boxes, columns]
    down = cut_gaussian(objects.ct_int[..., 1], objects.radius, SIDE)
    own = tf.one_hot(objects.classes, CLASSES) * tf.cast(objects.mask, tf.float32)[..., tf.newaxis]
    planes = down[..., tf.newaxis, tf.newaxis] * across[:, :, tf.newaxis, :, tf.newaxis]
    return tf.reduce_max(planes * own[:, :, tf.newaxis, tf.newaxis], axis=1)  # over [b, boxes, rows, columns, classes]


def draw_ours(truth: Truth) -> Targets:
    return assign(place(truth, GRID, CLASSES), GRID, CLASSES)


def draw_dense(truth: Truth) -> Targets:
    objects = place(truth, GRID, CLASSES)
    ind = objects.ct_int[..., 1] * SIDE + objects.ct_int[..., 0]
    return Targets(dense_heatmap(objects), objects.wh, objects.reg, ind, objects.mask, objects.classes)


DRAW: dict[str, Callable[[Truth], Targets]] = {"dense": draw_dense, "ours": draw_ours}


def loss_step(draw: Callable[[Any], Targets], jit: bool) -> Callable[..., tf.Tensor]:
    @tf.function(autograph=False, jit_compile=jit)
    def step(stack: Stack, labels: Any) -> tuple[tf.Tensor, Any]:
        with tf.GradientTape() as tape:
            tape.watch(stack)
            total, _ = loss_against([stack], draw(labels), None, CenterNetHead(), CenterNetLoss())
        return total, tape.gradient(total, stack)

    return step


def network_seconds(rounds: int, jit: bool) -> float:
    """Forward and backward pass of ResNet-18, from gradients of its outputs that are given."""
    config = CenterNetModel(input_size=(INPUT, INPUT), backbone={"type": "resnet"}, decoder={"type": "deconv"})
    model = build_centernet(config, CLASSES, seed=0)
    image = tf.fill([BATCH, INPUT, INPUT, 3], 0.3)
    upstream = [tf.fill([BATCH, *output.shape[1:]], 1e-3) for output in model.outputs]

    @tf.function(autograph=False, jit_compile=jit)
    def step() -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            weights = [variable.value for variable in model.trainable_variables]
            weights = [tf.convert_to_tensor(weight) for weight in weights]
            tape.watch(weights)
            statistics_ = [variable.value for variable in model.non_trainable_variables]
            outputs, _ = model.stateless_call(weights, statistics_, image, training=True)
        return tf.add_n([tf.reduce_sum(g) for g in tape.gradient(outputs, weights, output_gradients=upstream)])

    return statistics.median(interleaved({"network": lambda: step().numpy()}, rounds, warm_up=1)["network"])


def peak_of_drawing(formulation: str, room: int, jit: bool) -> float:
    """Heatmaps' worth of memory, measured in a process whose allocator gives back what is freed."""
    environment = {"TF_ENABLE_ONEDNN_OPTS": "0", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-m", "benchmarks.heatmap", PEAK_ONLY, formulation, str(room), str(int(jit))]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1]) / HEATMAP_BYTES


def print_peak(formulation: str, room: int, jit: bool) -> None:
    draw = tf.function(DRAW[formulation], autograph=False, jit_compile=jit)
    truth = random_truth(room)
    accelerators = tf.config.list_logical_devices("GPU")
    draw(truth)  # compiles
    if accelerators:
        before = tf.config.experimental.get_memory_info(accelerators[0].name)["current"]
        tf.config.experimental.reset_memory_stats(accelerators[0].name)
        draw(truth).hm[0, 0, 0, 0].numpy()
        print(tf.config.experimental.get_memory_info(accelerators[0].name)["peak"] - before)
        return
    before = resident("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    draw(truth)
    print(resident("VmHWM") - before)


def resident(kind: str) -> int:
    """Bytes of this process's memory: VmRSS now, VmHWM at its peak (Linux)."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(kind))


def host_milliseconds(sample: Callable[..., dict], image: Image, truth: Truth) -> float:
    boxes, classes = truth.boxes.numpy(), truth.classes.numpy()
    rounds = 5
    began = time.process_time()
    for _ in range(rounds):
        for example in range(BATCH):
            sample(image, boxes[example], classes[example])
    return 1000 * (time.process_time() - began) / (rounds * BATCH)


def measure(room: int, network: float, rounds: int, jit: bool) -> list[dict[str, Any]]:
    rng, truth = np.random.default_rng(1), random_truth(room)
    image = rng.integers(0, 256, [INPUT, INPUT, 3], np.uint8)
    maps = [rng.normal(mean, 2, [BATCH, *GRID, count]) for mean, count in ((-4, CLASSES), (20, 2), (0.5, 2))]
    stack, targets = Stack(*(tf.constant(part, tf.float32) for part in maps)), draw_ours(truth)
    labels = {"pipeline": targets, "dense": truth, "ours": truth}
    steps = {name: loss_step(DRAW.get(name, lambda given: given), jit) for name in labels}
    runs = {name: lambda name=name: steps[name](stack, labels[name])[0].numpy() for name in labels}
    seconds = {name: statistics.median(values) for name, values in interleaved(runs, rounds).items()}
    rows = []
    for name, loss in seconds.items():
        sample = sent_by_pipeline if name == "pipeline" else sent_by_ours
        sent = sample(image, truth.boxes[0].numpy(), truth.classes[0].numpy())
        drawn = sent["hm"].transpose(1, 2, 0) if name == "pipeline" else DRAW[name](truth).hm[0]
        np.testing.assert_allclose(drawn, targets.hm[0], atol=1e-6)  # all draw the same
        rows.append(
            {
                "boxes": room,
                "heatmaps": name,
                "bytes/image": sum(part.nbytes for part in sent.values()),
                "host ms/image": host_milliseconds(sample, image, truth),
                "step ms": 1000 * (network + loss),
                "loss ms": 1000 * loss,
                "added %": 100 * (loss - seconds["pipeline"]) / (network + seconds["pipeline"]),
                "memory, heatmaps": 1.0 if name == "pipeline" else peak_of_drawing(name, room, jit),
            }
        )
    return rows


def main() -> None:
    if PEAK_ONLY in sys.argv:
        formulation, room, jit = sys.argv[sys.argv.index(PEAK_ONLY) + 1 :]
        return print_peak(formulation, int(room), bool(int(jit)))
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--xla", action="store_true", help="compile all steps with XLA")
    options = parser.parse_args()
    network = network_seconds(3, options.xla)
    rows = [row for room in ROOMS for row in measure(room, network, options.rounds, options.xla)]
    publish(
        f"Heatmaps at {INPUT} x {INPUT}, {CLASSES} classes, batch {BATCH}; one is {HEATMAP_BYTES / 2**20:.0f} MiB",
        rows,
        options.json,
    )
    return None


if __name__ == "__main__":
    main()
