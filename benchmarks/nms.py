"""Decode and NMS against the forward pass, on the CPU, one image: at most 10 % for 2,535 boxes, 15 % for 10,647.

The bounds are per_class_iou's. greedynms (and diounms, which is the same sum) takes a distance off every overlap.

`python -m benchmarks.nms [--json FILE]`: YOLOv4-tiny (batch-norm folded) at 416 x 416, 80 classes, score floor 0.001.
Random weights give scores like none a trained network makes, so the heads are drawn: most scores tiny, a few objects.
"""

import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from benchmarks.report import arguments, interleaved, publish, timing_rows
from configs.experiment import Experiment
from configs.yolo.heads import YoloHead
from modeling.yolo.heads.yolo import decode
from modeling.yolo.network import build_detector, fold_batch_norm
from official.core.config_io import load_config
from official.vision.nms import Detections, per_class_nms
from official.vision.protocol import EvaluationProtocol

SIZE = (416, 416)


def trained_like(cells: int, anchors: int, rng: np.random.Generator) -> Float32[tf.Tensor, "1 rows columns anchors 85"]:
    """Logits of one level: objectness about -8, one in two hundred about +1; classes about -5, one of them likely."""
    raw = rng.normal(0, 0.5, [1, cells, cells, anchors, 85]).astype(np.float32)
    shape = raw.shape[:-1]
    raw[..., 4] = np.where(rng.random(shape) < 0.005, rng.normal(1, 1.5, shape), rng.normal(-8, 2, shape))
    raw[..., 5:] = rng.normal(-5, 1.5, raw[..., 5:].shape)
    np.put_along_axis(raw, rng.integers(5, 85, [*shape, 1]), 2.0, axis=-1)
    return tf.constant(raw)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    plain = ["task.evaluation.nms=per_class_iou"]
    experiment = load_config("configs/experiments/yolov4_tiny_coco.yaml", Experiment, plain)
    config, rng = experiment.task, np.random.default_rng(0)
    trained = build_detector(config.model, 80, seed=0)
    folded = fold_batch_norm(config.model, 80, trained)
    forward = tf.function(lambda image: folded(image, training=False), autograph=False)
    image = tf.random.uniform([1, *SIZE, 3])

    anchors = config.model.head.anchors
    three = YoloHead(anchors=anchors + anchors[:3], levels=[{"mask": m} for m in ((6, 7, 8), (3, 4, 5), (0, 1, 2))])
    heads = {"2,535 boxes": (config.model.head, (13, 26)), "10,647 boxes": (three, (13, 26, 52))}
    functions = {"forward": lambda: tf.nest.map_structure(lambda x: x.numpy(), forward(image))}
    for name, (head, grids) in heads.items():
        outputs = [trained_like(cells, 3, rng) for cells in grids]

        for nms in ("per_class_iou", "greedynms"):
            protocol = config.evaluation.model_copy(update={"nms": nms})

            def detect(
                outputs: list[tf.Tensor], head: YoloHead = head, protocol: EvaluationProtocol = protocol
            ) -> Detections:
                return per_class_nms(*decode(outputs, head, SIZE), protocol)

            compiled = tf.function(detect, autograph=False)
            functions[f"{name}, {nms}"] = lambda compiled=compiled, outputs=outputs: compiled(outputs).scores.numpy()
    seconds = interleaved(functions, options.rounds, warm_up=5)
    publish(
        "Decode + NMS against the forward pass of YOLOv4-tiny at 416, CPU, batch 1",
        timing_rows(seconds, "forward"),
        options.json,
    )


if __name__ == "__main__":
    main()
