"""No verdict on a recording depends on the processor: on its instructions, or on how many threads add up.

The commands run in processes of their own, since TensorFlow takes both from the environment when it starts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("golden", "golden_centernet")


def threads(count: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(count))


PROCESSORS = {
    "2 threads": threads(2),
    "1 thread": threads(1),
    "2 threads, AVX2": {**threads(2), "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "2 threads, without oneDNN": {**threads(2), "TF_ENABLE_ONEDNN_OPTS": "0"},
}
Verdicts = dict[tuple[str, str, str], str]  # by kind, case and quantity


def judged(root: Path, assets: Path, environment: dict[str, str], file: Path) -> Verdicts:
    command = [sys.executable, "-m", "reproduction.golden", "--root", root, "--assets", assets, "--json", file]
    # A failure is exit code 1, and a verdict like others.
    process = subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert process.returncode in (0, 1) and file.exists(), process.stderr[-2000:]
    kinds = json.loads(file.read_text())["kinds"]
    return {
        (kind, row["case"], row["quantity"]): row["outcome"] for kind, found in kinds.items() for row in found["rows"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_no_verdict_depends_on_the_processor(shared, tmp_path, folder):
    if not (shared / folder).is_dir():
        pytest.skip(f"recorded traces are not here ({shared / folder})")
    first, *others = (
        (name, judged(shared / folder, shared / "assets", environment, tmp_path / f"{number}.json"))
        for number, (name, environment) in enumerate(PROCESSORS.items())
    )
    assert len(first[1]) > 1000 and "pass" in first[1].values()
    for name, verdicts in others:
        assert verdicts.keys() == first[1].keys()
        different = {row: (first[1][row], verdicts[row]) for row in verdicts if verdicts[row] != first[1][row]}
        assert different == {}, f"{first[0]} beside {name}"
