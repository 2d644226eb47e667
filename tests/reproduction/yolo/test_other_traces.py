"""Traces nobody has recorded yet: other names, sizes, batches and class counts, written here from our own network.

They cannot prove us right; they prove that the command takes everything from the files.
"""

import numpy as np
import pytest
import tensorflow as tf

from losses.truth import Truth
from losses.yolo import HEAD_LOSS_PARTS, LOSSES
from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.build import build_network
from modeling.darknet.cfg import parse_cfg
from modeling.darknet.loading import values_of
from modeling.darknet.weights import network_records
from official.core.task import Moment
from reproduction.traces.case import Case
from reproduction.traces.trace import Layout, Source, write_trace
from reproduction.yolo.rebuilt import Rebuilt
from tests.reproduction.proving import counted, rows_of

BATCH, HEIGHT, WIDTH, CLASSES = 3, 32, 96, 2
CFG = f"""[net]
batch={BATCH}
width={WIDTH}
height={HEIGHT}
channels=3

[convolutional]
batch_normalize=1
filters=5
size=3
stride=2
pad=1
activation=mish

[convolutional]
filters={2 * (5 + CLASSES)}
size=3
stride=4
pad=1
activation=linear

[yolo]
mask=1,2
anchors=5,9, 20,11, 30,24
classes={CLASSES}
num=3
iou_loss=giou
iou_thresh=0.4
"""
TRUTH = [
    [[0.2, 0.3, 0.2, 0.4, 1], [0.7, 0.9, 0.3, 0.2, 0], [0.71, 0.88, 0.3, 0.25, 1]],
    [[0.5, 0.5, 0.05, 0.3, 0], [0, 0, 0, 0, 0], [0.4, 0.4, 0.2, 0.2, 1]],  # the list ends before the last row
    [[0, 0, 0, 0, 0]] * 3,
]


def nchw(images) -> np.ndarray:
    return np.transpose(images, (0, 3, 1, 2))


def darknets(name: str, array) -> np.ndarray:
    """A gradient in Darknet's axes, of its sign, summed over the batch."""
    array = np.asarray(array) * -BATCH
    return np.transpose(array, (3, 2, 0, 1)) if name == "kernel" else array


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """Everything that the kinds about networks compare."""
    network = parse_cfg(CFG, "test")
    graph, records = build_network(network, seed=7), network_records(network)
    values = values_of(graph.model, records)
    arrays = {f"init/{name[:4]}_{what}": array for name, parts in values.items() for what, array in parts.items()}
    layers = tf.keras.Model(graph.model.inputs, graph.outputs[:2])
    image = tf.random.stateless_uniform([BATCH, HEIGHT, WIDTH, 3], [1, 2])
    evaluated = layers(image, training=False)
    truth = np.array(TRUTH, np.float32)
    valid = np.array([[True] * 3, [True, False, False], [False] * 3])
    objects = Truth(tf.constant(truth[..., :4]), tf.constant(truth[..., 4], tf.int32), tf.constant(valid))
    head, rules = head_and_loss(network)
    moment = Moment(tf.constant(1, tf.int64), (HEIGHT, WIDTH))
    with tf.GradientTape() as tape:
        tape.watch(image)
        trained = layers(image, training=True)
        raw = tf.reshape(trained[1], [BATCH, 4, 12, 2, 5 + CLASSES])
        value, _ = LOSSES["yolo"]([raw], objects, head, rules, moment)
    variables = graph.model.trainable_variables
    by_image, by_output, *gradients = tape.gradient(value, [image, trained[1], *variables])
    (loss,) = HEAD_LOSS_PARTS["yolo"]([raw], objects, head, rules, moment)
    assert loss.diagnostics["positives"] >= 2
    arrays |= {"X": nchw(image), "truth": truth, "meta/cfg": CFG, "meta/seen_at_forward": 0}
    for index in range(2):
        arrays[f"eval/L{index:03d}_output"] = nchw(evaluated[index])
        arrays[f"train/L{index:03d}_output"] = nchw(trained[index])
    arrays["eval/L002_output"] = arrays["eval/L001_output"]
    arrays |= {"train/L002_cost": loss.cost, "train/network_cost": loss.cost}
    arrays["train/L002_loss_delta"] = nchw(by_output) * -BATCH
    arrays["train/input_delta"] = nchw(by_image) * -BATCH
    names = {"kernel": "weight_updates", "bias": "bias_updates", "beta": "bias_updates", "gamma": "scale_updates"}
    for variable, gradient in zip(variables, gradients, strict=True):
        layer, name = variable.path.split("/")
        arrays[f"grad/{layer[:4]}_{names[name]}"] = darknets(name, gradient)
    for name, array in values_of(graph.model, records)["L000_convolutional"].items():
        arrays[f"after/L000_{name}"] = array
    return {name: np.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("kind", "folder", "quantities"),
    [
        ("layers_eval", "layers", 2 * 3),  # in the whole network, and alone
        ("loss", "loss", 3 + 1),  # where the ignore rule alone decides, once more
        ("gradients", "loss_cudnn_emulated", 1 + 5 + 2),
    ],
)
def test_other_sizes_and_names(tmp_path, recorded, kind, folder, quantities):
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "of my own, ünnamed.npz"
    write_trace(path, recorded, Source(program="ours"), {"X": Layout(layout="NCHW")})
    rows = rows_of(kind, tmp_path)
    assert [row.note for row in rows if row.outcome != "pass"] == []
    assert len(rows) == quantities and counted(rows) == (1, 0, 0)

    name = {"layers_eval": "eval/L000_output", "loss": "train/L002_loss_delta", "gradients": "grad/L000_scale_updates"}
    changed = dict(recorded)
    changed[name[kind]] = recorded[name[kind]] + np.float32(1e-3)
    write_trace(path, changed)
    failed = [row.quantity for row in rows_of(kind, tmp_path) if row.outcome == "fail"]
    assert failed[0] == name[kind] and all(
        quantity.startswith(("alone/", f"{name[kind]} of objectness")) for quantity in failed[1:]
    )


def test_a_manifest_protects_what_no_check_asks_for(tmp_path, recorded):
    (tmp_path / "loss").mkdir()
    write_trace(tmp_path / "loss/case.npz", recorded)
    write_trace(tmp_path / "loss/less.npz", {name: array for name, array in recorded.items() if name != "X"})
    assert counted(rows_of("loss", tmp_path))[2] == 0
    (tmp_path / "loss/less.json").write_text((tmp_path / "loss/case.json").read_text())
    (row,) = [row for row in rows_of("loss", tmp_path) if row.outcome == "fail"]
    assert row.case == "less" and "array 'X' is in the manifest alone" in row.note


def test_a_cfg_without_a_head_has_no_loss(tmp_path, recorded):
    (tmp_path / "loss").mkdir()
    write_trace(tmp_path / "loss/case.npz", recorded | {"meta/cfg": CFG[: CFG.index("[yolo]")]})
    (row,) = rows_of("loss", tmp_path)
    assert row.outcome == "fail" and "meta/cfg: has no section that detects; expected [yolo]" in row.note


def test_frozen_layers_have_updates_of_zero_and_keep_their_weights(tmp_path, recorded):
    frozen = CFG.replace("stride=4", "stride=4\nstopbackward=1")
    write_trace(tmp_path / "case.npz", recorded | {"meta/cfg": frozen})
    rebuilt = Rebuilt.of(Case(tmp_path / "case.npz"))
    before = rebuilt.parameters()
    deltas = [tf.ones(variable.shape) for variable in rebuilt.graph.model.trainable_variables]
    updates = rebuilt.updates(deltas)
    assert {name for name, array in updates.items() if array.any()} == {"L001_weight_updates", "L001_bias_updates"}
    assert updates["L000_weight_updates"].shape == (5, 3, 3, 3) and "L000_scale_updates" in updates
    for name, array in rebuilt.parameters().items():
        np.testing.assert_array_equal(array, before[name])
