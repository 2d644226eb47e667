"""An experiment over small data sets, in which faults are planted."""

import numpy as np
import pytest
from PIL import Image

from configs.experiment import Experiment
from official.core.config_io import check_config
from tools.doctor.diagnosis import diagnose

HEAD = {
    "anchors": [[8, 10], [14, 12], [19, 15], [30, 22], [40, 36], [60, 50]],
    "levels": [{"mask": [3, 4, 5]}, {"mask": [0, 1, 2]}],
}


def experiment_of(train, validation, *overrides):
    """On two sources: input 64 x 96, letterboxed."""
    sources = {"train": train, "validation": validation}
    splits = {name: {"source": source.model_dump(), "batch_size": 2} for name, source in sources.items()}
    model = {"input_size": [64, 96], "backbone": {"type": "yolov4_tiny"}, "head": HEAD}
    return check_config(
        {
            "task": {"type": "yolo", "model": model, "data": {"classes": ["cell", "dot"], **splits}},
            "trainer": {
                "duration": {"steps": 1},
                "optimizer": {"type": "sgd"},
                "schedule": {"type": "constant", "learning_rate": 0.1},
                "checkpoint": {"every": {"steps": 1}},
            },
        },
        Experiment,
        "test",
        overrides,
    )


class Patient:
    """COCO data with two clean splits, to which faults are added."""

    def __init__(self, train, validation):
        self.train, self.validation = train, validation
        for folder, first, count in ((train, 100, 12), (validation, 200, 10)):
            for image_id in range(first, first + count):
                folder.image(image_id, 48, 80)
                folder.box(image_id, [4 + image_id % 5, 3, 16, 12.5])
                folder.box(image_id, [30, 13 + image_id % 7, 33.5, 30], category=3)

    def experiment(self, *overrides):
        return experiment_of(self.train.source, self.validation.source, *overrides)

    def diagnose(self, *overrides):
        return diagnose(self.experiment(*overrides))

    def finds(self, kind, *overrides):
        """The one finding of this kind."""
        return only(self.diagnose(*overrides), kind)


def only(diagnosis, kind):
    """The one finding of this kind."""
    found = [finding for finding in diagnosis.findings if finding.kind == kind]
    assert len(found) == 1, [finding.kind for finding in diagnosis.findings]
    return found[0]


def noise(seed, height=48, width=80):
    """A picture of soft blobs."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def patient(two_folders):
    return Patient(*two_folders)
