"""What an evaluation says about the published number."""

import pytest

from configs.experiment import Experiment
from official.core.config_io import load_config
from tasks.jobs import report
from tests.conftest import EXPERIMENTS

CONFIG = EXPERIMENTS / "yolov4_tiny_coco.yaml"
METRICS = {"step": 7, "AP": 0.2, "AP50": 0.4, "AP75": 0.2, "APs": -1.0, "APm": 0.1, "APl": 0.3}


@pytest.mark.parametrize(
    ("value", "images", "said"),
    [
        (0.205, 5000, "reproduced: AP 0.205, published 0.212 (tolerance 0.010)"),
        (0.201, 5000, "NOT reproduced: AP 0.201, published 0.212 (tolerance 0.010)"),
        (0.300, 80, "not compared with the published AP, which is of 5000 images"),
    ],
)
def test_the_verdict_is_for_the_published_split_only(capsys, value, images, said):
    experiment = load_config(str(CONFIG), Experiment)
    report(METRICS | {"AP": value, "images": images}, experiment)
    assert capsys.readouterr().err.splitlines()[-1] == said
