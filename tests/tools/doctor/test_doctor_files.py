"""Files that are damaged or stored in an odd way, each planted, found, and named with its cause."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from official.vision.resize import decode_image
from tests.tools.doctor.conftest import noise
from tools.doctor.images import look_inside


def _encoded(image, ending="jpeg", **options):
    buffer = io.BytesIO()
    image.save(buffer, ending, **options)
    return buffer.getvalue()


def _decoded(contents):
    return decode_image(tf.constant(contents)).numpy()


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _encoded(noise(1), exif=exif)


def _damaged_png():
    contents = _encoded(noise(1), "png")
    middle = len(contents) // 2
    return contents[:middle] + bytes([contents[middle] ^ 255]) + contents[middle + 1 :]


def _padded_torso():
    contents = _encoded(noise(1), quality=90)
    return contents[: len(contents) * 2 // 3] + b"\xff\xd9"


def _sixteen_bits():
    return _encoded(Image.fromarray(np.arange(48 * 80, dtype=np.uint16).reshape(48, 80) * 17), "png")


def _transparent():
    image = noise(1).convert("RGBA")
    image.putalpha(0)
    return _encoded(image, "png")


def _big_grey():
    return _encoded(noise(1, 60, 80).convert("L").resize((4000, 3000), Image.Resampling.NEAREST), quality=30)


PLANTS = {  # kind: (bytes, ending, severity, size, part of the message)
    "unreadable_image": (b"%PDF-1.4" + bytes(500), "jpg", "fault", (48, 80), "training does not start"),
    "truncated_image": (_encoded(noise(1))[:-40], "jpg", "fault", (48, 80), "training does not start"),
    "wrong_image_size": (_encoded(noise(1, 48, 88)), "jpg", "fault", (48, 80), "another size"),
    "undecodable_image": (_damaged_png(), "png", "fault", (48, 80), "cannot be decoded"),
    "cut_short": (_padded_torso(), "jpg", "fault", (48, 80), "stops before its last row"),
    "exif_rotated": (_turned(3), "jpg", "warning", (48, 80), "is not applied"),
    "sixteen_bits": (_sixteen_bits(), "png", "warning", (48, 80), "upper 8 are kept"),
    "cmyk": (_encoded(noise(1).convert("CMYK")), "jpg", "warning", (48, 80), "becomes RGB"),
    "dark": (_encoded(noise(1).point(lambda level: level // 20)), "jpg", "warning", (48, 80), "brighter than level 15"),
    "one_colour": (_encoded(Image.new("RGB", (80, 48), (200, 30, 60))), "jpg", "warning", (48, 80), "same colour"),
    "alpha": (_transparent(), "png", "note", (48, 80), "transparency"),
    "grey": (_big_grey(), "jpg", "note", (3000, 4000), "all three channels"),
}


@pytest.mark.parametrize("kind", PLANTS)
def test_a_file_is_found(patient, kind):
    contents, ending, severity, (height, width), message = PLANTS[kind]
    path = patient.train.image(1, height, width, ending)
    patient.train.box(1, [1, 1, 20, 20])
    path.write_bytes(contents)
    finding = patient.finds(kind)
    assert (finding.severity, finding.split, finding.count) == (severity, "train", 1)
    assert message in finding.what and str(path) in finding.where[0]
    assert finding.cause or finding.remedy or severity == "note"


def test_a_missing_file(patient):
    patient.validation.image(1).unlink()
    finding = patient.finds("missing_image")
    assert (finding.severity, finding.split) == ("fault", "validation") and "wrong folder" in finding.cause


def test_clean_data_has_no_faults_or_warnings(patient):
    patient.train.image(1, 1, 1)  # an image of one pixel is no fault in itself
    assert [finding.kind for finding in patient.diagnose().findings] == ["one_colour", "images_without_boxes"]


def test_what_the_pipeline_makes_of_odd_files():
    """The claims of the findings."""
    upright = _encoded(noise(1))
    np.testing.assert_array_equal(_decoded(_turned(6)), _decoded(upright))
    sixteen = np.arange(48 * 80, dtype=np.uint16).reshape(48, 80) * 17
    np.testing.assert_array_equal(_decoded(_sixteen_bits()), np.repeat((sixteen >> 8)[..., np.newaxis], 3, axis=2))
    np.testing.assert_array_equal(_decoded(_transparent()), np.asarray(noise(1)))
    grey = noise(1).convert("L")
    np.testing.assert_array_equal(_decoded(_encoded(grey, "png")), np.asarray(grey.convert("RGB")))
    cmyk = _encoded(noise(1).convert("CMYK"), quality=100)
    stored = np.asarray(Image.open(io.BytesIO(cmyk))).astype(np.float64)  # Pillow's C is 255 less the file's
    expected = (255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255
    np.testing.assert_allclose(_decoded(cmyk), expected, atol=1)
    torso = _decoded(_padded_torso())
    assert (torso[-8:] == torso[-1, -1]).all() and torso.shape == (48, 80, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_picture_with_a_flat_bottom_is_not_cut(tmp_path, progressive):
    pixels = np.array(noise(1))
    pixels[-20:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=90, progressive=progressive)
    facts = look_inside(str(tmp_path / "a.jpg"))
    assert facts.problem == "" and facts.traits == () and facts.size == (48, 80)


def test_an_annotation_made_on_the_turned_picture(patient):
    path = patient.train.image(1, 80, 48)  # as a viewer shows it; stored as 48 x 80
    patient.train.box(1, [1, 40, 20, 30])
    path.write_bytes(_turned(6))
    assert "EXIF" in patient.finds("wrong_image_size").cause


def test_exchanged_height_and_width(patient):
    patient.train.image(1, 48, 80)
    patient.train.images[-1] |= {"height": 80, "width": 48}
    assert "exchanged in 100 %" in patient.finds("wrong_image_size").cause


def test_what_is_skipped_knowingly_is_no_fault(patient):
    patient.train.image(1).unlink()
    patient.train.box(100, [0, 0, 0, 5])
    diagnosis = patient.diagnose("task.data.train.on_bad=skip")
    assert {finding.kind: finding.severity for finding in diagnosis.findings} == {
        "missing_image": "warning", "zero_area_box": "warning",
    }  # fmt: skip
    assert not diagnosis.has_faults


def test_nothing_left_is_a_fault_however_it_is_skipped(patient):
    for entry in patient.train.images:
        (patient.train.root / "images" / entry["file_name"]).unlink()
    diagnosis = patient.diagnose("task.data.train.on_bad=skip")
    assert [finding.kind for finding in diagnosis.findings if finding.severity == "fault"] == ["no_image"]
    assert diagnosis.anchors.skipped


def test_an_empty_annotation_file(patient):
    patient.train.images.clear()
    assert patient.finds("no_image").count == 0
