"""Shards: what survives the conversion, what the stream is, what is refused, what is held in memory."""

import dataclasses
import itertools
import json
import logging
import math
import threading
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.experimental.ops import testing

from configs.data import DarknetAugmentation, DarknetSource, Split, TfRecordSource, TrainSplit
from dataloaders.compose.composer import Composer
from dataloaders.compose.recipes import rows_of_steps
from dataloaders.pipeline import eval_dataset, train_dataset
from dataloaders.reading.annotations import DataError
from dataloaders.reading.dataset import Truth, in_parallel
from dataloaders.reading.shards import write
from dataloaders.reading.shards.layout import index_path
from dataloaders.reading.shards.reader import open_shards
from dataloaders.reading.shards.record import serialize
from dataloaders.reading.shards.write import write_shards
from dataloaders.reading.sources import open_source
from official.vision.protocol import EvaluationProtocol

CLASSES = ("cell", "dot")
INPUT = (32, 64)
REQUEST = {"source": "a test's", "classes": list(CLASSES), "on_bad": "skip"}


def _convert(dataset, directory, shards=3, name="train", **request):
    return write_shards(lambda: dataset, REQUEST | request, str(directory), name, shards, workers=2)


def _open(folder, max_boxes=None, on_bad="skip"):
    return open_source(folder.source, CLASSES, on_bad, max_boxes)


def _reopen(manifest, max_boxes=None, on_bad="skip", classes=CLASSES):
    return open_source(TfRecordSource(manifest=str(manifest)), classes, on_bad, max_boxes)


def _darknet(folder):
    """The folder's images as Darknet's data, with numbers that float32 rounds and a box that reaches out."""
    for number, image in enumerate(folder.images):
        path = folder.root / "images" / image["file_name"]
        lines = [f"{number % 2} 0.3333333 0.41 0.123456789 0.3", f"1 0.7 0.55 0.2{number} 0.1", "0 0.99 0.5 0.03 0.2"]
        path.with_suffix(".txt").write_text("\n".join(lines[: number % 4]))
    (folder.root / "list.txt").write_text("\n".join(f"{folder.root}/images/{i['file_name']}" for i in folder.images))
    (folder.root / "x.names").write_text("\n".join(CLASSES))
    (folder.root / "x.data").write_text(f"train = {folder.root}/list.txt\nnames = {folder.root}/x.names\n")
    return DarknetSource(data=str(folder.root / "x.data"), split="train")


def _assert_same(ours, others):
    assert len(ours) == len(others)
    for one, other in zip(tf.nest.flatten(ours), tf.nest.flatten(others), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)


def _crowded(folder):
    folder.box(13, [10.1, 3.7, 4.3, 5.9], area=7.7, iscrowd=1)
    folder.box(11, [-5, 3.3, 12.7, 5.9])  # clipped at the door
    return folder


@pytest.mark.parametrize("kind", ["coco", "darknet"])
def test_all_that_the_door_let_in_survives_bit_by_bit(seven, tmp_path, kind):
    source = _darknet(seven) if kind == "darknet" else _crowded(seven).source
    files = open_source(source, CLASSES, "skip", None)
    shards = _reopen(_convert(files, tmp_path / "out"))
    assert len(shards) == len(files) == 7
    assert (shards.class_names, shards.category_ids) == (files.class_names, files.category_ids)
    assert dataclasses.replace(shards.report, where="") == dataclasses.replace(files.report, where="")
    assert files.report.where in shards.report.where and ("partly_outside" in str(shards.report)) == (kind == "coco")
    np.testing.assert_array_equal(shards.image_ids, files.image_ids)
    truths, others = (list(data.stored(range(7))) for data in (shards, files))
    _assert_same([tuple(truth) for truth, _ in truths], [tuple(truth) for truth, _ in others])
    assert [encoded for _, encoded in truths] == [encoded for _, encoded in others]
    assert shards.ground_truth() == files.ground_truth()
    for form, row in itertools.product(("yxyx", "cxcywh", "xyxy_pixels"), range(7)):
        examples = [data.examples(form).read(tf.constant(row, tf.int64)) for data in (shards, files)]
        _assert_same(*(tuple(part.numpy() for part in example) for example in examples))
    name = shards.example_name(int(files.image_ids[2]))
    assert name.startswith(files.image_paths[2]) and name.endswith("train-00001-of-00003.tfrecord, record 0)")


def test_shards_of_shards_are_the_same_truth(seven, tmp_path):
    first = _reopen(_convert(_open(seven), tmp_path / "a", 2))
    second = _reopen(_convert(first, tmp_path / "b", 5))
    one, other = (list(data.stored(range(2, 6))) for data in (first, second))
    _assert_same([(*truth, encoded) for truth, encoded in one], [(*truth, encoded) for truth, encoded in other])


def test_the_records_are_tf_examples_that_anyone_can_read(seven, tmp_path):
    manifest = _convert(_open(seven), tmp_path, 2)
    names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("train"))
    shards = [f"train-{number:05d}-of-00002" for number in range(2)]
    assert names == sorted([*(f"{s}.tfrecord" for s in shards), *(f"{s}.index.json" for s in shards), "train.json"])
    records = list(tf.data.TFRecordDataset([str(tmp_path / f"{name}.tfrecord") for name in shards]).as_numpy_iterator())
    feature = tf.train.Example.FromString(records[6]).features.feature
    assert feature["image/encoded"].bytes_list.value[0] == (seven.root / "images" / "image_16.jpg").read_bytes()
    assert feature["image/source_id"].bytes_list.value[0] == b"16"
    assert feature["image/object/class/text"].bytes_list.value[0] == b"dot"
    assert feature["image/object/bbox/ymin"].float_list.value[0] == pytest.approx(3.25 / 24)
    assert _reopen(manifest).place(6) == f"{tmp_path}/train-00001-of-00002.tfrecord, record 3"


def test_files_and_shards_give_the_same_bytes_in_training_and_evaluation(seven, tmp_path):
    files = _open(_crowded(seven), max_boxes=4)
    shards = _reopen(_convert(_open(seven), tmp_path / "out"), max_boxes=4)
    augmentation, protocol = (
        DarknetAugmentation(jitter=0.3, hue=0.1, exposure=1.5),
        EvaluationProtocol(resize="letterbox"),
    )

    def stream(data, threads, start=0, shard=(0, 1)):
        split = TrainSplit(source=seven.source, batch_size=4, max_boxes=4, threads=threads, augmentation=augmentation)
        make = Composer(data.examples("cxcywh"), split, INPUT, protocol, "cxcywh", 11)
        steps = tf.data.Dataset.counter(np.int64(start), dtype=tf.int64)
        batches = in_parallel(tf.data.INFINITE_CARDINALITY, lambda: train_dataset(make, split, steps, shard))
        return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in itertools.islice(batches, 5)]

    expected = stream(files, 2)
    _assert_same(stream(shards, 1), expected)
    second_host = [tf.nest.map_structure(lambda rows: rows[2:], batch) for batch in expected[3:]]
    _assert_same(stream(shards, None, start=3, shard=(1, 2))[:2], second_host)
    split = Split(source=seven.source, batch_size=3, threads=2)

    def evaluated(data):
        return list(in_parallel(3, lambda: eval_dataset(data, split, INPUT, protocol)))

    _assert_same(evaluated(shards), evaluated(files))


def test_deterministic_runs_read_shards_in_parallel(seven, tmp_path):
    """The premise of `in_parallel`: without it the map becomes a serial one."""
    examples = _reopen(_convert(_open(seven), tmp_path / "out")).examples("yxyx")

    def build(kind):
        rows = tf.data.Dataset.range(7).apply(testing.assert_next([kind]))
        read = tf.autograph.experimental.do_not_convert(lambda row: examples.read(row).example_id)
        return rows.map(read, num_parallel_calls=2, deterministic=True)

    nested = in_parallel(7, lambda: build("ParallelMap"))
    assert int(nested.cardinality()) == 7
    assert [int(number) for number in nested] == list(range(10, 17)) == [int(number) for number in build("Map")]


def test_more_boxes_than_max_boxes_are_reported_or_refused(seven, tmp_path, caplog):
    manifest = _convert(_open(seven), tmp_path / "out")
    with pytest.raises(DataError, match=r"1 x too_many_boxes: .* image ids 16 \(image_16.jpg\)"):
        _reopen(manifest, max_boxes=4, on_bad="fail")
    with caplog.at_level(logging.WARNING):
        shards = _reopen(manifest, max_boxes=4)
    assert "too_many_boxes" in caplog.text
    files = _open(seven, max_boxes=4)
    assert dataclasses.replace(shards.report, where="") == dataclasses.replace(files.report, where="")
    read = [data.examples("cxcywh").read(tf.constant(6, tf.int64)).boxes for data in (shards, files)]
    assert read[0].shape == (4, 4)
    np.testing.assert_array_equal(*read)
    assert len(shards.ground_truth()["annotations"]) == len(files.ground_truth()["annotations"])


def test_faults_of_the_source_are_in_the_report_and_refused_where_the_split_says_so(seven, tmp_path):
    seven.box(12, [5, 5, 0, 3])
    manifest = _convert(_open(seven), tmp_path / "out")
    assert "1 x zero_area_box" in str(_reopen(manifest).report)
    with pytest.raises(DataError, match=r"converted from .*instances\.json: the data has faults:\n.*zero_area_box"):
        _reopen(manifest, on_bad="fail")


def test_conversion_again_does_nothing_and_the_bytes_are_the_same_each_time(seven, tmp_path):
    manifest = _convert(_open(seven), tmp_path / "a")
    assert _convert(None, tmp_path / "a") == manifest
    _convert(_open(seven), tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_killed_conversion_goes_on_with_the_missing_shards(seven, tmp_path, monkeypatch):
    _convert(_open(seven), tmp_path / "whole")
    written, serial = [], threading.Lock()

    def killed(truth: Truth, encoded: bytes, names: tuple[str, ...]) -> bytes:
        if truth.image_id == 15:
            raise KeyboardInterrupt
        return serialize(truth, encoded, names)

    out = tmp_path / "out"
    monkeypatch.setattr(write, "serialize", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shards(lambda: _open(seven), REQUEST, str(out), "train", 3, workers=1)
    assert (out / "train-00001-of-00003.tfrecord").exists() and not (out / "train-00002-of-00003.tfrecord").exists()
    assert not (out / "train.json").exists()
    (out / "train-00001-of-00003.index.json").unlink()  # as if killed between shard and index
    stamp = (out / "train-00000-of-00003.tfrecord").stat().st_mtime_ns
    with pytest.raises(DataError, match=r"conversion with other settings: shards was 3, now 2. Repeat these"):
        _convert(_open(seven), out, 2)
    with pytest.raises(DataError, match=r"other settings: on_bad was 'skip', now 'fail'"):
        _convert(_open(seven), out, on_bad="fail")

    def noted(truth: Truth, encoded: bytes, names: tuple[str, ...]) -> bytes:
        with serial:
            written.append(truth.image_id)
        return serialize(truth, encoded, names)

    monkeypatch.setattr(write, "serialize", noted)
    _convert(_open(seven), out)
    assert sorted(written) == [12, 13, 14, 15, 16]
    assert (out / "train-00000-of-00003.tfrecord").stat().st_mtime_ns == stamp
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    with pytest.raises(DataError, match=r"other settings: shards was 3, now 2"):
        _convert(_open(seven), out, 2)


def test_annotations_that_change_in_between_stop_the_conversion(seven, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "_write_missing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        _convert(_open(seven), tmp_path / "out")
    monkeypatch.undo()
    seven.box(10, [1, 2, 3, 4])
    with pytest.raises(DataError, match=r"the annotations have changed since this conversion began"):
        _convert(_open(seven), tmp_path / "out")


def test_an_image_that_vanishes_and_too_many_shards(seven, tmp_path):
    files = _open(seven)
    (seven.root / "images" / "image_16.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_16\.jpg"):
        _convert(files, tmp_path / "out")
    assert not (tmp_path / "out" / "train.json").exists()
    with pytest.raises(DataError, match=r"8 shards for 7 images"):
        _convert(files, tmp_path / "other", 8)
    assert not (tmp_path / "other").exists()  # nothing stands in the way of another number


@pytest.fixture
def manifest(seven, tmp_path):
    return tmp_path / "out" / "train.json", _convert(_open(seven), tmp_path / "out")


def _shard(manifest, number):
    return manifest[0].with_name(f"train-{number:05d}-of-00003.tfrecord")


def _foreign(path, size=None):
    with tf.io.TFRecordWriter(str(path)) as writer:
        feature = {"data": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x" * (size or 9)]))}
        writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def test_damaged_sets_are_told_when_they_are_opened(manifest, tmp_path):
    first, last = _shard(manifest, 0), _shard(manifest, 2)
    whole = first.read_bytes()
    offsets = json.loads(first.with_suffix(".index.json").read_text())["offsets"]
    first.write_bytes(whole[: offsets[1] + 30])
    with pytest.raises(
        DataError, match=r"train-00000-of-00003.tfrecord: is cut in or before record 1: it has \d+ bytes"
    ):
        _reopen(manifest[1])
    first.write_bytes(whole + b"1")
    with pytest.raises(DataError, match=r"is too long"):
        _reopen(manifest[1])
    first.write_bytes(bytes(len(whole)))
    with pytest.raises(DataError, match=r"00000-of-00003\.tfrecord: is no shard that .* foreign or damaged TFRecord"):
        _reopen(manifest[1])
    first.unlink()
    last.with_suffix(".index.json").unlink()
    missing = r"2 of its 6 files are missing: .*train-00000-of-00003.tfrecord, .*train-00002-of-00003.index.json"
    with pytest.raises(DataError, match=missing):
        _reopen(manifest[1])


def test_an_index_of_another_shard_or_conversion(manifest, seven, tmp_path):
    path = _shard(manifest, 0).with_suffix(".index.json")
    whole = path.read_text()
    path.write_text(_shard(manifest, 1).with_suffix(".index.json").read_text())
    with pytest.raises(DataError, match=r"train-00000-of-00003|do not follow"):
        _reopen(manifest[1])
    path.write_text(whole.replace('"conversion": "', '"conversion": "0'))
    with pytest.raises(DataError, match=r"the index of another conversion"):
        _reopen(manifest[1])
    for damage in (whole[:90], whole.replace('"offsets": [0, ', '"offsets": ['), whole.replace("offsets", "ofsets")):
        path.write_text(damage)
        with pytest.raises(DataError, match=r"train-00000-of-00003.index\.json: (is not the index|damaged)"):
            _reopen(manifest[1])


def test_a_foreign_tfrecord_is_no_manifest_and_no_shard(manifest, tmp_path):
    _foreign(tmp_path / "foreign.tfrecord")
    with pytest.raises(DataError, match=r"foreign\.tfrecord: is not the manifest .* another origin must be converted"):
        _reopen(tmp_path / "foreign.tfrecord")
    path = _shard(manifest, 1)
    _foreign(path)
    index = json.loads(path.with_suffix(".index.json").read_text())
    index.update(bytes=path.stat().st_size, records=1, offsets=[0], image_ids=[12], trained_boxes=[0])
    path.with_suffix(".index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"00001-of-00003\.tfrecord: is no shard that .* a foreign or damaged TFRecord"):
        _reopen(manifest[1])
    with pytest.raises(FileNotFoundError, match=r"the manifest of a sharded split .*gone\.json"):
        _reopen(tmp_path / "gone.json")


def test_other_classes_than_the_experiments(manifest):
    with pytest.raises(DataError, match=r"did you mean 'cell' by 'cel'\?; the shards have: cell, dot"):
        _reopen(manifest[1], classes=("cel", "dot"))
    with pytest.raises(DataError, match=r"in another order"):
        _reopen(manifest[1], classes=("dot", "cell"))
    with pytest.raises(DataError, match=r"other classes"):
        _reopen(manifest[1], classes=("cell",))


@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_a_record_that_fails_in_mid_run_stops_the_stream_and_is_named(manifest, damage):
    shards = _reopen(manifest[1])
    examples = shards.examples("yxyx")
    read = tf.autograph.experimental.do_not_convert(lambda row: examples.read(row).encoded)
    stream = in_parallel(7, lambda: tf.data.Dataset.range(7).map(read, num_parallel_calls=2))
    path, where = _shard(manifest, 1), int(shards.offsets[3]) + 300
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data) if damage == "bit" else path.write_bytes(data[:where]) if damage == "cut" else path.unlink()
    with pytest.raises(tf.errors.OpError):
        list(stream)
    for row in (0, 1, 4, 5, 6) if damage != "gone" else (0, 1, 5):
        shards.check(row) if row != 4 or damage == "bit" else None
    with pytest.raises(DataError, match=r"train-00001-of-00003.tfrecord, record 1 \(image id 13\): cannot be read: .*"):
        shards.check(3)
    with pytest.raises(DataError, match=r"train-00001-of-00003.tfrecord, record [01] .*Convert again"):
        shards.ground_truth()


def test_a_name_is_read_whatever_lies_before_it(manifest):
    shards, path = _reopen(manifest[1]), _shard(manifest, 2)
    data = bytearray(path.read_bytes())
    data[300] ^= 1  # in the first of its records
    path.write_bytes(data)
    assert shards.example_name(14) == f"{path}, record 0"
    assert shards.example_name(15).endswith(f"image_15.jpg ({path}, record 1)")


def test_the_check_of_the_steps_reads_their_rows_in_the_streams_order(seven):
    split = TrainSplit(source=seven.source, batch_size=2, max_boxes=5)
    files = _open(seven)
    make = Composer(files.examples("cxcywh"), split, INPUT, EvaluationProtocol(), "cxcywh", 11)
    stream = train_dataset(make, split, tf.data.Dataset.range(2, 9))
    expected = np.concatenate([batch.example_id for batch in stream]).tolist()
    rows = rows_of_steps(split, 7, 11, 2, 9)
    assert files.image_ids[rows].tolist() == list(dict.fromkeys(expected))


def test_shards_of_any_file_system(seven):
    manifest = _convert(_open(seven), "ram://shards/of/seven", 2)
    assert manifest == "ram://shards/of/seven/train.json"
    shards = _reopen(manifest)
    assert shards.ground_truth() == _open(seven).ground_truth()
    shards.check(6)
    with tf.io.gfile.GFile(shards.files[0], "rb") as file:
        data = file.read()
    tf.io.gfile.remove(shards.files[0])
    with tf.io.gfile.GFile(shards.files[0], "wb") as file:
        file.write(data[:-1])
    with pytest.raises(DataError, match=r"ram://shards/of/seven/train-00000-of-00002\.tfrecord: is cut"):
        _reopen(manifest)


def test_memory_is_that_of_the_index(tmp_path):
    """200,000 images with 3 boxes and 2,000 bytes of file each: 400 MB of data, of which nothing is held."""
    count, shards = 200_000, 4
    truth = Truth("a.jpg", 0, (24, 40), np.ones((3, 4)), np.ones(3), *np.zeros((2, 3, 4), np.float32),
                  np.zeros(3, np.int32), np.zeros(3, bool), np.ones(3, bool))  # fmt: skip
    length = len(serialize(truth, bytes(2_000), CLASSES)) + write.RECORD_FRAME
    manifest, per_shard = tmp_path / "big.json", count // shards
    for number in range(shards):
        path = tmp_path / f"big-{number:05d}-of-{shards:05d}.tfrecord"
        first = number * per_shard
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(serialize(truth._replace(image_id=first), bytes(2_000), CLASSES))
        start = path.stat().st_size  # an id is stored in as many bytes as it needs
        offsets = np.concatenate([[0], start + length * np.arange(per_shard)]).astype(np.int64)
        with path.open("r+b") as file:
            file.truncate(offsets[-1])  # a hole: what is not read is not needed
        ids = np.arange(first, first + per_shard)
        write.write_index(index_path(str(path)), write.Index("c", first, ids, np.full(per_shard, 3, np.int32), offsets))
    report = {"where": "", "images": count, "boxes": 0, "kept_images": count, "kept_boxes": 0, "findings": []}
    content = {"format": write.MANIFEST_FORMAT, "images": count, "shards": shards, "classes": list(CLASSES)}
    manifest.write_text(json.dumps(content | {"category_ids": [0, 1], "conversion": "c", "report": report}))
    tracemalloc.start()
    try:
        data = open_shards(str(manifest), CLASSES, "fail", 5)
        examples = data.examples("cxcywh")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    tensors = sum(value.dtype.size * math.prod(value.shape) for value in vars(examples).values() if tf.is_tensor(value))
    assert held < 50 * count and tensors < 20 * count
    assert len(examples) == count and int(examples.read(tf.constant(150_000, tf.int64)).example_id) == 150_000
