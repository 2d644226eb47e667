"""The report: stored and read back, escaped, self-contained; and in a browser, where there is one."""

import base64
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from reproduction import report
from reproduction.gates.result import Boxes, GateResult, Lines, Table
from reproduction.gates.subject import Subject
from reproduction.golden.case import Row
from reproduction.golden.maps import worst_map
from reproduction.hints import Hint
from reproduction.report.model import ReportError, read_report

EVIL = '<script>alert(1)</script> | `x` & "y"'
HINT = Hint(cause="batch_norm_epsilon", text="another epsilon", before=0.1, after=1e-7, evidence=f"tried 1e-3 {EVIL}")


def _picture():
    file = io.BytesIO()
    Image.fromarray(np.zeros([30, 40, 3], np.uint8)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def _results(outcome):
    ours, theirs = np.random.default_rng(1).normal(size=(2, 1, 3, 20, 30))
    rows = [Row(case="net", quantity=f"L{n:03d}", outcome="pass", error=10.0**-n, bound=1e-2) for n in range(3, 9)]
    if outcome == "fail":
        maps = worst_map(ours, theirs, "NCHW")
        rows.append(
            Row(case=EVIL, quantity="L009", outcome="fail", error=1.0, bound=1e-2, note=EVIL, hints=(HINT,), maps=maps)
        )
    exhibits = (
        Table(title=EVIL, head=("a", EVIL), rows=((EVIL, "1"), ("task.data.long_name", "2")), marks=(0,)),
        Lines(title="loss", across="step", up="loss", lines={"ours": ((0, 3.0), (9, 1.0)), EVIL: ((0, 3.0), (9, 1.1))}),
        Boxes(title="image", jpeg=_picture(), ours=((0.1, 0.1, 0.5, 0.5, 0.9),), expected=((0.1, 0.1, 0.5, 0.6, 0.9),)),
    )  # fmt: skip
    note = "record them" if outcome == "no_inputs" else ""
    return (
        GateResult(number=1, name="recipe", outcome="pass", rows=tuple(rows[:6]), exhibits=exhibits, seconds=0.5),
        GateResult(number=2, name="layers", outcome=outcome, rows=tuple(rows), note=note, seconds=1.5),
    )


def _proof(outcome="fail"):
    return report.report_of(Subject(), f"proof {EVIL}", _results(outcome))


@pytest.mark.parametrize(
    "outcome, code, verdict", [("pass", 0, "Proven"), ("fail", 1, "Not the"), ("no_inputs", 3, "Not p")]
)
def test_verdict_and_exit_code(outcome, code, verdict):
    proof = _proof(outcome)
    assert proof.exit_code == code and proof.verdict.startswith(verdict)
    assert (proof.divergence is not None) == (outcome == "fail")


def test_a_stored_report_gives_the_same_pages(tmp_path):
    report.write(_proof(), tmp_path / "one")
    report.write(read_report(tmp_path / "one/report.json"), tmp_path / "two")
    for name in ("report.json", "report.html", "report.md", "model_card.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_comes_from_files_is_escaped_and_nothing_is_fetched(tmp_path):
    report.write(_proof(), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page) and "@import" not in page and "url(" not in page
    for line in (tmp_path / "report.md").read_text().splitlines():
        if line.startswith("|"):  # cells cannot break out of their table
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 6, 8), line
    assert "First divergence" in page and "batch_norm_epsilon" in page
    assert page.count("data:image/png") == 6  # three at the top, three at their gate


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"title": 1}', json.dumps({"gates": []})])
def test_a_foreign_file_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ReportError, match=r"x\.json: not a stored report: "):
        read_report(tmp_path / "x.json")


PROBE = """<script>
const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') && !e.closest('svg')
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName);
const charts = [...document.querySelectorAll('svg.chart, svg.photo, img')].map(e => e.getBoundingClientRect())
  .map(r => [Math.round(r.width), Math.round(r.height)]);
document.body.setAttribute('data-probe', JSON.stringify({wide, charts, overflow:
  document.documentElement.scrollWidth - innerWidth}));
</script></body>"""


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_in_a_browser(tmp_path, width):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    report.write(_proof(), tmp_path)
    page = (tmp_path / "report.html").read_text().replace("</body>", PROBE)
    (tmp_path / "probe.html").write_text(page)
    quiet = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    where = [f"--user-data-dir={tmp_path}/profile", f"--window-size={width},900"]
    command = [browser, *quiet, *where, "--dump-dom", f"file://{tmp_path}/probe.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    probe = json.loads(re.search(r'data-probe="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))
    assert probe["overflow"] <= 0 and probe["wide"] == []
    assert len(probe["charts"]) == 1 + 1 + 1 + 1 + 2 * 3  # two error charts, a curve, a photo; maps shown twice
    assert all(size[0] > 100 and size[1] > 50 for size in probe["charts"])
