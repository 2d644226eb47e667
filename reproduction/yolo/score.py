"""The score of the original's weights, loaded into the experiment's own network, beside that of recorded detections."""

import base64
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from configs.experiment import Experiment
from modeling.darknet.cfg import read_cfg
from official.core.config_io import check_config, override
from official.vision.coco import evaluate_coco
from reproduction.experiment.subject import Subject
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.scores import Scores
from reproduction.traces.result import Boxes, Exhibit, Table
from reproduction.yolo.inference import ANNOTATIONS, AP, COCO_PROTOCOL, only
from reproduction.yolo.mistakes.scores import OTHER_SCORES
from tasks import jobs
from tasks.yolo.darknet_files import coco_classes, evaluation_experiment

SHOWN = 10  # boxes of a picture, the best
WIDTH = 480  # of a picture, at most
LEAST_SCORE = 0.25  # of a shown box


def check(case: Case, subject: Subject) -> Iterator[Row | Exhibit]:
    """AP, AP50 and AP75 of the experiment's network with the original's weights; of traces alone, of NAME.cfg's."""
    if not any(case.assets.rglob(ANNOTATIONS)):
        yield case.skip("all", f"needs photographs: there is no {ANNOTATIONS} below {case.assets}")
        return
    annotations = only(case.assets, ANNOTATIONS)
    if subject.experiment is None:
        weights = only(case.assets, f"{case.path.stem.removesuffix('_opencv')}.weights")
        cfg = str(weights.with_suffix(".cfg"))
        data = {"coco_json": str(annotations), "images": str(annotations.parent / "images")}
        experiment = evaluation_experiment(cfg, **data, data_path=None, names=None, overrides=[])
    else:
        experiment, weights = subject.experiment, subject.weights
    if weights is None:
        yield case.skip("all", f"the original's weights {subject.claims.weights!r} are not below --assets")
        return
    subject.own.note("inference network", "task.model.head")
    subject.own.note_network()
    yield from _scored(case, _on(experiment, annotations), weights, annotations)


def _scored(case: Case, experiment: Experiment, weights: Path, annotations: Path) -> Iterator[Row | Exhibit]:
    truth, recorded = json.loads(annotations.read_text()), json.loads(case.path.read_text())
    expected = evaluate_coco(truth, recorded)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/metrics.json"
        metrics = jobs.evaluate_to_file(experiment, str(weights), path)
        found = json.loads(Path(f"{path}.detections.json").read_text())
    scores = Scores(truth, recorded, OTHER_SCORES)
    for metric in ("AP", "AP50", "AP75"):
        bound = AP if metric == "AP" else AP.model_copy(update={"bound": 2 * AP.bound})
        clue = Clue("score", "", scores.alternatives(metric))
        yield case.compare(metric, metrics[metric], bound, expected[metric], clue)
    rows = tuple(
        (name, f"{metrics[name]:.4f}", f"{expected[name]:.4f}") for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")
    )
    yield Table(title=f"Scores on {len(truth['images'])} images", head=("", "ours", "original"), rows=rows)
    yield from _picture(truth, annotations.parent / "images", found, recorded)


def _on(experiment: Experiment, annotations: Path) -> Experiment:
    """The experiment, evaluated on these images by the protocol of the recorded detections."""
    data = experiment.model_dump(mode="json", exclude_none=True)
    source = {"type": "coco", "annotations": str(annotations), "images": str(annotations.parent / "images")}
    data["task"]["data"]["validation"]["source"] = source
    model = experiment.task.model
    if model.type == "darknet" and experiment.task.data.classes[0].startswith("class "):  # named by their numbers
        data["task"]["data"]["classes"] = list(coco_classes(read_cfg(model.cfg), str(annotations), None, None))
    changed = override(data, [f"task.evaluation.{key}={value}" for key, value in COCO_PROTOCOL.items()])
    return check_config(changed, Experiment, "the experiment, evaluated as the recorded detections were")


def _picture(truth: dict[str, Any], folder: Path, ours: list, recorded: list) -> Iterator[Boxes]:
    """The image with the most confident recorded detections, and both sides' best boxes on it."""
    sure = [one["image_id"] for one in recorded if one["score"] >= LEAST_SCORE]
    if not sure:
        return
    chosen = max(sorted(set(sure)), key=sure.count)
    info = next(image for image in truth["images"] if image["id"] == chosen)
    image = PIL.Image.open(folder / info["file_name"]).convert("RGB")
    image.thumbnail((WIDTH, WIDTH))
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=70)
    sides = info["height"], info["width"]
    boxes = [_best([one for one in side if one["image_id"] == chosen], sides) for side in (ours, recorded)]
    yield Boxes(
        title=f"{info['file_name']}: the best boxes, both ways", jpeg=base64.b64encode(jpeg.getvalue()).decode(),
        ours=boxes[0], expected=boxes[1],
    )  # fmt: skip


def _best(detections: list[dict[str, Any]], sides: tuple[int, int]) -> tuple[tuple[float, ...], ...]:
    best = sorted(detections, key=lambda one: -one["score"])[:SHOWN]
    x, y, w, h = np.array([one["bbox"] for one in best], float).reshape(-1, 4).T
    scores = [one["score"] for one in best]
    rows = np.column_stack([y / sides[0], x / sides[1], (y + h) / sides[0], (x + w) / sides[1], scores])
    return tuple(tuple(round(float(value), 4) for value in row) for row in rows if row[4] >= LEAST_SCORE)
