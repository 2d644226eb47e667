"""The diagnosis for people: text for a terminal, and a folder with a page and its pictures."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs.experiment import Experiment
from official.core.checkpoint import write_json, write_text
from official.vision.draw import save_figure, save_picture
from tools.doctor.boxes import Statistics
from tools.doctor.diagnosis import Diagnosis
from tools.doctor.findings import Finding
from tools.doctor.pictures import box_figure, class_figure, sample_picture


def as_text(diagnosis: Diagnosis) -> str:
    """All findings with the first places, then numbers and anchors."""
    lines = [line for finding in diagnosis.findings for line in _finding_lines(finding)]
    for data, stats in zip(diagnosis.splits, diagnosis.statistics, strict=True):
        lines.append(f"{data.name}: {stats.images} images, {stats.boxes} boxes that can be used ({data.stated.where})")
    if diagnosis.anchors.config:
        lines += [f"anchors of the config: {diagnosis.anchors.config}", *_level_lines(diagnosis)]
        lines += [f"anchors of k-means:    {diagnosis.anchors.k_means}", f"  {diagnosis.anchors.yaml}"]
        lines += ["  (no better than the config's)"] if not diagnosis.anchors.gain > 0 else []
    counts = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in diagnosis.counts().items())
    return "\n".join([*lines, counts])


def _finding_lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.severity.upper():<8} {finding.split}: {finding.kind} ({finding.count}): {finding.what}"
    for name, text in (("where", finding.shown_where), ("cause", finding.cause), ("to do", finding.remedy)):
        if text:
            yield f"         {name}: {text}"


def _level_lines(diagnosis: Diagnosis) -> Iterator[str]:
    for number, level in enumerate(diagnosis.anchors.levels):
        shapes = ", ".join(f"{width:g} x {height:g}" for width, height in level.anchors)
        yield f"  levels[{number}] ({shapes}): the best for {level.boxes} of {diagnosis.anchors.boxes} boxes"
    if diagnosis.anchors.without_level:
        yield f"  no level: the best for {diagnosis.anchors.without_level}"


def write_report(diagnosis: Diagnosis, experiment: Experiment, folder: str) -> None:
    """Writes index.md, report.json and the pictures into `folder`, which is made if need be."""
    tf.io.gfile.makedirs(folder)
    input_size, protocol = experiment.task.model.input_size, experiment.task.evaluation
    anchors = {}
    if diagnosis.anchors.config:
        anchors["anchors of the config"] = np.array(diagnosis.anchors.config.anchors)
        anchors["k-means"] = np.array(diagnosis.anchors.k_means.anchors)
    names = [data.name for data in diagnosis.splits]
    save_figure(box_figure(diagnosis.splits, input_size, protocol, anchors), f"{folder}/boxes.png")
    save_figure(class_figure(names, diagnosis.statistics), f"{folder}/classes.png")
    samples = []
    for data in diagnosis.splits:
        picture = sample_picture(data, input_size, protocol, experiment.runtime.seed)
        if picture is not None:
            samples.append(f"samples_{data.name}.jpg")
            save_picture(picture, f"{folder}/{samples[-1]}")
    write_json(f"{folder}/report.json", diagnosis.as_dict())
    write_text(f"{folder}/index.md", _page(diagnosis, samples))


def _page(diagnosis: Diagnosis, samples: list[str]) -> str:
    names = [data.name for data in diagnosis.splits]
    parts = ["# Data", "## Findings", *(_finding_part(finding) for finding in diagnosis.findings)]
    parts += [] if diagnosis.findings else ["None."]
    parts += ["## Numbers", _table(["", *names], _number_rows(diagnosis.statistics))]
    parts += ["![boxes](boxes.png)", "## Classes", "![classes](classes.png)", _class_table(diagnosis)]
    parts += ["## Anchors", *_anchor_parts(diagnosis)]
    parts += ["## Samples", "As the network sees them, without augmentation."]
    parts += [f"![{name}]({name})" for name in samples]
    return "\n\n".join(parts) + "\n"


def _finding_part(finding: Finding) -> str:
    lines = [f"**{finding.severity}** `{finding.kind}`, {finding.split}, {finding.count}: {finding.what}"]
    lines += [f"- where: {finding.shown_where}"] if finding.where else []
    lines += [f"- likely cause: {finding.cause}"] if finding.cause else []
    lines += [f"- to do: {finding.remedy}"] if finding.remedy else []
    return "\n".join(lines)


def _number_rows(of_splits: tuple[Statistics, ...]) -> list[list[str]]:
    """A row for each number, a column for each split."""
    rows = []
    for name in ("images", "boxes", "images without boxes"):
        rows.append([name, *(str(getattr(stats, name.replace(" ", "_"))) for stats in of_splits)])
    for name in ("width", "height", "aspect", "boxes of an image"):
        for share in ("5 %", "median", "95 %"):
            values = [getattr(stats, name.replace(" ", "_")).get(share, "") for stats in of_splits]
            rows.append([f"{name}, {share}", *(f"{value:g}" if value != "" else "" for value in values)])
    for size in ("small", "medium", "large"):
        rows.append([f"{size} (COCO's area)", *(str(stats.sizes[size]) for stats in of_splits)])
    return rows


def _class_table(diagnosis: Diagnosis) -> str:
    head = ["class", *(f"{data.name}: {what}" for data in diagnosis.splits for what in ("boxes", "images"))]
    counts = zip(*(stats.classes for stats in diagnosis.statistics), strict=True)
    rows = [[ones[0].name, *(str(number) for one in ones for number in (one.boxes, one.images))] for ones in counts]
    return _table(head, rows)


def _anchor_parts(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.anchors.config:
        return [f"Not examined: {diagnosis.anchors.skipped}."]
    return [
        f"Of {diagnosis.anchors.boxes} boxes that training sees, in pixels of the network's input.",
        f"- config: {diagnosis.anchors.config}\n- k-means: {diagnosis.anchors.k_means}",
        "\n".join(f"-{line[1:]}" for line in _level_lines(diagnosis)),
        f"```yaml\ntask:\n  model:\n    head:\n      {diagnosis.anchors.yaml}\n```",
    ]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
