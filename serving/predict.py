"""Detect with an export: in files, folders or globs; writes pictures with boxes and COCO-format JSON."""

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float32, Int32, UInt8
from PIL import Image

from official.core.errors import UserError
from official.core.progress import track
from official.vision.boxes import yxyx_to_xywh
from official.vision.draw import draw_boxes
from official.vision.resize import decode_image
from serving.formats import Detector, load_detector
from serving.formats.folder import local_path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class BadImageError(UserError):
    """A file that cannot be read or decoded as an image."""


class ImageDetections(NamedTuple):
    """What was found in one image, the best score first."""

    image: UInt8[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "n yxyx=4"]  # yxyx in pixels of the image
    scores: Float32[np.ndarray, " n"]
    classes: Int32[np.ndarray, " n"]  # contiguous


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The image files that `inputs` name, each once, in order: files as given, folders (not below) and globs sorted.

    Raises:
        FileNotFoundError: an input names no image at all. UserError: it is remote.
    """
    found: dict[Path, None] = {}
    for name in inputs:
        path = local_path(name, "copy the images to a local folder first")
        if path.is_file():
            paths = [path]
        else:
            candidates = path.iterdir() if path.is_dir() else map(Path, glob.glob(name, recursive=True))
            paths = sorted(file for file in candidates if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
        if not paths:
            reason = "no images in this folder" if path.is_dir() else "no such file or folder, and no glob that matches"
            raise FileNotFoundError(f"{name}: {reason}; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
        found.update(dict.fromkeys(paths))
    if not found:
        raise FileNotFoundError("no input given; expected image files, folders or globs")
    return list(found)


def detect_image(detector: Detector, path: Path, score_threshold: float) -> ImageDetections:
    """Detections of at least `score_threshold` in one image file.

    Raises:
        BadImageError: the file cannot be read or decoded.
    """
    try:
        image = decode_image(tf.constant(path.read_bytes()))
    except (OSError, tf.errors.InvalidArgumentError) as error:
        reason = str(getattr(error, "message", error)).splitlines()[0]
        raise BadImageError(f"{path}: cannot be decoded as a JPEG or PNG image ({reason})") from error
    outputs = detector.run(image.numpy()[np.newaxis])  # [1, h, w, 3]
    scores = outputs["detection_scores"][0]
    wanted = (np.arange(len(scores)) < outputs["num_detections"][0]) & (scores >= score_threshold)
    boxes, classes = (outputs[name][0][wanted] for name in ("detection_boxes", "detection_classes"))
    return ImageDetections(image.numpy(), boxes, scores[wanted], classes)


def detect_files(
    saved_model_dir: str | os.PathLike,
    inputs: Sequence[str],
    output_dir: str | os.PathLike,
    score_threshold: float,
) -> dict:
    """Detects in all images that `inputs` name; writes `output_dir`/pictures/*.jpg and `output_dir`/detections.json.

    detections.json is COCO JSON: images (ids from 1, in the order of the inputs), categories (the data set's own ids),
    and annotations, which have a score; the list of annotations is what pycocotools' loadRes takes.

    Args:
        saved_model_dir: an export.
        inputs: files, folders, globs.
        output_dir: made if missing; files of the same name are replaced.
        score_threshold: detections below it are neither drawn nor written.

    Returns:
        {"images": number of images done, "detections": number of detections, "skipped": messages of images that cannot
        be decoded and were left out, "pictures": folder, "json": file}.
    """
    if not 0 <= score_threshold <= 1:
        raise UserError(f"score threshold {score_threshold}: expected a number from 0 to 1")
    output = local_path(output_dir, "write to a local folder, then copy that")
    paths = find_images(inputs)
    detector = load_detector(saved_model_dir)
    pictures = output / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    images, annotations, skipped, taken = [], [], [], set()
    for path in track(paths, "detect", len(paths)):
        try:
            found = detect_image(detector, path, score_threshold)
        except BadImageError as error:
            skipped.append(str(error))
            continue
        height, width = found.image.shape[:2]
        images.append({"id": len(images) + 1, "file_name": str(path), "width": width, "height": height})
        annotations += _annotations(found, detector.category_ids, images[-1]["id"], len(annotations) + 1)
        _write_picture(found, detector.classes, pictures / _free_name(path.stem, taken))
    categories = [{"id": id_, "name": name} for id_, name in zip(detector.category_ids, detector.classes, strict=True)]
    json_path = output / "detections.json"
    text = json.dumps({"images": images, "categories": categories, "annotations": annotations})
    json_path.write_text(text + "\n", encoding="utf-8")
    return {
        "images": len(images),
        "detections": len(annotations),
        "skipped": skipped,
        "pictures": str(pictures),
        "json": str(json_path),
    }


def _annotations(found: ImageDetections, category_ids: Sequence[int], image_id: int, first_id: int) -> list[dict]:
    bboxes = yxyx_to_xywh(tf.constant(found.boxes, tf.float64)).numpy()  # [n, 4]
    return [
        {
            "id": first_id + row,
            "image_id": image_id,
            "category_id": category_ids[class_id],
            "bbox": bbox.tolist(),
            "area": float(bbox[2] * bbox[3]),
            "iscrowd": 0,
            "score": float(score),
        }
        for row, (bbox, score, class_id) in enumerate(zip(bboxes, found.scores, found.classes, strict=True))
    ]


def _write_picture(found: ImageDetections, classes: Sequence[str], path: Path) -> None:
    height, width = found.image.shape[:2]
    relative = found.boxes / np.array([height, width, height, width], np.float32)
    labels = [classes[class_id] for class_id in found.classes]
    Image.fromarray(draw_boxes(found.image, relative, labels, found.scores, found.classes)).save(path, quality=92)


def _free_name(stem: str, taken: set[str]) -> str:
    """A picture's file name that no other picture of this call has: images of two folders may share theirs."""
    name, number = f"{stem}.jpg", 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}.jpg"
    taken.add(name)
    return name
