"""Bytes that travel from host to device for each training example, counted on real batches. At most 1.02 of the pixels.

`python -m benchmarks.transfer [--json FILE]`: batches that the input pipeline makes of the embedded data set.
"""

import tempfile
from pathlib import Path

import tensorflow as tf

from benchmarks.report import arguments, publish
from configs.experiment import Experiment
from official.core.config_io import load_config
from official.core.task import HostShare
from tasks import build_task
from tools.demo_data import write_synthetic


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_synthetic(data, 8, 1)
        for size in (416, 640):
            for max_boxes in (100, 200):
                overrides = [
                    f"task.model.input_size=[{size}, {size}]",
                    f"task.data.train.source.annotations={data}/instances_train.json",
                    f"task.data.train.source.images={data}/train",
                    f"task.data.train.max_boxes={max_boxes}",
                    "task.data.train.batch_size=4",
                ]
                experiment = load_config("configs/experiments/demo.yaml", Experiment, overrides)
                batch = next(
                    iter(build_task(experiment).train_inputs(0, HostShare(), experiment.task.model.input_size))
                )
                total = sum(x.dtype.size * x.shape.num_elements() for x in tf.nest.flatten(batch)) / 4
                pixels = batch.image.shape[1:].num_elements()
                row = {"input": size, "max_boxes": max_boxes, "bytes": total, "uint8 pixels": pixels}
                rows.append(row | {"ratio": total / pixels})
    publish("Host to device, bytes per example", rows, options.json)


if __name__ == "__main__":
    main()
