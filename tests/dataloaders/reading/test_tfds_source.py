"""TensorFlow Datasets: a builder over local files, converted to shards at its first use."""

import numpy as np
import pytest
from PIL import Image

from configs.data import TfdsSource, TfRecordSource
from dataloaders.reading.annotations import DataError
from dataloaders.reading.shards import write
from dataloaders.reading.sources import open_source

tfds = pytest.importorskip("tensorflow_datasets")
CLASSES = ("dot", "cell")
BOXES = [[0.1, 0.2, 0.5, 0.7], [0.0, 0.25, 1.0, 1.0], [0.3, 0.3, 0.4, 0.9]]  # ymin, xmin, ymax, xmax
LABELS = ["cell", "dot", "cell"]


class CellSet(tfds.core.GeneratorBasedBuilder):
    """The images of the folder that `files` names."""

    VERSION = tfds.core.Version("1.0.0")
    files = None  # (path, image id) of each image
    objects = True

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "image/id": np.int64}
        if self.objects:
            inner = {
                "area": np.float32,
                "bbox": tfds.features.BBoxFeature(),
                "is_crowd": np.bool_,
                "label": tfds.features.ClassLabel(names=["dot", "other", "cell"]),
            }
            features["objects"] = tfds.features.Sequence(inner)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, download_manager):
        return {"train": self._generate_examples(self.files), "validation": self._generate_examples(self.files[:3])}

    def _generate_examples(self, files):
        for number, (path, image_id) in enumerate(files):
            entries = zip(BOXES[: number % 4], LABELS, strict=False)
            objects = [
                {"area": 5.5, "bbox": tfds.features.BBox(*box), "is_crowd": place == 2, "label": label}
                for place, (box, label) in enumerate(entries)
            ]
            yield number, {"image": str(path), "image/id": image_id} | ({"objects": objects} if self.objects else {})


class PictureSet(CellSet):
    """The same without objects."""

    objects = False


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """data_dir of the builders, and image id -> file."""
    root, files = tmp_path_factory.mktemp("tfds"), {}
    for image_id in range(10, 17):
        size = (40 + 4 * (image_id % 2), 20 + 4 * (image_id % 3))  # width, height
        files[image_id] = root / f"{image_id}.jpg"
        Image.effect_noise(size, 50 + image_id).convert("RGB").save(files[image_id])
    for builder in (CellSet, PictureSet):
        builder.files = [(path, image_id) for image_id, path in files.items()]
        several_files = tfds.download.DownloadConfig(num_shards=3)
        builder(data_dir=str(root / "data")).download_and_prepare(download_config=several_files)
    return {"data_dir": str(root / "data"), "files": files}


def _source(prepared, tmp_path, name="cell_set", split="train"):
    return TfdsSource(name=name, split=split, data_dir=prepared["data_dir"], shards=str(tmp_path / "shards"))


def test_a_builder_becomes_shards_with_its_own_bytes_and_numbers(prepared, tmp_path, monkeypatch):
    source = _source(prepared, tmp_path)
    data = open_source(source, CLASSES, "skip", 5)
    assert sorted(data.image_ids.tolist()) == list(range(10, 17)) and data.category_ids == (0, 2)
    stored = {truth.image_id: (truth, encoded) for truth, encoded in data.stored(range(7))}
    for number, image_id in enumerate(range(10, 17)):
        truth, encoded = stored[image_id]
        assert encoded == prepared["files"][image_id].read_bytes()
        count = number % 4
        np.testing.assert_array_equal(truth.yxyx, np.float32(BOXES[:count]).reshape(-1, 4))
        assert truth.classes.tolist() == [CLASSES.index(label) for label in LABELS[:count]]
        assert truth.ignored.tolist() == [False, False, True][:count] == (~truth.trained).tolist()
        assert truth.areas.tolist() == [5.5] * count
        assert truth.name == f"cell_set:train[{data.image_ids.tolist().index(image_id)}]"
    monkeypatch.setattr(write, "_write_missing", None)  # a second use writes and reads nothing but the shards
    again = open_source(source, CLASSES, "skip", 5)
    assert again.ground_truth() == data.ground_truth()
    assert len(open_source(TfRecordSource(manifest=f"{source.shards}/train.json"), CLASSES, "skip", None)) == 7
    with pytest.raises(DataError, match=r"other settings: classes was \['dot', 'cell'\], now \['cell'\]"):
        open_source(source, ("cell",), "skip", 5)


def test_dropped_images_leave_the_others_their_own_bytes(prepared, tmp_path):
    CellSet.files = [(path, 12 if image_id == 13 else image_id) for image_id, path in prepared["files"].items()]
    CellSet(data_dir=str(tmp_path / "twice")).download_and_prepare()
    data = open_source(_source(prepared | {"data_dir": str(tmp_path / "twice")}, tmp_path), CLASSES, "skip", 5)
    assert len(data) == 6 and "duplicate_image" in str(data.report)
    for truth, encoded in data.stored(range(6)):
        candidates = [path.read_bytes() for path, image_id in CellSet.files if image_id == truth.image_id]
        assert encoded in candidates


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("cell_sett", "train", r"knows no data set 'cell_sett'.*; did you mean 'cell_set'\?"),
        ("cell_set", "vali", r"no split is named 'vali'.*; it has: train, validation"),
        ("cell_set", "validatoin", r"did you mean 'validation'\?"),
        ("picture_set", "train", r"lacks objects/bbox .*objects/label \(ClassLabel\); it has: .*image"),
        ("mnist", "train", r"mnist: is not prepared in .*tfds build mnist"),
    ],
)
def test_what_cannot_be_used(prepared, tmp_path, name, split, message):
    with pytest.raises(DataError, match=message):
        open_source(_source(prepared, tmp_path, name, split), CLASSES, "skip", 5)
    assert not (tmp_path / "shards").exists()


def test_a_class_that_is_no_label(prepared, tmp_path):
    with pytest.raises(DataError, match=r"no label is named 'cells' \(data.classes\); did you mean 'cell'\?"):
        open_source(_source(prepared, tmp_path), ("cells",), "skip", 5)
