"""Images that break after they were checked: named, replaced, and the same whatever is found first."""

from pathlib import Path

import pytest
import tensorflow as tf

from configs.data import DarknetAugmentation, ReuseWindow, TrainSplit
from dataloaders.compose.composer import Composer
from dataloaders.compose.recipes import rows_of_steps
from dataloaders.pipeline import train_dataset
from dataloaders.reading.annotations import DataError
from dataloaders.reading.sources import open_source
from dataloaders.schedule.unreadable import StandIns
from official.vision.protocol import EvaluationProtocol
from tests.broken_images import break_jpeg


def _stand_ins(folder):
    return StandIns(open_source(folder.source, ("cell", "dot"), "skip", 8))


def _break(folder, *image_ids):
    """Behind what was checked: header and end are there."""
    for image_id in image_ids:
        break_jpeg(Path(folder.source.images) / f"image_{image_id}.jpg")


def _shown(stand_ins):
    examples = stand_ins.examples("cxcywh")
    return [int(examples.read(tf.constant(row, tf.int64)).example_id) for row in range(len(examples))]


@pytest.mark.parametrize(
    "broken, shown",
    [
        ([12], [10, 11, 13, 13, 14, 15, 16]),
        ([12, 13], [10, 11, 14, 14, 14, 15, 16]),
        ([16], [10, 11, 12, 13, 14, 15, 10]),
        ([10, 16], [11, 11, 12, 13, 14, 15, 11]),
    ],
)
def test_the_next_readable_one_stands_in_whatever_is_found_first(seven, broken, shown):
    forwards, backwards = _stand_ins(seven), _stand_ins(seven)
    _break(seven, *broken)
    messages = forwards.find(range(7))
    for row in reversed(range(7)):
        backwards.find([row])
    assert _shown(forwards) == _shown(backwards) == shown
    assert len(messages) == len(broken) == len(forwards.found)
    for message, image_id in zip(messages, broken, strict=True):
        assert f"image_{image_id}.jpg" in message and "stands in for it" in message
    assert forwards.find(range(7)) == []  # told once


def test_most_images_broken_is_an_error(seven):
    stand_ins = _stand_ins(seven)
    _break(seven, 10, 11, 12, 13)
    with pytest.raises(DataError, match="So it is with 4 of the 7 images that were read again: is the disk"):
        stand_ins.find(range(7))


@pytest.mark.slow
def test_a_window_goes_on_with_the_stand_in(seven):
    augmentation = DarknetAugmentation(jitter=0.3, mosaic=1.0, window=ReuseWindow(examples=4, reuse=4))
    split = TrainSplit(source=seven.source, augmentation=augmentation, batch_size=2, max_boxes=8, on_bad="skip")
    stand_ins = _stand_ins(seven)
    rows = rows_of_steps(split, 7, 3, 0, 1)  # of the whole window, which both of its steps need
    assert rows == rows_of_steps(split, 7, 3, 1, 2) and len(rows) == 4
    _break(seven, int(stand_ins.data.image_ids[rows[1]]))

    def batches():
        examples, steps = stand_ins.examples("cxcywh"), tf.data.Dataset.range(0, 2)
        make = Composer(examples, split, (64, 96), EvaluationProtocol(), "cxcywh", 3)
        return list(train_dataset(make, split, steps))

    with pytest.raises(tf.errors.OpError):
        batches()
    assert len(stand_ins.find(rows)) == 1
    assert len(batches()) == 2
