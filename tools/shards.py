"""Any source to shards: python -m tools.shards --config EXPERIMENT.yaml --split train --output DIR

Killed, it goes on by the same command with the shards that are missing. The manifest, DIR/SPLIT.json, is written last.
"""

import preflight

preflight.check()

import argparse

from configs.experiment import Experiment
from dataloaders.reading.shards.write import write_shards
from dataloaders.reading.sources import split_to_convert
from official.core.config_io import load_config
from official.core.errors import one_line_errors


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="experiment file; its data are converted")
    parser.add_argument("--split", required=True, choices=["train", "validation"], help="which of them")
    parser.add_argument("--output", required=True, help="folder, local or gs://...")
    parser.add_argument("--shards", type=_positive, help="how many; by default of about 1,000 images each")
    parser.add_argument("--workers", type=_positive, help="how many are written at a time (8)")
    parser.add_argument("--set", action="append", default=[], help="overrides a key of the experiment (repeatable)")
    asked = parser.parse_args()
    data = load_config(asked.config, Experiment, asked.set).task.data
    split = getattr(data, asked.split)
    request = {"source": split.source.model_dump(mode="json"), "classes": list(data.classes), "on_bad": split.on_bad}
    manifest = write_shards(
        lambda: split_to_convert(split.source, data.classes, split.on_bad),
        request,
        asked.output,
        asked.split,
        asked.shards,
        asked.workers,
    )
    print(f"source: {{type: tfrecord, manifest: {manifest}}}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
