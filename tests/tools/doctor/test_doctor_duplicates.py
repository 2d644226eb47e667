"""Copies and likenesses, within a split and across: found, told apart, and not seen where there are none."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tests.tools.doctor.conftest import noise
from tools.doctor.duplicates import LEAST_CORRELATION, MOST_BITS, likeness_before, picture_hashes
from tools.doctor.images import look_inside


def _jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


VARIANTS = {
    "encoded anew": lambda image: _jpeg(image, 20),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "stretched": lambda image: image.resize((image.width, image.width)),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def _add(folder, image_id, image):
    path = folder.image(image_id, image.height, image.width, "png")
    image.save(path)
    folder.box(image_id, [3, 2, 16, 12.5])
    return str(path)


def _kinds(diagnosis):
    return {finding.kind: (finding.severity, finding.split, finding.count) for finding in diagnosis.findings}


def test_a_copy_in_the_other_split_is_a_leak(patient):
    source, target = patient.train.root / "images" / "image_100.jpg", patient.validation.image(1, 48, 80)
    shutil.copy(source, target)
    finding = patient.finds("leak")
    assert (finding.severity, finding.split, finding.count) == ("fault", "train, validation", 1)
    assert finding.where == (f"{target} = {source}",) and "copied into both splits" in finding.cause
    assert "1 of 11 images" in finding.what


def test_the_same_source_twice(patient):
    patient.validation = patient.train
    assert patient.finds("leak").count == 12 and "read the same files" in patient.finds("leak").cause


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_likeness_in_the_other_split_is_a_leak(patient, variant):
    first = _add(patient.train, 1, noise(5, 96, 144))
    second = _add(patient.validation, 2, VARIANTS[variant](noise(5, 96, 144)))
    diagnosis = patient.diagnose()
    assert _kinds(diagnosis) == {"near_leak": ("fault", "train, validation", 1)}
    assert diagnosis.findings[0].where == (f"{second} = {first}",)


def test_within_a_split_it_is_a_warning(patient):
    _add(patient.train, 1, noise(5))
    _add(patient.train, 2, noise(5))
    _add(patient.train, 3, noise(5).resize((100, 60)))
    assert _kinds(patient.diagnose()) == {
        "duplicate_files": ("warning", "train", 1),
        "near_duplicates": ("warning", "train", 1),
    }


def test_a_leak_is_found_behind_a_likeness_in_the_same_split(patient):
    _add(patient.train, 1, noise(5))
    _add(patient.validation, 2, noise(5).resize((100, 60)))
    _add(patient.validation, 3, noise(5).resize((120, 72)))
    assert _kinds(patient.diagnose()) == {"near_leak": ("fault", "train, validation", 2)}


def test_flat_pictures_are_not_alike(patient):
    for image_id, level in ((1, 40), (2, 200)):
        _add(patient.train, image_id, Image.new("RGB", (80, 48), (level, level, level)))
    assert _kinds(patient.diagnose()) == {"one_colour": ("warning", "train", 2)}


def test_the_buckets_lose_nothing():
    """Against all pairs: clusters of pictures with noise of many strengths."""
    random = np.random.default_rng(0)
    centres = random.integers(0, 256, (12, 32, 32)).astype(np.float64)
    strength = random.uniform(0, 80, (12, 25, 1, 1))
    pictures = centres[:, np.newaxis] + strength * random.standard_normal((12, 25, 32, 32))
    thumbnails = np.clip(pictures, 0, 255).astype(np.uint8).reshape(-1, 32, 32)
    thumbnails = thumbnails[random.permutation(len(thumbnails))]
    hashes = picture_hashes(thumbnails)
    small = thumbnails.reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(-1, 256)
    alike = np.bitwise_count(hashes[:, np.newaxis] ^ hashes) <= MOST_BITS
    alike &= np.corrcoef(small) >= LEAST_CORRELATION
    alike &= np.tri(len(hashes), k=-1, dtype=bool)  # an earlier one
    assert 20 < alike.any(1).sum() < 280
    for preferred in (150, len(hashes)):
        before = likeness_before(thumbnails, preferred)
        has_one = before < np.arange(len(before))
        np.testing.assert_array_equal(has_one, alike.any(1))
        assert alike[has_one, before[has_one]].all()
        np.testing.assert_array_equal(before[has_one] < preferred, alike[has_one, :preferred].any(1))


def test_photographs(shared, tmp_path):
    """80 of COCO: none is like another; each of 8 is like its variants."""
    paths = sorted((shared / "assets" / "coco_val" / "images").glob("*.jpg"))
    thumbnails = [look_inside(str(path)).thumbnail for path in paths]
    for path in paths[:8]:
        for variant in VARIANTS.values():
            variant(Image.open(path).convert("RGB")).save(tmp_path / "a.jpg", quality=90)
            thumbnails.append(look_inside(str(tmp_path / "a.jpg")).thumbnail)
    before = likeness_before(np.array(thumbnails), len(paths))
    np.testing.assert_array_equal(before, [*range(80), *np.repeat(np.arange(8), len(VARIANTS))])
