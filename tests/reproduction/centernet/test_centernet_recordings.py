"""Traces of CenterNet under the command: other sizes and names work, and no damage passes."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.centernet.task import CenterNetModel
from modeling.centernet.network import build_centernet
from modeling.weights.torch_names import to_torch, torch_name
from reproduction.centernet.original import CHECKS
from reproduction.originals import EVERY_CHECK
from reproduction.traces.case import Row
from reproduction.traces.check import unknown_files
from reproduction.traces.precision import precision
from tests.reproduction.proving import counted, rows_of

# A small file of each kind, what is taken of it, and an array in it that is compared.
FILES = {
    "centernet_gaussian": ("gaussian.npz", "", "draw1/umich"),
    "centernet_targets": ("targets_small_val_options.npz", "cat_spec_wh/", "cat_spec_wh/cat_spec_wh"),
    "centernet_loss": ("loss_small_norm_wh.npz", "", "f32/stack0/grad/wh"),
    "centernet_decode": ("decode_multiscale_softnms.npz", "", "merge/out_class2"),
    "centernet_dcn": ("dcnv2_op_emulated.npz", "", "grad_offset"),
}
# What a case cannot do without, beside that.
NEEDED = {
    "centernet_gaussian": ["draw1/x_y_radius", "radius/height_width", "radius/int_overlap0.7"],
    "centernet_targets": [f"cat_spec_wh/{name}" for name in ("boxes_xywh", "class", "trans_output", "hm", "ind")],
    "centernet_loss": ["target/hm", "target/wh", "target/ind", "stack0/raw/reg", "f32/off_loss", "f64/loss"],
    "centernet_decode": ["soft1/in", "soft2/n_keep", "merge/in_scale1_class3", "merge/out_class4"],
    "centernet_dcn": ["input", "mask", "upstream", "bias", "output", "grad_bias"],
}


@pytest.fixture
def folder(golden_centernet, tmp_path):
    """`folder(kind)` -> (folder that holds the file of this kind alone, under another name; the file)."""

    def make(kind: str):
        name, prefix, _ = FILES[kind]
        path = tmp_path / name.replace(".npz", "_of_my_own.npz")
        with np.load(golden_centernet(name)) as file:
            np.savez(path, **{array: file[array] for array in file.files if array.startswith(prefix)})
        return tmp_path, path

    return make


def change(path, edit) -> None:
    """Rewrites the arrays of a file after `edit(arrays)`."""
    with np.load(path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    edit(arrays)
    np.savez_compressed(path, **arrays)


def compared(root, kind: str) -> tuple[int, list[Row]]:
    """(cases checked, the rows that failed)."""
    rows = rows_of(kind, root)
    return counted(rows)[0], [row for row in rows if row.outcome == "fail"]


@pytest.mark.parametrize("kind", FILES)
def test_a_changed_number_fails_and_is_named(folder, kind):
    root, path = folder(kind)
    checked, failed = compared(root, kind)
    assert checked and not failed
    array = FILES[kind][2]

    def edit(arrays):
        arrays[array].flat[np.argmax(np.abs(arrays[array]))] *= 1.0001

    change(path, edit)
    assert {row.quantity.split(" ")[0].removesuffix("/boxes") for row in compared(root, kind)[1]} == {array}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_missing_transposed_or_not_finite_fails(folder, kind):
    root, path = folder(kind)
    array = FILES[kind][2]

    def spoil(arrays):
        arrays[array].flat[3] = np.nan

    def turn(arrays):
        arrays[array] = arrays[array].swapaxes(-1, -2)

    whole = path.read_bytes()
    for edit in (spoil, turn):
        change(path, edit)
        assert compared(root, kind)[1]
        path.write_bytes(whole)
    for name in (array, *NEEDED[kind]):
        change(path, lambda arrays, name=name: arrays.pop(name))
        failed = compared(root, kind)[1]
        assert failed and name in " ".join(f"{row.quantity} {row.note}" for row in failed), name
        path.write_bytes(whole)
    path.write_bytes(whole[:-100])
    (row,) = compared(root, kind)[1]
    assert "not a whole .npz file" in row.note


def test_options_of_the_loss_that_are_not_known(folder):
    root, path = folder("centernet_loss")
    change(path, lambda arrays: arrays.update({"meta/options": np.array("--mse_loss num_stacks 1")}))
    (row,) = compared(root, "centernet_loss")[1]
    assert row.note.endswith("the loss has no option --mse_loss")
    change(path, lambda arrays: arrays.update({"meta/options": np.array("--reg_loss sl1")}))
    assert {row.quantity for row in compared(root, "centernet_loss")[1]} >= {"f32/wh_loss", "f32/off_loss", "f64/loss"}


def test_a_file_that_is_nothing_decoded(tmp_path):
    np.savez(tmp_path / "decode_x.npz", other=np.zeros(3))
    (row,) = compared(tmp_path, "centernet_decode")[1]
    assert "holds nothing that is decoded" in row.note


def test_the_layouts_do_not_meet_and_unknown_files_are_named(golden, golden_centernet, tmp_path):
    (tmp_path / "misc").mkdir()
    shutil.copy(golden("misc/iou.npz"), tmp_path / "misc/iou.npz")
    for name in ("misc/more.npz", "other_units.npz", "some_state_dict.npz"):
        np.savez(tmp_path / name, x=1)
    shutil.copy(golden_centernet("decode_nms_plateau.npz"), tmp_path / "decode_nms_plateau.npz")
    assert unknown_files(EVERY_CHECK, tmp_path) == ["misc/more.npz", "other_units.npz"]
    checked = {check.name: counted(rows_of(check, tmp_path))[0] for check in EVERY_CHECK if check.files}
    assert {name: count for name, count in checked.items() if count} == {"iou": 1, "centernet_decode": 1}


CONFIG = {
    "input_size": (32, 48),
    "backbone": {"type": "hourglass", "stacks": 1, "dims": (5, 7), "modules": (1, 2), "pre": 3, "cnv_dim": 4},
    "head": {"head_conv": 6},
}
STAGES = {"pre": "backbone_pre.1", "kps.0.low2": "backbone_kps.0.low2.1", "cnvs.0": "backbone_cnvs.0"}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Folder with a network that nobody recorded: its trace, and its parameters beside it as arrays."""
    root = tmp_path_factory.mktemp("own")
    with precision("float64"):
        model = build_centernet(CenterNetModel(**CONFIG), 3, seed=4)
    parameters = {torch_name(variable.path): to_torch(variable.numpy()) for variable in model.variables}
    np.savez(root / "tiny_state_dict.npz", **{name: array.astype(np.float32) for name, array in parameters.items()})
    for variable in model.variables:  # what is written is what is computed with
        variable.assign(variable.numpy().astype(np.float32))
    image = np.random.default_rng(0).normal(size=(2, 3, 32, 48)).astype(np.float32)
    inside = keras.Model(model.inputs, [*(model.get_layer(name).output for name in STAGES.values()), *model.outputs])
    arrays = {"input": image}
    for moment in ("eval", "train"):
        outputs = inside(tf.constant(image.transpose(0, 2, 3, 1)), training=moment == "train")
        outputs = [np.transpose(output, (0, 3, 1, 2)) for output in outputs]
        arrays |= {f"{moment}/stage/{name}": array for name, array in zip(STAGES, outputs, strict=False)}
        arrays |= {f"{moment}/{name}": array for name, array in zip(("hm", "wh", "reg"), outputs[-3:], strict=True)}
    for variable in model.non_trainable_variables:
        arrays[f"f64/after_train_forward/{torch_name(variable.path)}"] = variable.numpy()
    np.savez(root / "tiny_trace.npz", **arrays)
    return root


def test_a_network_of_other_sizes(own, tmp_path):
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    rows = rows_of("centernet_network", tmp_path)
    assert counted(rows) == (1, 0, 0)
    assert {row.quantity for row in rows if row.outcome == "skip"} == {"f32/after_train_forward"}

    def edit(arrays):
        arrays["eval/stage/kps.0.low2"][1, 3, 2, 1] += 2e-4 * np.abs(arrays["eval/stage/kps.0.low2"]).max()
        arrays["train/wh"][0, 1, 3, 5] += 2e-4 * np.abs(arrays["train/wh"]).max()
        arrays["train/stage/nowhere"] = arrays["train/stage/pre"]
        del arrays["eval/reg"]

    change(tmp_path / "tiny_trace.npz", edit)
    found = {row.quantity for row in compared(tmp_path, "centernet_network")[1]}
    changed = {"eval/stage/kps.0.low2", "alone/eval/stage/kps.0.low2"}
    assert found == {*changed, "train/wh", "eval/reg", "stage/nowhere"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda arrays: arrays.pop("cnvs.0.conv.weight"), "no parameter 'cnvs.0.conv.weight'"),
        (lambda arrays: arrays.pop("kps.0.up1.0.bn2.bias"), "no array 'kps.0.up1.0.bn2.bias'"),
        (lambda arrays: arrays.update({"hm.0.1.bias": np.zeros(4, np.float32)}), "expected array 'hm.0.1.bias'"),
    ],
)
def test_parameters_that_do_not_fit(own, tmp_path, edit, message):
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    change(tmp_path / "tiny_state_dict.npz", edit)
    (row,) = compared(tmp_path, "centernet_network")[1]
    assert message in row.note


def test_rules_that_do_not_fit(own, tmp_path):
    shutil.copy(own / "tiny_trace.npz", tmp_path / "tiny_trace.npz")
    with np.load(own / "tiny_state_dict.npz") as file:
        shapes = {name: file[name].shape for name in file.files}
    rules = {"salt": "x/", "rule": {name: {"shape": shape, "kind": "conv"} for name, shape in shapes.items()}}
    rules["rule"]["pre.0.conv.weight"]["first3"] = [0.0, 0.1, 0.2]
    for text, message in (
        (json.dumps(rules), "the rule of 'pre.0.conv.weight' gives"),
        (json.dumps(rules | {"salt": 3}), "not rules for parameters: salt"),
        (json.dumps(rules)[:-9], "not rules for parameters: the file"),
    ):
        (tmp_path / "tiny_params.json").write_text(text)
        (row,) = compared(tmp_path, "centernet_network")[1]
        assert message in row.note
    (tmp_path / "tiny_params.json").unlink()
    (row,) = compared(tmp_path, "centernet_network")[1]
    assert "expected its parameters beside it, in tiny_state_dict.npz or tiny_params.json" in row.note


@pytest.mark.slow
def test_changed_steps_of_adam_fail(golden_centernet, tmp_path):
    for name in ("trace.npz", "state_dict.npz"):
        shutil.copy(golden_centernet(f"hourglass_small_{name}"), tmp_path / f"hourglass_small_{name}")

    def edit(arrays):
        arrays["f64/step1/after_adam/cnvs.0.conv.weight"].flat[77] += 2e-6 * 1.25e-4
        arrays["f32/step0/after_adam/hm.0.1.bias"] *= np.float32(1 + 2e-6)
        arrays["f64/step0/grad/pre.0.conv.weight"].flat[77] += 1e-4
        del arrays["f64/step0/grad/wh.0.1.bias"], arrays["f64/step1/off_loss"]

    change(tmp_path / "hourglass_small_trace.npz", edit)
    found = {row.quantity for row in compared(tmp_path, "centernet_adam")[1]}
    assert found == {
        "f64/step1/after_adam/cnvs.0.conv.weight",
        "f32/step0/after_adam/hm.0.1.bias",
        "f64/step0/grad/pre.0.conv.weight",
        "f64/step0/grad/wh.0.1.bias",
        "f64/step1/off_loss",
    }


@pytest.mark.slow
def test_everything_recorded_passes(shared):
    results = {check.name: rows_of(check, shared / "golden_centernet") for check in CHECKS}
    assert [row for rows in results.values() for row in rows if row.outcome == "fail"] == []
    checked = {name: counted(rows)[0] for name, rows in results.items()}
    assert list(checked.values()) == [6, 12, 14, 14, 15, 8, 6, 1, 4, 4]
