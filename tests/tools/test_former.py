"""Former names of commands: each says the new one and runs it."""

import re
import runpy
import struct
import warnings
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.modeling.darknet.test_weights import CFG

FORMER = {
    "configs.schema": "tools.schema",
    "dataloaders.convert": "tools.shards",
    "dataloaders.doctor": "tools.doctor",
    "dataloaders.replay": "tools.replay",
    "dataloaders.synthetic": "tools.demo_data",
    "modeling.darknet.convert": "tools.convert",
    "modeling.darknet.weights": "tools.convert",
    "modeling.torch_convert": "tools.convert",
    "official.tensorlint": "tools.tensorlint",
    "reproduction.judge": "tools.judge",
    "reproduction.record": "tools.record",
}


@pytest.fixture
def run(monkeypatch, capsys):
    """`run(module, argument, ...)` as `python -m` does -> (exit code, stdout, stderr)."""

    def command(module: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", [module, *arguments])
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # runpy: it is imported already
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                code = ended.code or 0
        return code, *capsys.readouterr()

    return command


@pytest.mark.parametrize(("former", "name"), FORMER.items())
def test_it_says_the_new_name_and_runs_it(run, former, name):
    expected = run(name, "--help")
    assert expected[0] == 0 and expected[1].startswith("{" if name == "tools.schema" else "usage: ")
    code, out, err = run(former, "--help")
    assert (code, out) == expected[:2]
    assert err == f"python -m {former} is called python -m {name} now\n"


def test_all_of_them_are_here():
    alone = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in ROOT.glob("[a-z]*/**/__main__.py")
        if path.relative_to(ROOT).parts[0] != "tests" and not (path.parent / "__init__.py").exists()
    }
    of_a_file = {"modeling.darknet.weights"}  # which is there for more
    assert alone == FORMER.keys() - of_a_file | {"reproduction.golden"}


def test_the_command_that_became_an_option_of_another(run):
    code, out, _ = run("reproduction.golden", "--help")
    assert code == 0 and re.search(r"former name of\s+`reproduce.py --traces DIR`", out)


def test_partial_takes_its_arguments_as_it_did(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.cfg").write_text(CFG)
    Path("x.weights").write_bytes(struct.pack("<iiiQ", 0, 2, 5, 64) + bytes(4 * 3932))
    command = ("modeling.darknet.weights", "partial", "x.cfg", "x.weights")
    assert run(*command, "x.conv.5", "5")[:2] == (0, "x.conv.5: 3 layers with weights, of the first 5\n")
    assert Path("x.conv.5").stat().st_size == 20 + 4 * 116
    code, _, err = run(*command, "x.conv.9", "9")
    assert code == 1 and "cannot cut out the first 9" in err
