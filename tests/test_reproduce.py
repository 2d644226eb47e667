"""reproduce.py as a user meets it: exit codes, what it writes, and what wrong input is told."""

import json

from tests.doors import run_each

CONFIG = ("--config", "configs/experiments/yolov4_tiny_coco.yaml")


WRONG = [
    ((*CONFIG, "--traces", "nowhere"), "nowhere: no such folder; expected one for traces"),
    ((*CONFIG, "--gates", "0-99"), "gates '0-99': expected numbers from 1 to 12"),
    ((*CONFIG, "--set", "task.loss.gradiant=true"), "did you mean 'gradient'?"),
    (("--render", "{}/foreign.json"), "foreign.json: not a stored report"),
    (("--render", "{}/none.json"), "none.json"),
    (("--darknet", "none.cfg"), "none.cfg: cannot read the cfg"),
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
