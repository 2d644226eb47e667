"""The gradient of every parameter of a small network under Darknet's loss, against Darknet's own backward pass."""

import numpy as np
import pytest
import tensorflow as tf

from losses.yolo import LOSSES
from modeling.darknet.build import build_network
from tests.losses.yolo.traces import load

# By the end of a variable's path: the recorded parameter, and what its update is called.
NAMES = {
    "convolutional/kernel": ("weights", "weight_updates"),
    "convolutional/bias": ("biases", "bias_updates"),
    "norm/gamma": ("scales", "scale_updates"),
    "norm/beta": ("biases", "bias_updates"),
    "norm/moving_mean": ("rolling_mean", None),
    "norm/moving_variance": ("rolling_variance", None),
}


def recorded(case, path: str, prefix: str, which: int) -> np.ndarray:
    """A variable's array, in the variable's shape: of `init` (which 0) or `grad` (which 1)."""
    name = NAMES[path.split("_", 1)[1].replace("convolutional_norm", "norm")][which]
    values = case.arrays[f"{prefix}/{path[:4]}_{name}"]
    return values.transpose(2, 3, 1, 0) if values.ndim == 4 else values


@pytest.mark.parametrize(
    "name",
    ["mse_v3", "giou_plain", "ciou_v4", "ciou_counters_per_class", "ciou_csp_new_coords"]
    + ["gaussian_bdd", "region_v2_seen_small"],
)
def test_parameter_gradients(golden, name):
    case = load(golden, name, folder="loss_cudnn_emulated")
    model = build_network(case.network, seed=0).model
    for variable in model.variables:
        variable.assign(recorded(case, variable.path, "init", 0))
    image = tf.constant(case.arrays["X"].transpose(0, 2, 3, 1))
    variables = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        outputs = model(image, training=True)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        value, _ = LOSSES[case.head.type](outputs, case.truth, case.head, case.loss, case.moment)
    assert len(variables) >= 8
    for variable, gradient in zip(model.trainable_variables, tape.gradient(value, variables), strict=True):
        updates = recorded(case, variable.path, "grad", 1)
        bound = 1e-5 * np.abs(updates).max()
        np.testing.assert_allclose(gradient * -len(image), updates, rtol=0, atol=bound, err_msg=variable.path)
