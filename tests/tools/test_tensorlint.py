import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.tensorlint.__main__ import main
from tools.tensorlint.names import parse
from tools.tensorlint.rules import RULES, check

ROOT = Path(__file__).resolve().parents[2]
OURS = ["official", "configs", "dataloaders", "modeling", "losses", "tasks", "serving", "reproduction", "benchmarks"]
HEAD = """import dataclasses
import keras
import numpy as np
import tensorflow as tf
import torch
from collections.abc import Callable
from jaxtyping import Bool, Float32, Int32, UInt8
from official.vision.boxes import Xyxy, Yxyx
from official.vision import boxes as box_ops
"""
FIRST = HEAD.count("\n") + 1  # the line of a case's beginning
BOX = 'Float32[tf.Tensor, "n four=4"]'

GOOGLE = "Args:\n        x: [n, 4]\n\n    Returns:\n        [k, 2]"
NUMPY = "Parameters\n    ----------\n    x : [n, 4]\n\n    Returns\n    -------\n    [k, 2]"


def found(tmp_path, source):
    """(rule, line of the source) of each finding."""
    path = tmp_path / "case.py"
    path.write_text(HEAD + source)
    return [(one.rule, one.line - FIRST + 1) for one in check(parse(path))]


@pytest.fixture(autouse=True)
def fresh():
    parse.cache_clear()


WRONG = {
    "bare tensor": ("def f(x: tf.Tensor) -> None: ...", ["TL101"]),
    "bare result": ("def f(n: int) -> np.ndarray: ...", ["TL101"]),
    "in a container": ("def f(x: dict[str, list[tf.Tensor] | None]) -> None: ...", ["TL101"]),
    "quoted": ("def f(x: 'torch.Tensor') -> None: ...", ["TL101"]),
    "Keras": ("def f(x: keras.KerasTensor) -> None: ...", ["TL101"]),
    "through an alias": ("Maps = list[tf.Tensor]\ndef f(x: Maps) -> None: ...", ["TL101"]),
    "dtype alone": ("def f(x: np.typing.NDArray[np.float32]) -> None: ...", ["TL101"]),
    "variadic": ("def f(*x: tf.Tensor) -> None: ...", ["TL101"]),
    "field": ("@dataclasses.dataclass\nclass A:\n    x: tf.Tensor", ["TL101"]),
    "method": ("class A:\n    def f(self, x: tf.Tensor) -> None: ...", ["TL101"]),
    "call of no layer": ("class A:\n    def call(self, x: tf.Tensor) -> None: ...", ["TL101"]),
    "not annotated": ("def f(image, other): ...", ["TL102"]),
    "no result": (f"def f(x: {BOX}):\n    if True:\n        return x", ["TL103"]),
    "no shape": ("def f(x: Float32[tf.Tensor, 4]) -> None: ...", ["TL104"]),
    "no format": (f"def f(boxes: {BOX}) -> None:\n    '''Boxes.'''", ["TL201"]),
    "no format of a field": (f"class A:\n    gt_boxes: {BOX}  # of the image", ["TL201"]),
    "formats": ("def f(boxes: Yxyx) -> None:\n    '''Area of xyxy boxes.'''", ["TL202"]),
    "formats, spelt out": ("def f(b: box_ops.Yxyx) -> None:\n    '''b: left, top, right, bottom.'''", ["TL202"]),
    "formats in Args": ("def f(b: Yxyx) -> None:\n    '''To xyxy.\n\n    Args:\n        b: xyxy.\n    '''", ["TL202"]),
    "rank": (f"def f(x: {BOX}) -> None:\n    '''x: [batch, n, 4].'''", ["TL301"]),
    "order": ("def f(x: UInt8[tf.Tensor, 'h w 3']) -> None:\n    '''x: [w, h, 3].'''", ["TL301"]),
    "size behind any": ("def f(x: UInt8[tf.Tensor, '*b 3']) -> None:\n    '''x: [n, 4].'''", ["TL301"]),
    "four numbers": ("def f(x: Float32[tf.Tensor, 'n 4']) -> None: ...", ["TL203"]),
    "four numbers of an alias": ("Four = Float32[tf.Tensor, 'n 4']\ndef f(x: Four) -> None: ...", ["TL203"]),
    "formats, in the dimension": ("def f(b: Float32[tf.Tensor, 'n yxyx=4']) -> None:\n    '''b: xyxy.'''", ["TL202"]),
    "dtype": (f"def f(x: {BOX}) -> None:\n    '''x: int32 [n, 4].'''", ["TL302"]),
    "ignored without reason": ("def f(x: tf.Tensor) -> None: ...  # tensorlint: ignore[TL101]", ["TL002", "TL101"]),
    "ignored by no rule": ("x = 1  # tensorlint: ignore[TL999] because", ["TL002"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong(tmp_path, name):
    source, rules = WRONG[name]
    assert sorted(rule for rule, _ in found(tmp_path, source)) == rules


RIGHT = {
    "stated": f"def f(x: {BOX}, y: Int32[tf.Tensor, ' n'] | None) -> Bool[tf.Tensor, '']: ...",
    "private": "def _f(x: tf.Tensor): ...\nclass _A:\n    x: tf.Tensor\nclass B:\n    def _g(self, x: tf.Tensor): ...",
    "nested": "def f() -> None:\n    def g(x: tf.Tensor) -> tf.Tensor: ...",
    "callable": "def f(x: Callable[[tf.Tensor], tf.Tensor]) -> None: ...",
    "layer": "class A(keras.layers.Layer):\n    def call(self, x: tf.Tensor): return x",
    "layer of a layer": "class A(keras.Model): ...\nclass B(A):\n    def call(self, image: tf.Tensor): return image",
    "alias": "def f(boxes: Yxyx) -> Xyxy:\n    '''yxyx to xyxy.'''",
    "format in the name": f"def f(xyxy_boxes: {BOX}) -> None: ...",
    "format in the dimension": "def f(boxes: Float32[tf.Tensor, 'n cxcywh=4']) -> None: ...",
    "open format": "def f(boxes: Float32[tf.Tensor, 'n box=4']) -> None: ...",
    "format in a comment": f"def f(\n    boxes: {BOX},  # cxcywh\n) -> None: ...",
    "mask named boxes": "def f(boxes: Bool[np.ndarray, ' boxes']) -> None: ...",
    "number of boxes": "def f(max_boxes: int, num_boxes=3) -> None: ...",
    "default": "def f(image='photo.jpg'): ...",
    "annotated otherwise": "def f(image: str): ...",
    "pytest": "def test_it(image, boxes): ...",
    "range": f"def f(x: {BOX}) -> None:\n    '''x: [0, 1].'''",
    "what a box holds": f"def f(x: {BOX}) -> None:\n    '''x: [x1, y1, x2, y2].'''",
    "section": f"def f(x: {BOX}) -> None:\n    '''x: [yolo] of a cfg.'''",
    "another's shape": f"def f(x: {BOX}) -> None:\n    '''x: positions in [batch, rows, columns].'''",
    "size": "def f(size: Int32[tf.Tensor, '2']) -> None:\n    '''size: (height, width) in pixels.'''",
    "both formats": "def f(boxes: Yxyx) -> None:\n    '''Drawn as xyxy, given as yxyx.'''",
    "Returns is no parameter": f"def f(x: {BOX}) -> None:\n    '''A.\n\n    {GOOGLE}'''",
    "NumPy's sections": f"def f(x: {BOX}) -> None:\n    '''A.\n\n    {NUMPY}'''",
    "ignored": "def f(x: tf.Tensor) -> None: ...  # tensorlint: ignore[TL101] any shape will do",
    "in a string": "x = '# tensorlint: ignore[TL101]'",
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right(tmp_path, name):
    assert found(tmp_path, RIGHT[name]) == []


def test_a_file_without_arrays_is_left_alone(tmp_path):
    (tmp_path / "a.py").write_text("def show(image): ...\n")
    assert main([str(tmp_path)]) == 0


def test_aliases_of_other_files(tmp_path):
    package = tmp_path / "mine" / "inner"
    package.mkdir(parents=True)
    (package / "kinds.py").write_text(
        "import tensorflow as tf\nfrom jaxtyping import Float32\nBare = tf.Tensor\n"
        "CornersXYXY = Float32[tf.Tensor, 'n four=4']\n"
    )
    (package / "__init__.py").write_text("from .kinds import Bare, CornersXYXY\n")
    user = tmp_path / "mine" / "user.py"
    user.write_text(
        "from mine import inner\nfrom .inner import Bare\nfrom mine.inner.kinds import CornersXYXY\n"
        "from nowhere import X\n"
        "def a(x: Bare) -> None: ...\ndef b(x: inner.Bare) -> None: ...\n"
        "def c(boxes: CornersXYXY, y: X) -> None:\n    '''yxyx boxes.'''\n"
    )
    assert [(one.rule, one.line) for one in check(parse(user))] == [("TL101", 5), ("TL101", 6), ("TL202", 7)]


def test_imports_in_a_circle_end(tmp_path):
    for one, other in ("ab", "ba"):
        (tmp_path / f"{one}.py").write_text(f"from {other} import X\ndef f(x: X) -> None: ...\n")
    (tmp_path / "c.py").write_text("X = list[X]\ndef f(x: X) -> None: ...\n")
    assert main([str(tmp_path)]) == 0


def test_nothing_is_imported_or_run(tmp_path):
    (tmp_path / "a.py").write_text(f"import tensorflow as tf\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    run = subprocess.run(
        [sys.executable, "-c", "import sys; from tools.tensorlint.__main__ import main; "
         "main([sys.argv[1]]); sys.exit('tensorflow' in sys.modules or 'a' in sys.modules)", str(tmp_path)],
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert run.returncode == 0 and not (tmp_path / "ran").exists()


def test_files_that_cannot_be_read_are_named_and_the_others_checked(tmp_path, capsys):
    (tmp_path / "bad.py").write_text("def f(:\n")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0\n")
    (tmp_path / "good.py").write_text("import numpy as np\ndef f(x: np.ndarray) -> None: ...\n")
    assert main([str(tmp_path), str(tmp_path / "missing.py")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].split()[0] for line in lines] == ["TL001", "TL001", "TL101", "TL001", "TL001"]
    assert lines[0].startswith(f"{tmp_path / 'bad.py'}:1:") and "No such file" in lines[-1]


def test_json_and_exit_codes(tmp_path, capsys):
    file = tmp_path / "a.py"
    file.write_text("import numpy as np\n\ndef f(x: np.ndarray) -> None: ...\n")
    assert main(["--json", str(file)]) == 1
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["path"], one["line"], one["column"], one["rule"]) == (str(file), 3, 7, "TL101")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2


@pytest.mark.parametrize("option", ["--rules", "--help"])
def test_rules_are_listed(capsys, option):
    if option == "--help":
        with pytest.raises(SystemExit):
            main([option])
    else:
        assert main([option]) == 0
    printed = capsys.readouterr().out
    assert all(rule in printed for rule in RULES)


def test_each_rule_is_tested():
    assert {"TL001", *(rule for _, rules in WRONG.values() for rule in rules)} == set(RULES)


def test_our_own_code_passes(capsys):
    assert main([str(ROOT / name) for name in OURS] + [str(path) for path in ROOT.glob("*.py")]) == 0
