"""Detect with an exported model: python detect.py --model RUN/saved_model --input 'images/*.jpg' --output FOLDER"""

import preflight

preflight.check()

import sys

from absl import app, flags

from official.core.errors import one_line_errors
from serving.predict import detect_files

MODEL = flags.DEFINE_string("model", None, "Folder of an exported SavedModel.", required=True)
INPUT = flags.DEFINE_multi_string("input", None, "Image, folder of images, or quoted glob (repeatable).", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Receives pictures with boxes, and detections.json.", required=True)
THRESHOLD = flags.DEFINE_float("score_threshold", 0.25, "Detections below this score are left out.", 0.0, 1.0)


@one_line_errors
def main(_: list[str]) -> None:
    done = detect_files(MODEL.value, INPUT.value, OUTPUT.value, THRESHOLD.value)
    print(f"{done['detections']} detections in {done['images']} images: {done['pictures']}, {done['json']}")
    if done["skipped"]:
        sys.exit("\n".join(["not read:", *done["skipped"]]))


if __name__ == "__main__":
    app.run(main)
