"""The stream of batches: determinism, resuming, sharding, coverage, truth forms, transfer size, failure in mid run."""

import itertools
import logging

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from configs.data import CocoSource, DarknetAugmentation, Split, TrainSplit
from dataloaders import pipeline
from dataloaders.compose.composer import Composer
from dataloaders.compose.recipes import rows_of_steps
from dataloaders.pipeline import eval_dataset, train_dataset
from dataloaders.reading.annotations import DataError
from dataloaders.reading.sources import open_source
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import decode_image, resize_image

CLASSES = ("cell", "dot")
INPUT = (32, 64)
STRETCH, LETTERBOX = EvaluationProtocol(resize="stretch"), EvaluationProtocol(resize="letterbox")
AUGMENTATION = DarknetAugmentation(jitter=0.3, hue=0.1, saturation=1.5, exposure=1.5)


def _split(folder, **more):
    return TrainSplit(source=folder.source, **({"batch_size": 2, "max_boxes": 5, "threads": 2} | more))


def _eval_split(folder, batch_size):
    return Split(source=folder.source, batch_size=batch_size, threads=2)


def _open(folder, max_boxes=5, on_bad="fail"):
    return open_source(folder.source, CLASSES, on_bad, max_boxes)


def _from(step):
    return tf.data.Dataset.counter(np.int64(step), dtype=tf.int64)


def _train_dataset(dataset, split, input_size, protocol, form, seed, steps, shard=(0, 1)):
    return train_dataset(Composer(dataset.examples(form), split, input_size, protocol, form, seed), split, steps, shard)


def _stream(folder, steps, protocol=STRETCH, start=0, shard=(0, 1), seed=11, form="cxcywh", **more):
    """The first batches as NumPy."""
    split = _split(folder, **more)
    dataset = _train_dataset(_open(folder), split, INPUT, protocol, form, seed, _from(start), shard)
    return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in itertools.islice(dataset, steps)]


def _assert_equal(ours, others):
    assert len(ours) == len(others)
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(others), strict=True):
        np.testing.assert_array_equal(one, other)


def test_static_shapes_and_types(seven):
    for batch_size in (2, 3):
        split = _split(seven, batch_size=batch_size, augmentation=AUGMENTATION)
        spec = _train_dataset(_open(seven), split, INPUT, LETTERBOX, "cxcywh", 1, _from(0)).element_spec
        assert [(part.shape.as_list(), part.dtype) for part in tf.nest.flatten(spec)] == [
            ([batch_size, 32, 64, 3], tf.uint8),
            ([batch_size, 5, 4], tf.float32),
            ([batch_size, 5], tf.int32),
            ([batch_size, 5], tf.bool),
            ([batch_size], tf.int64),
            ([batch_size], tf.bool),
            *[([batch_size], tf.float32)] * 3,
        ]


@pytest.mark.parametrize("protocol", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
def test_the_number_of_threads_changes_no_byte(seven, protocol):
    streams = [_stream(seven, 6, protocol, augmentation=AUGMENTATION, threads=threads) for threads in (1, 2, None)]
    _assert_equal(streams[0], streams[1])
    _assert_equal(streams[0], streams[2])


def test_without_a_number_of_threads_there_is_one_for_each_core_that_the_process_may_use(seven, monkeypatch):
    monkeypatch.setattr(pipeline.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    dataset = _open(seven)
    for wanted, threads in ((None, 3), (2, 2)):
        stream = _train_dataset(dataset, _split(seven, threads=wanted), INPUT, STRETCH, "cxcywh", 11, _from(0))
        assert stream.options().threading.private_threadpool_size == threads


def test_the_stream_has_to_the_byte_what_its_positions_alone_make(folder):
    """So a replay shows what the run saw: the graph of a stream may not be simplified in another way."""
    for number, size in enumerate([(480, 640), (427, 640), (500, 375), (333, 500)]):
        folder.image(number, *size, "jpg")
        folder.box(number, [20, 20, 200, 150])
    split = _split(folder, augmentation=DarknetAugmentation(jitter=0.3, mosaic=1.0), batch_size=1)
    make = Composer(_open(folder).examples("cxcywh"), split, (416, 416), STRETCH, "cxcywh", 5)
    stream = train_dataset(make, split, _from(0))  # at position 6 a division by 416 decides what is rounded how
    for position, batch in enumerate(itertools.islice(stream, 8)):
        _assert_equal([make(tf.constant(position, tf.int64))], [tf.nest.map_structure(lambda field: field[0], batch)])


def test_resuming_at_a_step_is_the_stream_from_there(seven):
    whole = _stream(seven, 9, augmentation=AUGMENTATION)
    for start in (1, 4, 7):
        _assert_equal(_stream(seven, 9 - start, start=start, augmentation=AUGMENTATION), whole[start:])


def test_far_positions_do_not_overflow(seven):
    (batch,) = _stream(seven, 1, start=2**40, augmentation=AUGMENTATION)
    assert set(batch.example_id) <= set(range(10, 17))


def test_an_epoch_has_every_example_once_in_its_own_order(seven):
    ids = np.concatenate([batch.example_id for batch in _stream(seven, 14, batch_size=3)])[: 6 * 7].reshape(6, 7)
    for epoch in ids:
        assert sorted(epoch) == list(range(10, 17))
    assert len({tuple(epoch) for epoch in ids}) == 6


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17])
def test_any_number_of_examples_is_covered(folder, count):
    for image_id in range(count):
        folder.image(image_id, 8, 12)
    ids = np.concatenate([batch.example_id for batch in _stream(folder, count, batch_size=2)])
    for epoch in ids.reshape(2, count):
        assert sorted(epoch) == list(range(count))


def test_two_hosts_read_the_batches_of_one(seven):
    whole = _stream(seven, 5, batch_size=4, augmentation=AUGMENTATION)
    first, second = (_stream(seven, 5, batch_size=4, augmentation=AUGMENTATION, shard=(index, 2)) for index in (0, 1))
    pairs = zip(first, second, strict=True)
    _assert_equal([tf.nest.map_structure(lambda a, b: np.concatenate([a, b]), *pair) for pair in pairs], whole)
    with pytest.raises(ValueError, match="batch_size 4 is divided among 3 hosts"):
        _stream(seven, 1, batch_size=4, shard=(0, 3))
    with pytest.raises(ValueError, match="numbered from 0"):
        _stream(seven, 1, batch_size=4, shard=(2, 2))


def test_seed_and_epoch_change_order_and_draws(seven):
    one, other = _stream(seven, 7, augmentation=AUGMENTATION), _stream(seven, 7, seed=12, augmentation=AUGMENTATION)
    hues = np.concatenate([batch.draws.hue for batch in one + other])
    assert len(set(hues.tolist())) == 28
    assert [b.example_id.tolist() for b in one] != [b.example_id.tolist() for b in other]


def test_stretched_truth_is_the_sources_own_numbers_and_evaluations_pixels(seven):
    dataset = _open(seven)
    for form in ("cxcywh", "yxyx"):
        native = dataset.boxes_in(form)
        for batch in _stream(seven, 4, form=form):
            for image, boxes, classes, valid, example_id in zip(*batch[:5], strict=True):
                row = dataset.image_ids.tolist().index(example_id)
                rows = slice(*dataset.splits[row : row + 2])
                count = rows.stop - rows.start
                np.testing.assert_array_equal(boxes[:count], native[rows])
                np.testing.assert_array_equal(classes[:count], dataset.classes[rows])
                assert valid.tolist() == [True] * count + [False] * (5 - count)
                assert not boxes[count:].any() and not classes[count:].any()
                stored = decode_image(tf.io.read_file(dataset.image_paths[row]))
                np.testing.assert_array_equal(image, resize_image(stored, INPUT, STRETCH))


def test_letterboxed_truth_without_jitter_lies_in_the_placement(folder):
    folder.image(1, 40, 20)  # in 32 x 64: 16 wide, from column 24
    folder.box(1, [5, 10, 10, 20])
    (batch,) = _stream(folder, 1, LETTERBOX)
    np.testing.assert_allclose(batch.boxes[:, 0], [[0.5, 0.5, 8 / 64, 0.5]] * 2, atol=1e-6)
    assert (batch.image[:, :, :24] == 128).all()


def test_boxes_below_one_input_pixel_crowds_and_boxes_cropped_away_are_not_truth(folder):
    folder.image(1, 40, 640)
    folder.box(1, [100, 10, 9.9, 20])  # 0.99 of an input pixel wide
    folder.box(1, [200, 10, 50, 20], category=3)
    folder.box(1, [300, 10, 50, 20], iscrowd=1)
    (batch,) = _stream(folder, 1)
    assert batch.valid.tolist() == [[True] + [False] * 4] * 2 and batch.classes[0, 0] == 1
    folder.annotations.clear()
    folder.box(1, [0, 0, 12, 2])  # a corner that jitter often crops away
    batches = _stream(folder, 10, augmentation=DarknetAugmentation(jitter=0.4))
    counts = np.concatenate([batch.valid.sum(axis=1) for batch in batches])
    assert set(counts) == {0, 1}
    for batch in batches:
        assert not batch.boxes[~batch.valid].any() and np.isfinite(batch.boxes).all()


def test_more_than_max_boxes_trains_on_the_first(folder, caplog):
    folder.image(1)
    for number in range(7):
        folder.box(1, [number, 2, 10, 10])
    with caplog.at_level(logging.WARNING):
        dataset = _open(folder, on_bad="skip")
    batch = next(iter(_train_dataset(dataset, _split(folder), INPUT, STRETCH, "yxyx", 1, _from(0))))
    np.testing.assert_allclose(batch.boxes[1, :, 1] * 40, [0, 1, 2, 3, 4], atol=1e-5)
    assert batch.valid.numpy().all()


def test_evaluation_reads_every_image_once_and_fills_the_last_batch(seven):
    dataset = _open(seven)
    batches = list(eval_dataset(dataset, _eval_split(seven, 3), INPUT, LETTERBOX))
    assert [batch.example_id.numpy().tolist() for batch in batches] == [[10, 11, 12], [13, 14, 15], [16, -1, -1]]
    sizes = np.concatenate([batch.image_size for batch in batches])
    np.testing.assert_array_equal(sizes[:7], dataset.image_sizes)
    assert (sizes[7:] == 1).all() and not batches[-1].image[1:].numpy().any()
    stored = decode_image(tf.io.read_file(dataset.image_paths[4]))
    np.testing.assert_array_equal(batches[1].image[1], resize_image(stored, INPUT, LETTERBOX))
    assert len(list(eval_dataset(dataset, _eval_split(seven, 7), INPUT, LETTERBOX))) == 1


def test_aligned_corners_are_evaluated_in_float_and_trained_in_whole_levels(seven):
    dataset, protocol = _open(seven), STRETCH.model_copy(update={"interpolation": "align_corners"})
    batches = list(eval_dataset(dataset, _eval_split(seven, 3), INPUT, protocol))
    exact = resize_image(decode_image(tf.io.read_file(dataset.image_paths[4])), INPUT, protocol)
    assert exact.dtype == tf.float32 and np.modf(exact)[0].any()
    np.testing.assert_array_equal(batches[1].image[1], exact)
    assert batches[-1].image.dtype == tf.float32 and not batches[-1].image[1:].numpy().any()
    (trained,) = _stream(seven, 1, protocol)
    row = dataset.image_ids.tolist().index(trained.example_id[0])
    exact = resize_image(decode_image(tf.io.read_file(dataset.image_paths[row])), INPUT, protocol)
    np.testing.assert_array_equal(trained.image[0], np.rint(exact).astype(np.uint8))


@pytest.mark.parametrize("size", [(416, 416), (640, 640), (416, 608)])
def test_bytes_to_the_device_are_at_most_1_02_times_the_pixels(folder, size):
    folder.image(1)
    split = _split(folder, max_boxes=100, augmentation=AUGMENTATION)
    spec = _train_dataset(_open(folder, 100), split, size, STRETCH, "cxcywh", 1, _from(0)).element_spec
    total = sum(part.shape.num_elements() * part.dtype.size for part in tf.nest.flatten(spec))
    assert total <= 1.02 * 2 * size[0] * size[1] * 3


@pytest.mark.parametrize("damage", ["truncated", "gone", "other size"])
@pytest.mark.parametrize("training", [True, False])
def test_a_file_that_fails_in_mid_run_stops_the_stream_and_is_named(seven, damage, training):
    dataset, split = _open(seven), _split(seven)
    stream = (
        _train_dataset(dataset, split, INPUT, STRETCH, "cxcywh", 1, _from(0))
        if training
        else eval_dataset(dataset, _eval_split(seven, 2), INPUT, STRETCH)
    )
    rows = rows_of_steps(split, len(dataset), 1, 0, 4) if training else range(len(dataset))
    for row in rows:
        dataset.check(row)
    path = seven.root / "images" / "image_13.jpg"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:400])
    elif damage == "gone":
        path.unlink()
    else:
        seven.image(13, 64, 8)
    with pytest.raises(tf.errors.OpError):
        list(itertools.islice(stream, 4))
    because = "is 64 x 8 pixels .* but was 24 x 44" if damage == "other size" else "cannot be decoded"
    with pytest.raises(DataError, match=rf"image_13\.jpg \(image id 13\): {because}.* start the same command again"):
        for row in rows:
            dataset.check(row)


@pytest.mark.parametrize(
    "augmentation", [None, DarknetAugmentation(mosaic=0.5), DarknetAugmentation(mixup=1.0, jitter=0.2)]
)
def test_the_rows_of_steps_are_those_that_the_stream_reads(seven, augmentation, monkeypatch):
    dataset, split, read = _open(seven), _split(seven, augmentation=augmentation), []
    examples = dataset.examples("cxcywh")
    monkeypatch.setattr(examples, "read", lambda row: read.append(int(row)) or dataset.examples("cxcywh").read(row))
    make = Composer(examples, split, INPUT, STRETCH, "cxcywh", 11)
    for position in range(4, 10):
        make(tf.constant(position, tf.int64))
    assert rows_of_steps(split, len(dataset), 11, 2, 5) == list(dict.fromkeys(read))


@pytest.mark.parametrize("training", [True, False])
def test_nothing_but_the_assertion_keeps_state_so_that_deterministic_runs_stay_parallel(seven, training, monkeypatch):
    """A stateful op in the map makes tf.data's determinism read serially, and without prefetching."""
    functions, batched = [], pipeline.batched
    monkeypatch.setattr(pipeline, "batched", lambda *given: functions.append(given[1]) or batched(*given))
    if training:
        split = _split(seven, augmentation=AUGMENTATION)
        _train_dataset(_open(seven), split, INPUT, LETTERBOX, "cxcywh", 1, _from(0))
    else:
        eval_dataset(_open(seven), _eval_split(seven, 2), INPUT, LETTERBOX)
    untraced = tf.autograph.experimental.do_not_convert(functions[0])
    graph = tf.function(untraced, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64)).graph
    known = graph.as_graph_def().library.function  # branches
    used = {op.type for op in graph.get_operations()} | {node.op for function in known for node in function.node_def}
    used -= {function.signature.name for function in known}
    assert {name for name in used if op_def_registry.get(name).is_stateful} == {"Assert"}


def test_real_images_letterboxed_and_jittered_keep_their_boxes_inside_and_visible(shared):
    path = shared / "assets" / "coco_val" / "instances_val2017_80.json"
    source = CocoSource(annotations=str(path), images=str(path.parent / "images"))
    dataset = open_source(source, ("person", "dog"), "skip", 100)
    split = TrainSplit(source=source, batch_size=4, on_bad="skip", augmentation=AUGMENTATION)
    for batch in itertools.islice(_train_dataset(dataset, split, (96, 64), LETTERBOX, "cxcywh", 5, _from(0)), 20):
        boxes = batch.boxes.numpy()[batch.valid.numpy()]
        assert (boxes[:, 2:] * [64, 96] >= 1 - 1e-4).all() and (boxes[:, :2] - boxes[:, 2:] / 2 >= -1e-6).all()
        assert (boxes[:, :2] + boxes[:, 2:] / 2 <= 1 + 1e-6).all()
