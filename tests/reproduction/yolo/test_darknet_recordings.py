"""The command over folders of recorded traces: what it finds, counts and says, and that no damage passes."""

import json
import shutil
import sys

import numpy as np
import pytest

from reproduction.golden import __main__
from reproduction.traces.case import Row
from reproduction.traces.check import Check, of_trace
from reproduction.traces.compare import Metrics, OfAbsmax, judge
from reproduction.yolo.original import CHECKS
from tests.conftest import SUBSETS
from tests.reproduction.proving import counted, rows_of

# A small file of each kind that needs no assets, and an array in it that is compared.
FILES = {
    "layers_eval": ("layers/maxpool_3s2_even.npz", "eval/L001_output"),
    "layers_train": ("layers_cudnn_emulated/conv_s2_odd.npz", "grad/L000_weight_updates"),
    "loss": ("loss/region_v2_seen_small.npz", "train/L004_loss_delta"),
    "gradients": ("loss_cudnn_emulated/region_v2_seen_small.npz", "grad/L002_scale_updates"),
    "optimiser": ("optim/sgd_v4tiny_cudnn_emulated.npz", "it0/after/L003_weights"),
    "learning_rate": ("misc/learning_rate.npz", "poly"),
    "activations": ("misc/activations.npz", "elu"),
    "iou": ("misc/iou.npz", "dx_dy_dw_dh_ciou"),
    "nms": ("misc/nms.npz", "case0/default_0.45"),
    "images": ("misc/image_ops.npz", "resize_16x8"),
}


@pytest.fixture
def folder(golden, tmp_path):
    """`folder("loss", ...)` -> a folder that holds the files of these kinds alone."""

    def make(*kinds: str):
        for kind in kinds:
            name, _ = FILES[kind]
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(golden(name), tmp_path / name)
        return tmp_path

    return make


def change(path, edit) -> None:
    """Rewrites the arrays of a file after `edit(arrays)`."""
    with np.load(path) as file:
        arrays = {name: file[name].copy() for name in file.files}
    edit(arrays)
    np.savez_compressed(path, **arrays)


def compared(root, kind: str) -> tuple[tuple[int, ...], list[Row]]:
    """((checked, skipped, failed), the rows that failed)."""
    rows = rows_of(kind, root)
    return counted(rows), [row for row in rows if row.outcome == "fail"]


def counts(root, kind: str) -> tuple[int, ...]:
    return compared(root, kind)[0]


@pytest.mark.parametrize("kind", FILES)
def test_recorded_cases_pass(folder, kind):
    (checked, _, failed), rows = compared(folder(kind), kind)
    assert checked >= 1 and failed == 0 and not rows


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("optimiser", "nms", "learning_rate")])
def test_one_changed_number_fails_and_is_named(folder, kind):
    name, array = FILES[kind]
    root = folder(kind)

    def edit(arrays):
        place = np.unravel_index(np.argmin(np.abs(arrays[array])), arrays[array].shape)
        arrays[array][place] += max(1e-4, 1e-4 * np.abs(arrays[array]).max())

    change(root / name, edit)
    (_, _, failed), rows = compared(root, kind)
    assert failed == 1 and {row.quantity.removeprefix("alone/") for row in rows} == {array}


def test_a_changed_rate_or_detection_fails(folder):
    root = folder("nms", "learning_rate")

    def rate(arrays):
        arrays["sgdr"][100] *= 1.00001

    def detection(arrays):
        row, column = np.argwhere(arrays["case0/greedynms_0.6"][:, 1:] > 0)[0]
        arrays["case0/greedynms_0.6"][row, 1 + column] = 0

    change(root / FILES["learning_rate"][0], rate)
    change(root / FILES["nms"][0], detection)
    assert [row.quantity for row in compared(root, "learning_rate")[1]] == ["sgdr"]
    (row,) = compared(root, "nms")[1]
    assert row.quantity == "case0/greedynms_0.6" and row.note.startswith("1 rows are ours only")


def test_changed_and_missing_arrays_of_steps_fail(folder):
    root = folder("optimiser")

    def edit(arrays):
        arrays["it5/after/L003_biases"][3] *= 1.001
        del arrays["it3/lr"], arrays["it4/after/L001_rolling_mean"]

    change(root / FILES["optimiser"][0], edit)
    (_, _, failed), rows = compared(root, "optimiser")
    assert failed == 1
    assert [row.quantity for row in rows] == ["it3/lr", "it4/after/L001_rolling_mean", "it5/after/L003_biases"]


ALL_STEPS = set(range(6))


@pytest.mark.parametrize(
    ("start", "failing"),
    [
        (39, set()),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in ((38, {0}), (5, ALL_STEPS), (None, ALL_STEPS))),
    ],
)
def test_recorded_steps_begin_at_their_iteration(folder, start, failing):
    """The recorded rate is reached from update 40 on: with another start the first steps have another."""
    root = folder("optimiser")

    def edit(arrays):
        text = str(arrays["meta/cfg"])
        later = "learning_rate=0.2\nburn_in=10\nmax_batches=100\npolicy=steps\nsteps=40\nscales=.1\n"
        changed = text.replace("learning_rate=0.02\nmax_batches=100\npolicy=constant\n", later)
        assert changed != text
        arrays["meta/cfg"] = np.array(changed)
        if start is not None:
            arrays["meta/start_iteration"] = np.array(start)

    change(root / FILES["optimiser"][0], edit)
    rows = compared(root, "optimiser")[1]
    assert {row.quantity for row in rows if row.quantity.endswith("/lr")} == {f"it{number}/lr" for number in failing}
    assert bool(rows) == bool(failing)
    alone = {row.quantity.partition("/")[0] for row in compared(root, "updates")[1]}
    assert alone == {f"it{number}" for number in failing}


def swap_channels(arrays, name):
    arrays[name] = arrays[name][:, [1, 0, *range(2, arrays[name].shape[1])]]


def transpose_sides(arrays, name):
    arrays[name] = arrays[name].swapaxes(-1, -2)


def plant_nan(arrays, name):
    arrays[name].flat[7] = np.nan


def make_text(arrays, name):
    arrays[name] = np.array("lost")


def remove(arrays, name):
    del arrays[name]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("layers_eval", "eval/L001_output"),
        ("layers_eval", "X"),
        ("layers_train", "train/L000_output"),
        ("layers_train", "upstream_delta"),
        ("loss", "train/L004_loss_delta"),
        ("loss", "train/L003_output"),
        ("gradients", "train/input_delta"),
    ],
)
@pytest.mark.parametrize("damage", [swap_channels, transpose_sides, plant_nan, make_text, remove])
def test_damaged_images_fail(folder, kind, name, damage):
    root = folder(kind)
    change(root / FILES[kind][0], lambda arrays: damage(arrays, name))
    assert counts(root, kind) == (1, 0, 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("layers_eval", "meta/cfg"),
        ("layers_eval", "init/L000_biases"),
        ("layers_train", "input_delta"),
        ("layers_train", "grad/L000_bias_updates"),
        ("loss", "truth"),
        ("loss", "train/L004_cost"),
        ("loss", "train/network_cost"),
        ("loss", "meta/seen_at_forward"),
        ("gradients", "grad/L003_bias_updates"),
        ("learning_rate", "batch_num"),
        ("learning_rate", "cfg/poly"),
        ("learning_rate", "poly"),
        ("activations", "x"),
        ("iou", "truth"),
        ("iou", "dx_dy_dw_dh_giou"),
        ("nms", "case1/in"),
        ("nms", "case1/diounms_0.45"),
        ("images", "image_u8_chw"),
    ],
)
def test_a_missing_array_fails(folder, kind, name):
    root = folder(kind)
    change(root / FILES[kind][0], lambda arrays: remove(arrays, name))
    (_, _, failed), rows = compared(root, kind)
    assert failed >= 1 and name in " ".join(row.note for row in rows)


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_fails(folder, kind):
    root = folder(kind)
    path = root / FILES[kind][0]
    path.write_bytes(path.read_bytes()[:-100])
    total, (row,) = compared(root, kind)
    assert total == (1, 0, 1) and "not a whole .npz file" in row.note


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size=3", "size=5"),
        ("[maxpool]", "[upsample]"),
        ("filters=6", "filters=7"),
        ("stride=2", "stride=x"),
        ("=", ""),
    ],
)
def test_another_cfg_fails(folder, old, new):
    root = folder("layers_eval")

    def edit(arrays):
        assert old in str(arrays["meta/cfg"])
        arrays["meta/cfg"] = np.array(str(arrays["meta/cfg"]).replace(old, new))

    change(root / FILES["layers_eval"][0], edit)
    assert counts(root, "layers_eval") == (1, 0, 1)


def test_one_damaged_case_hides_no_other(folder):
    root = folder("layers_eval")
    good = root / FILES["layers_eval"][0]
    shutil.copy(good, root / "layers/another.npz")
    (root / "layers/broken.npz").write_bytes(b"PK")
    change(root / "layers/another.npz", lambda arrays: plant_nan(arrays, "eval/L000_output"))
    assert counts(root, "layers_eval") == (3, 0, 2)


class TestSkipped:
    def test_relu6_of_the_cpu_and_nothing_else(self, golden, tmp_path):
        (tmp_path / "layers").mkdir()
        path = tmp_path / "layers/renamed.npz"
        shutil.copy(golden("layers/act_relu6.npz"), path)
        (row,) = rows_of("layers_eval", tmp_path)
        assert row.outcome == "skip" and "relu6 is 0" in row.note

        def computed(arrays):  # as a GPU build would record it; only wrong
            arrays["eval/L000_output"][:] = 3

        change(path, computed)
        assert counts(tmp_path, "layers_eval") == (1, 0, 1)

    def test_dropout_in_training(self, golden, tmp_path):
        (tmp_path / "layers_cudnn_emulated").mkdir()
        shutil.copy(golden("layers_cudnn_emulated/dropout.npz"), tmp_path / "layers_cudnn_emulated/renamed.npz")
        assert counts(tmp_path, "layers_train") == (0, 1, 0)

    def test_training_of_the_cpu_is_taken_where_batch_norm_is_the_layers_own(self, golden, tmp_path):
        (tmp_path / "layers").mkdir()
        for name in ("connected_bn", "act_bn_leaky"):
            shutil.copy(golden(f"layers/{name}.npz"), tmp_path / f"layers/{name}.npz")
        assert counts(tmp_path, "layers_train") == (1, 0, 0)

    def test_without_assets(self, tmp_path):
        (tmp_path / "coco_val").mkdir()
        (tmp_path / "coco_val/x_opencv.json").write_text("[]")
        assert counts(tmp_path, "infer") == (0, 0, 0)
        assert counts(tmp_path, "coco_val") == (0, 1, 0)

    def test_assets_without_photographs(self, tmp_path):
        """A folder of weights is what `infer` needs; that it holds no photographs is no failure of the detector."""
        (tmp_path / "coco_val").mkdir()
        (tmp_path / "coco_val/x_opencv.json").write_text("[]")
        (tmp_path / "assets").mkdir()
        (row,) = rows_of("coco_val", tmp_path, tmp_path / "assets")
        assert row.outcome == "skip" and "no instances_*.json below" in row.note


class TestRun:
    def check(self, tmp_path, check: Check) -> list[Row]:
        (tmp_path / "a").mkdir()
        for number in range(3):
            np.savez(tmp_path / f"a/{number}.npz", x=number)
        return rows_of(check, tmp_path)

    def test_whatever_a_check_raises_is_a_failure_of_its_case(self, tmp_path):
        def check(case):
            yield case.compare("x", int(case.path.stem), OfAbsmax(bound=0))
            raise [KeyError("x"), RuntimeError("the product broke\nand more"), FileNotFoundError("gone")][
                int(case.path.stem)
            ]

        rows = self.check(tmp_path, Check("mine", "", 2, of_trace(check), "a/*.npz"))
        assert [row.outcome for row in rows] == ["pass", "fail"] * 3
        assert [row.note for row in rows[1::2]] == ["KeyError: 'x'", "RuntimeError: the product broke", "gone"]
        assert counted(rows) == (3, 0, 3) and {row.check for row in rows} == {"mine"}

    def test_a_case_without_a_comparison_fails(self, tmp_path):
        rows = self.check(tmp_path, Check("", "", 2, of_trace(lambda case: iter(())), "a/*.npz"))
        assert {row.note for row in rows} == {"nothing was compared"} and counted(rows) == (3, 0, 3)

    def test_files_without_a_case_are_no_case(self, tmp_path):
        check = Check("", "", 2, of_trace(lambda case: iter(())), "a/*.npz", parts=lambda case: [])
        assert not self.check(tmp_path, check)


class TestFormerCommand:
    def run(self, monkeypatch, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["golden", *arguments])
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        return ended.value.code

    @pytest.mark.slow
    def test_table_json_and_exit_code(self, folder, monkeypatch, tmp_path, capsys):
        root = folder("nms", "iou")
        file = tmp_path / "out.json"
        assert self.run(monkeypatch, "--root", str(root), "--json", str(file)) == 0
        shown = capsys.readouterr()
        assert "reproduce.py --traces DIR" in shown.err and "no case found: there is no file loss/*.npz" in shown.out
        (gate,) = json.loads(file.read_text())["gates"]
        assert {row["check"] for row in gate["rows"]} == {"iou", "nms"}
        row = next(row for row in gate["rows"] if row["check"] == "iou")
        assert row["outcome"] == "pass" and row["bound"] == 1e-5
        metrics = Metrics.model_validate(row["metrics"])
        assert judge(metrics, OfAbsmax(bound=1)).passed

        change(root / "misc/iou.npz", lambda arrays: plant_nan(arrays, "iou_giou_diou_ciou"))
        assert self.run(monkeypatch, "--root", str(root)) == 1

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--root", "{}/nowhere"], "nowhere: no such folder"),
            (["--root", "{}"], "nothing below"),
            (["--root", "{}", "--assets", "{}/nowhere"], "nowhere: no such folder"),
        ],
    )
    def test_what_cannot_be_done_is_one_line(self, monkeypatch, tmp_path, capsys, arguments, message):
        assert self.run(monkeypatch, *(argument.format(tmp_path) for argument in arguments)) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and message in error


def test_the_trained_layers_in_the_repository_pass():
    """The subset leaves out what Darknet repeats: the parameters of a layer that shares another's."""
    rows = rows_of("layers_train", SUBSETS / "golden")
    assert counted(rows) == (18, 1, 0) and any(row.case == "conv_share_index" for row in rows)


@pytest.mark.slow
def test_everything_recorded_passes(shared):
    results = {check.name: rows_of(check, shared / "golden", shared / "assets") for check in CHECKS if check.files}
    assert not [row for rows in results.values() for row in rows if row.outcome == "fail"]
    checked = {name: counted(rows)[0] for name, rows in results.items() if name != "own_network"}
    assert checked == {
        "layers_eval": 101,
        "layers_train": 100,
        "assignment": 24,
        "loss": 27,
        "gradients": 7,
        "optimiser": 2,
        "updates": 2,
        "learning_rate": 11,
        "activations": 15,
        "iou": 1,
        "nms": 2,
        "images": 20,
        "infer": 4,
        "decode": 3,
        "coco_val": 4,
    }


@pytest.mark.slow
def test_damaged_inference_fails(shared, tmp_path):
    (tmp_path / "infer").mkdir()
    path = tmp_path / "infer/renamed.npz"
    shutil.copy(shared / "golden/infer/yolo-fastest-1.1__000000037666.npz", path)

    def edit(arrays):
        arrays["resize/L129_output"][0, 7, 3, 5] += 2e-4
        arrays["resize/thresh0.005/default"][3, 5] += 1  # another class
        arrays["letterbox/thresh0.25/raw"] = arrays["letterbox/thresh0.25/raw"][1:]
        arrays["letterbox/X"][:, 100, 50] += 1e-4
        del arrays["letterbox/L130_output"]

    change(path, edit)
    rows = [row for name in ("infer", "decode") for row in rows_of(name, tmp_path, shared / "assets/darknet")]
    assert {row.quantity for row in rows if row.outcome == "fail"} >= {
        *("resize/L129_output", "resize/thresh0.005/default"),
        *("letterbox/thresh0.25/raw", "letterbox/X", "letterbox/L130_output"),
    }
    change(path, lambda arrays: arrays.update({"meta/weights_sha256": np.array("0" * 64)}))
    (row,) = rows_of("infer", tmp_path, shared / "assets/darknet")
    assert row.outcome == "fail" and "no *.weights file below" in row.note
