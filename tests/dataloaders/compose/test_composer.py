"""Whole examples: the fast way against the exact one, odd files, determinism of mosaics and windows."""

import itertools
from collections import Counter

import numpy as np
import pydantic
import pytest
import tensorflow as tf
from PIL import Image

from configs.data import AffineAugmentation, DarknetAugmentation, ReuseWindow, TrainSplit
from dataloaders.compose.composer import Composer
from dataloaders.compose.pieces import Pieces, boxes_in_input, cut, no_pieces
from dataloaders.compose.pixels import blend
from dataloaders.compose.recipes import geometry_of
from dataloaders.compose.reuse_window import load_block
from dataloaders.pipeline import train_dataset
from dataloaders.reading.sources import open_source
from official.vision.protocol import EvaluationProtocol

INPUT = (64, 96)
STRETCH = EvaluationProtocol(resize="stretch")
JITTER = DarknetAugmentation(jitter=0.3, resize=1.2, fill="edge")
MOSAIC = DarknetAugmentation(jitter=0.3, mosaic=0.5, fill="mean")
MIXUP = DarknetAugmentation(jitter=0.2, mixup=1.0)
V7 = AffineAugmentation(nine=0.3, mixup=0.3, translate=0.2, scale=(0.3, 1.8))
WINDOW = DarknetAugmentation(jitter=0.3, mosaic=1.0, fill="mean", window=ReuseWindow(examples=6, reuse=3))
ALL = {"jitter": JITTER, "mosaic": MOSAIC, "mixup": MIXUP, "yolov7": V7, "window": WINDOW}
EACH = ("jitter", "mosaic", "mixup", "yolov7")  # an image of these is decoded for one example


def _open(folder):
    return open_source(folder.source, ("cell", "dot"), "skip", 8)


def _split(folder, augmentation, **more):
    return TrainSplit(
        source=folder.source,
        augmentation=augmentation,
        on_bad="skip",
        **({"batch_size": 4, "max_boxes": 8, "threads": 2} | more),
    )


def _stream(folder, augmentation, steps, start=0, shard=(0, 1), **more):
    split, numbers = _split(folder, augmentation, **more), tf.data.Dataset.counter(np.int64(start), dtype=tf.int64)
    examples = _open(folder).examples("cxcywh")
    batches = train_dataset(Composer(examples, split, INPUT, STRETCH, "cxcywh", 11), split, numbers, shard)
    return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in itertools.islice(batches, steps)]


def _assert_equal(ours, others):
    assert len(ours) == len(others)
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(others), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "augmentation",
    [
        pytest.param(MOSAIC, id="mosaic"),
        pytest.param(WINDOW, id="window", marks=pytest.mark.slow),
        pytest.param(V7, id="7", marks=pytest.mark.slow),
    ],
)
def test_threads_hosts_and_resuming_change_no_byte(seven, augmentation):
    whole = _stream(seven, augmentation, 4, threads=1)
    _assert_equal(_stream(seven, augmentation, 4, threads=4), whole)
    _assert_equal(_stream(seven, augmentation, 1, start=3), whole[3:])
    hosts = [_stream(seven, augmentation, 2, shard=(index, 2)) for index in (0, 1)]
    joined = [tf.nest.map_structure(lambda a, b: np.concatenate([a, b]), *pair) for pair in zip(*hosts, strict=True)]
    _assert_equal(joined, whole[:2])


def test_a_window_uses_each_image_reuse_times_and_reads_it_once(seven):
    split, dataset = _split(seven, WINDOW), _open(seven)
    composer = Composer(dataset.examples("cxcywh"), split, INPUT, STRETCH, "cxcywh", 11)
    assert (composer.schedule.examples, composer.schedule.images) == (6, 8)
    places = [composer.plan(tf.constant(position, tf.int64)).places for position in range(6)]
    assert Counter(np.concatenate(places).tolist()) == dict.fromkeys(range(8), 3)

    counting = _Counting(dataset.examples("cxcywh"))
    composer = Composer(counting, split, INPUT, STRETCH, "cxcywh", 11)
    images = load_block(tf.constant(0, tf.int64), composer.schedule, counting, 11, split.max_boxes, INPUT)
    for position in range(6):
        composer(tf.constant(position, tf.int64), images)
    assert len(counting.reads) == 8


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "yolov7")) for name in EACH])
@pytest.mark.parametrize("precise", [False, True])
def test_an_explanation_is_of_the_example_that_is_made(seven, name, precise):
    split = _split(seven, ALL[name].model_copy(update={"precise": precise}))
    composer = Composer(_open(seven).examples("cxcywh"), split, INPUT, STRETCH, "cxcywh", 11)
    position = tf.constant(5, tf.int64)
    made, example = composer.explain(position), composer(position)
    kind, images = made.parameters["kind"], made.compositions
    assert len(made.rows) == len(made.shown) == sum(kind)
    assert len(made.parameters["compositions"]) == len(images) == len(kind)
    assert composer.examples.read(tf.constant(made.rows[0], tf.int64)).example_id == example.example_id
    assert ("pieces" not in made.parameters) == precise
    image = images[0] if len(images) == 1 else blend(*images, made.parameters["share"], composer.geometry.rounding)
    np.testing.assert_array_equal(image, example.image)


class _Counting:
    """Examples that note what is read of them."""

    def __init__(self, examples):
        self.examples, self.reads = examples, []

    def __len__(self):
        return len(self.examples)

    def read(self, row):
        noted = tf.numpy_function(lambda row: self.reads.append(int(row)) or row, [row], tf.int64)
        return self.examples.read(tf.ensure_shape(noted, []))


def test_a_window_of_whole_images_is_refused():
    with pytest.raises(pydantic.ValidationError, match="window: every example is one whole image"):
        DarknetAugmentation(hue=0.1, window=ReuseWindow(examples=8, reuse=2))


@pytest.mark.parametrize("name", ["mosaic", "mixup", "yolov7"])
def test_of_an_image_that_an_example_has_no_place_for_no_box_is_kept(seven, name):
    geometry = geometry_of(_split(seven, ALL[name]), INPUT, STRETCH)
    absent = Pieces(*(tf.zeros([1, *field.shape[1:]], field.dtype) for field in no_pieces()))
    size = tf.constant([[50, 70]])
    cuts = cut(absent, size, tf.constant([1]), rim=isinstance(geometry.fill, str))
    boxes = boxes_in_input(tf.constant([[[0.0, 0, 1, 1], [0.2, 0.1, 0.9, 0.7]]]), size, cuts.scale, cuts.offset)
    assert not geometry.truths(boxes, absent)[1].numpy().any()


def _smooth(folder, count=9):
    """Images of slow gradients, each with a box: what differs by a fraction of a pixel differs by few levels."""
    for number in range(count):
        path = folder.image(number, 100 + 20 * number, 240 - 12 * number, "png")
        height, width = 100 + 20 * number, 240 - 12 * number
        y, x = np.mgrid[:height, :width]
        pixels = np.stack(
            [y * 200 / height + 30, x * 200 / width + 30, (x + y) * 150 / (height + width) + 10 * number], -1
        )
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        folder.box(number, [20, 20, 60, 50])


@pytest.mark.parametrize("name", ["jitter", "mosaic", "mixup", pytest.param("yolov7", marks=pytest.mark.slow)])
def test_the_fast_way_shows_what_the_exact_one_does(folder, name):
    _smooth(folder)
    dataset, config = _open(folder), ALL[name]
    if name == "mosaic":  # of the image's mean the fast way knows what it sees
        config = config.model_copy(update={"fill": "padding"})
    fast, slow = (
        Composer(
            dataset.examples("cxcywh"),
            _split(folder, config.model_copy(update={"precise": precise})),
            INPUT,
            STRETCH,
            "cxcywh",
            5,
        )
        for precise in (False, True)
    )
    for position in range(4):
        ours, exact = (make(tf.constant(position, tf.int64)) for make in (fast, slow))
        difference = np.abs(ours.image.numpy().astype(int) - exact.image.numpy().astype(int))
        assert np.quantile(difference, 0.9) <= 4 and difference.mean() < 3
        count = int(tf.reduce_sum(tf.cast(exact.valid, tf.int32)))
        assert abs(int(tf.reduce_sum(tf.cast(ours.valid, tf.int32))) - count) <= 1
        if bool(tf.reduce_all(ours.valid == exact.valid)):
            np.testing.assert_allclose(ours.boxes * [96, 64, 96, 64], exact.boxes * [96, 64, 96, 64], atol=1.6)


def _odd(folder):
    """1 pixel, grey, CMYK, rotated by EXIF, PNG with alpha, a very long one, one without a box, one with 500."""
    rng = np.random.default_rng(0)
    shapes = {1: (1, 1), 2: (40, 30), 3: (24, 50), 4: (33, 47), 5: (20, 31), 6: (3, 3000), 7: (30, 40), 8: (50, 60)}
    for number, (height, width) in shapes.items():
        path = folder.image(number, max(height, 4), max(width, 4), "png" if number == 5 else "jpg")
        folder.images[-1] |= {"height": height, "width": width}
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        exif = Image.Exif()
        exif[0x0112] = 6
        mode = {2: "L", 3: "CMYK", 5: "RGBA"}.get(number, "RGB")
        image.convert(mode).save(path, **({"exif": exif} if number == 4 else {}))
        if number != 7:
            folder.box(number, [0, 0, width, height])
    for number in range(500):
        folder.box(8, [number % 20, number % 25, 20, 20])


@pytest.mark.parametrize(
    "augmentation",
    [pytest.param(each, id=name, marks=[pytest.mark.slow] * (name == "yolov7")) for name, each in ALL.items()],
)
def test_odd_images_become_examples(folder, augmentation):
    _odd(folder)
    for batch in _stream(folder, augmentation, 5):
        assert batch.image.shape == (4, *INPUT, 3)
        boxes = batch.boxes[batch.valid]
        assert np.isfinite(batch.boxes).all() and (boxes[:, 2:] > 0).all() and not batch.boxes[~batch.valid].any()


@pytest.mark.parametrize("augmentation", [JITTER, AffineAugmentation(scale=(0.5, 1.5))], ids=["jitter", "affine"])
def test_a_huge_image_becomes_an_example(folder, augmentation):
    path = folder.image(1)
    folder.images[-1] |= {"height": 5000, "width": 7000}
    Image.fromarray(np.tile(np.arange(7000) // 28, (5000, 1)).astype(np.uint8)).save(path)
    folder.box(1, [100, 200, 6800, 4700])
    (batch,) = _stream(folder, augmentation, 1, batch_size=1)
    assert batch.valid.any() and batch.image.std() > 30


def test_an_image_is_seen_at_the_pixels_that_its_header_counts(folder):
    """An EXIF orientation is not applied: boxes count pixels as they are stored."""
    path = folder.image(1, 40, 80)
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40] = 255
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(path, exif=exif, quality=100)
    (batch,) = _stream(folder, DarknetAugmentation(jitter=0.001), 1, batch_size=1)
    assert batch.image[0, :30, :46].min() > 200 and batch.image[0, 34:].max() < 50


def test_a_truncated_image_stops_the_stream(seven):
    path = seven.root / "images" / "image_13.jpg"
    split, examples = _split(seven, MOSAIC), _open(seven).examples("cxcywh")
    steps = tf.data.Dataset.range(8)
    batches = train_dataset(Composer(examples, split, INPUT, STRETCH, "cxcywh", 11), split, steps)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(tf.errors.OpError):
        list(batches)
