"""reproduce.py as a user meets it: exit codes, what it writes, and what wrong input is told."""

import json

import yaml

from reproduction.traces.align import cfg_names
from reproduction.traces.case import Case
from reproduction.yolo.rebuilt import Rebuilt
from tests.doors import run_each
from tests.reproduction.traces.test_walk import record

CONFIG = ("--config", "configs/experiments/yolov4_tiny_coco.yaml")


WRONG = [
    ((*CONFIG, "--traces", "nowhere"), "nowhere: no such folder; expected one for traces"),
    ((*CONFIG, "--gates", "0-99"), "gates '0-99': expected numbers from 1 to 12"),
    ((*CONFIG, "--set", "task.loss.gradiant=true"), "did you mean 'gradient'?"),
    (("--render", "{}/foreign.json"), "foreign.json: not a stored report"),
    (("--render", "{}/none.json"), "none.json"),
    (("--darknet", "none.cfg"), "none.cfg: cannot read the cfg"),
    (("--compare", "none.keras"), "--compare model.keras and --trace x.npz go together"),
    (("--compare", "none.keras", "--trace", "{}/none.npz"), "none.keras: no such file"),
    ((), "nothing to prove: give --config"),
]


def test_wrong_input_ends_with_its_message_alone(tmp_path):
    (tmp_path / "foreign.json").write_text('{"images": [], "annotations": []}')
    cases = [(*(one.format(tmp_path) for one in words), "--output", str(tmp_path / "out")) for words, _ in WRONG]
    for done, (_, message) in zip(run_each("reproduce.py", *cases), WRONG, strict=True):
        assert done.returncode == 1 and done.stderr.startswith("error: ") and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_proof_is_written_and_rendered_anew(tmp_path):
    """CenterNet's recipe needs no file; images, curve and run are not there: exit code 3."""
    config = ("--config", "configs/experiments/centernet_resdcn18_coco.yaml")
    once, proof, again = (tmp_path / name for name in ("once", "proof", "again"))
    passed, lacking, rendered = run_each(
        "reproduce.py",
        (*config, "--gates", "1", "--output", str(once)),
        (*config, "--gates", "1,10-12", "--output", str(proof)),
        ("--render", str(proof / "report.json"), "--output", str(again)),
    )
    assert passed.returncode == 4, passed.stderr
    assert "1 of 1 gates passed. Not proven: task.model.backbone, " in passed.stdout
    assert lacking.returncode == 3 and "3 lacked inputs" in lacking.stdout
    written = {path.name: path.read_bytes() for path in proof.iterdir()}
    assert set(written) == {"report.html", "report.json", "report.md", "model_card.md"}
    assert [gate["outcome"] for gate in json.loads(written["report.json"])["gates"]] == ["pass", *["no_inputs"] * 3]
    assert rendered.returncode == 3
    assert {path.name: path.read_bytes() for path in again.iterdir()} == written


def test_a_model_beside_a_foreign_trace(tmp_path):
    """A file with our own layers, loaded by a new process; then with one weight changed."""
    record(tmp_path / "x.npz")
    model = Rebuilt.of(Case(tmp_path / "x.npz")).graph.model
    names = cfg_names(model) | {model.inputs[0].name: "X"}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(names))
    model.save(tmp_path / "sound.keras")
    kernel = model.get_layer("L001_convolutional").kernel
    kernel.assign(1.01 * kernel)
    model.save(tmp_path / "wrong.keras")
    given = ("--trace", str(tmp_path / "x.npz"), "--map", str(tmp_path / "map.yaml"))
    sound, wrong = run_each(
        "reproduce.py",
        *(
            ("--compare", str(tmp_path / f"{name}.keras"), *given, "--output", str(tmp_path / name))
            for name in ("sound", "wrong")
        ),
    )
    assert sound.returncode == 0 and "1 of 1 gates passed" in sound.stdout, sound.stderr
    assert wrong.returncode == 1 and "first divergence: gate 2, x L001_output" in wrong.stdout, wrong.stderr
    assert {path.name for path in (tmp_path / "wrong").iterdir()} >= {"report.html", "report.json", "report.md"}
