"""The plain backbone under the heads of both families."""

import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from official.core.config_io import load_config
from tasks import build_task
from tests.conftest import ROOT

SIZE = (64, 96)


@pytest.mark.parametrize("name", ["demo", "demo_centernet"])
def test_it_goes_with_every_head(name):
    sets = ["task.model.backbone={type: plain, filters: 8}", f"task.model.input_size={list(SIZE)}"]
    task = build_task(load_config(str(ROOT / "configs" / "experiments" / f"{name}.yaml"), Experiment, sets))
    model, inference = task.build_model(), task.build_inference_model()
    assert [layer.name for layer in model.layers if layer.name.startswith("backbone_conv5")]
    task.fold(model, inference)
    images = tf.constant(np.random.default_rng(0).uniform(0, 1, (2, *SIZE, 3)), tf.float32)
    boxes, scores = task.decode(inference(images, training=False))
    assert boxes.shape[0] == scores.shape[0] == 2 and np.isfinite(boxes).all() and np.std(scores) > 0
