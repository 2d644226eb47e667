"""The report's pages: text from files is not markup, all of it comes back from JSON, and a browser shows it."""

import base64
import io
import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from reproduction import report
from reproduction.report.html import page
from reproduction.report.markdown import markdown, model_card
from reproduction.report.model import Report, ReportError, read_report
from reproduction.traces.case import Row
from reproduction.traces.causes import Hint
from reproduction.traces.result import Boxes, GateResult, Lines, Table
from reproduction.traces.worst_map import worst_map

HOSTILE = "<script>alert(1)</script>\"'&|`x`"
WIDTHS = (360, 800, 1600)


def picture() -> str:
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def proof(text: str = "layer") -> Report:
    """All that a report can hold, with a text wherever one may come from a file."""
    hint = Hint(cause="channels_reversed", text=text, before=0.5, after=1e-7, evidence=text)
    expected = np.random.default_rng(0).normal(size=(2, 9, 13))
    maps = worst_map(expected + (np.arange(13) > 6), expected)
    rows = [Row(case=text, quantity=f"{text} {number}", outcome="pass", error=1e-7 * number, bound=1e-5)
            for number in range(1, 30)]  # fmt: skip
    bad = Row(case=text, quantity=f"bad {text}", outcome="fail", error=0.5, bound=1e-5, note=text, hints=(hint,),
              maps=maps)  # fmt: skip
    exhibits = (
        Table(title=text, head=("", text), rows=((text, "a_long.dotted_name" * 9), (text, text)), marks=(1,)),
        Lines(title=text, across=text, up="loss", lines={text: ((0, 3), (9, 1)), "b": ((0, 3), (9, 2))}),
        Boxes(title=text, jpeg=picture(), ours=((0.1, 0.2, 0.5, 0.6, 0.9),), expected=((0.1, 0.2, 0.5, 0.7, 0.8),)),
    )
    gates = (
        GateResult(number=2, name="layers", outcome="fail", rows=(*rows, bad), exhibits=exhibits, seconds=1.5),
        GateResult(number=3, name="decoding and NMS", outcome="no_inputs", note=text),
        GateResult(number=5, name="label assignment", outcome="pass", rows=tuple(rows)),
    )
    card = {"description": [text], "results": [[text, "0.2 ± 0.01", 5000, "published"]], "protocol": {text: text},
            "weights": [text], "authors": [text], "differences": {text: text}}  # fmt: skip
    facts = {text: text}
    return Report(title=text, made="2000-01-01", gates=gates, environment=facts, provenance=facts, card=card)


def test_text_from_files_is_not_markup():
    shown = page(proof(HOSTILE))
    assert "<script" not in shown.lower() and escape("<script>alert(1)</script>") in shown
    for text in (markdown(proof(HOSTILE)), model_card(proof(HOSTILE))):
        assert not re.search(r"(?<!\\)<script", text) and r"\<script\>" in text
        rows = [line for line in text.splitlines() if line.startswith("|")]
        columns = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
        heads = [number for number, line in enumerate(rows) if set(line) <= set("| -") and "---" in line]
        for head in heads:  # a bar in a cell opens no column
            assert columns[head - 1] == columns[head]
        assert all(count in {columns[head] for head in heads} for count in columns)


def test_the_page_needs_nothing_beside_it():
    shown = page(proof())
    assert not re.findall(r"(?:src|href)=[\"'](?!#|data:)", shown)
    assert "@import" not in shown and "url(" not in shown


def test_all_is_rendered_anew_from_the_json(tmp_path):
    report.write(proof(HOSTILE), tmp_path / "one")
    report.write(read_report(tmp_path / "one" / "report.json"), tmp_path / "two")
    for name in ("report.json", "report.html", "report.md", "model_card.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"gates": 1}', "\x00\xff"])
def test_a_foreign_file_is_no_report(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ReportError, match=r"x.json: not a stored report"):
        read_report(tmp_path / "x.json")


LEFT = {"resume": "from a checkpoint: gate 9 was not asked"}


@pytest.mark.parametrize(
    ("outcomes", "unproven", "code", "words"),
    [
        (["pass", "pass"], {}, 0, "Proven: 2 of 2 gates passed."),
        (["pass", "pass"], None, 0, "As recorded: 2 of 2 gates passed."),
        (["pass", "pass"], LEFT, 4, "2 of 2 gates passed. Not proven: resume."),
        (["pass", "fail", "no_inputs"], LEFT, 1, "Not the original: 1 failed"),
        (["pass", "no_inputs"], LEFT, 3, "Not proven: 1 lacked inputs"),
        ([], {}, 3, "0 of 0"),
    ],
)
def test_exit_code_and_verdict(outcomes, unproven, code, words):
    gates = tuple(GateResult(number=1, name="x", outcome=outcome) for outcome in outcomes)
    made = Report(title="", made="", gates=gates, environment={}, provenance={}, unproven=unproven)
    assert made.exit_code == code and words in made.verdict
    is_proven = code == 0 and unproven is not None
    for text in (made.verdict, page(made), markdown(made), model_card(made)):
        assert ("Proven:" in text) == is_proven
        assert not unproven or code == 1 or "resume" in text


def test_the_first_divergence_stands_with_its_hint_in_every_form(capsys):
    made = proof()
    report.show(made)
    for text in (page(made), markdown(made), capsys.readouterr().out):
        flat = text.replace("\\", "")
        assert flat.lower().index("first divergence") < flat.index("channels_reversed")


_PROBE = """
<body><script>
const faults = [];
addEventListener('error', event => faults.push(String(event.message)));
</script>%s<script>
addEventListener('load', () => {
  const seen = [...document.querySelectorAll('iframe')].map(frame => {
    const inside = frame.contentDocument, size = one => one.getBoundingClientRect();
    inside.querySelectorAll('details').forEach(one => one.open = true);
    return {
      width: frame.clientWidth, needs: inside.documentElement.scrollWidth,
      charts: [...inside.querySelectorAll('svg')].map(one => [size(one).width, size(one).height]),
      marks: [...inside.querySelectorAll('svg path')].filter(one => size(one).height > 0).length,
      images: [...inside.images].map(one => one.naturalWidth),
      loaded: frame.contentWindow.performance.getEntriesByType('resource')
        .map(one => one.name).filter(name => !name.startsWith('data:')),
    };
  });
  document.body.innerHTML = '<pre id="seen"></pre>';
  document.getElementById('seen').textContent = JSON.stringify({faults, seen});
});
</script></body>
"""


def test_chromium_shows_it_at_every_width(tmp_path):
    """Frames as wide as a phone, a tablet and a screen: nothing overflows, every chart and picture has a size."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    made = page(proof())
    frames = "".join(f'<iframe style="border:0;width:{width}px" srcdoc="{escape(made)}"></iframe>' for width in WIDTHS)
    (tmp_path / "probe.html").write_text(_PROBE % frames, encoding="utf-8")
    done = dump(browser, tmp_path / "probe.html", tmp_path / "profile")
    found = re.search(r'<pre id="seen">(.*?)</pre>', done, re.DOTALL)
    assert found, done[-2000:]
    seen = json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert seen["faults"] == [] and [frame["width"] for frame in seen["seen"]] == list(WIDTHS)
    for frame in seen["seen"]:
        assert frame["needs"] <= frame["width"] and frame["loaded"] == []
        assert len(frame["charts"]) == 4 and all(min(size) > 50 for size in frame["charts"])
        assert frame["marks"] == 30 + 29  # of the two gates' charts
        assert len(frame["images"]) == 2 * 3 and min(frame["images"]) > 1


def dump(browser: str, file: Path, profile: Path) -> str:
    """The page's elements after its scripts."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=5000")
    command = [browser, *flags, "--window-size=1700,1200", "--dump-dom", file.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
