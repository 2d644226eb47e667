import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from official.vision.interpolation import INTERPOLATIONS
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import (
    boxes_to_input,
    boxes_to_original,
    decode_image,
    normalise,
    pixel_type,
    placement,
    resize_image,
    whole_image,
    whole_levels,
)

LETTERBOX, STRETCH = EvaluationProtocol(resize="letterbox"), EvaluationProtocol(resize="stretch")


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def darknet_letterbox(image_size, input_size):
    """(offset, size) by the float comparison and integer divisions of Darknet's letterbox_image."""
    (height, width), (net_height, net_width) = image_size, input_size
    if np.float32(net_width) / np.float32(width) < np.float32(net_height) / np.float32(height):
        new_width, new_height = net_width, (height * net_width) // width
    else:
        new_height, new_width = net_height, (width * net_height) // height
    return ((net_height - new_height) // 2, (net_width - new_width) // 2), (new_height, new_width)


def bilinear_reference(image, size):
    """Half-pixel bilinear resize in float64, before rounding."""
    taps = []
    for source, target in zip(image.shape[:2], size, strict=True):
        centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.floor(centre).astype(int)
        taps.append((low, np.minimum(low + 1, source - 1), centre - low))
    (top, bottom, down), (left, right, across) = taps
    pixels = image.astype(np.float64)
    rows = pixels[top] * (1 - down)[:, None, None] + pixels[bottom] * down[:, None, None]
    return rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]


@pytest.mark.parametrize("protocol", [LETTERBOX, STRETCH])
@pytest.mark.parametrize("image_size", [(37, 23), (20, 50), (96, 160), (300, 211), (1, 7)])
def test_pixels_equal_an_independent_bilinear_resize(protocol, image_size):
    input_size = (96, 64)
    image = random_image(*image_size)
    result = resize_image(tf.constant(image), input_size, protocol).numpy()
    (top, left), size = darknet_letterbox(image_size, input_size) if protocol is LETTERBOX else ((0, 0), input_size)
    exact = np.full((*input_size, 3), 128.0)
    exact[top : top + size[0], left : left + size[1]] = bilinear_reference(image, size)
    # Half a grey level is rounding; the rest is what float32 coordinates lose.
    assert np.abs(result - exact).max() <= 0.51


def test_same_size_changes_nothing():
    image = random_image(64, 96)
    for protocol in (LETTERBOX, STRETCH):
        np.testing.assert_array_equal(resize_image(tf.constant(image), (64, 96), protocol), image)


def test_placement_is_darknets():
    generator = np.random.default_rng(1)
    sizes = np.concatenate([generator.integers(40, 2000, (500, 2)), [[480, 640], [640, 480], [416, 416], [427, 640]]])
    for input_size in ((416, 416), (320, 608)):
        placed = placement(tf.constant(sizes, tf.int32), input_size, LETTERBOX)
        expected = [darknet_letterbox(tuple(int(side) for side in size), input_size) for size in sizes]
        np.testing.assert_array_equal(placed.offset, [offset for offset, _ in expected])
        np.testing.assert_array_equal(placed.size, [size for _, size in expected])


RECORDED = [f"resize_{size}" for size in ("32x24", "64x64", "37x23", "16x8", "100x30", "37x50", "8x40")]
RECORDED += [f"letterbox_{size}" for size in ("32x24", "64x64", "20x60", "tall_64x64")]


@pytest.mark.parametrize("name", RECORDED)
def test_image_ops_equal_darknets(golden, name):
    recorded = np.load(golden("misc/image_ops.npz"))
    image = recorded["image_u8_chw"].transpose(1, 2, 0)
    if "tall" in name:
        image = image.transpose(1, 0, 2)
    width, height = (int(side) for side in name.split("_")[-1].split("x"))
    resize = "letterbox" if "letterbox" in name else "stretch"
    protocol = EvaluationProtocol(resize=resize, interpolation="align_corners")
    ours = normalise(resize_image(tf.constant(image), (height, width), protocol))
    np.testing.assert_allclose(ours, recorded[name].transpose(1, 2, 0), atol=1e-6)
    if resize == "letterbox":  # in whole levels: the same rectangle, grey around it
        levels = resize_image(tf.constant(image), (height, width), LETTERBOX).numpy()
        np.testing.assert_array_equal((levels == 128).all(axis=-1), (recorded[name] == 0.5).all(axis=0))


@pytest.mark.parametrize("name", ["yolo-fastest-1.1__000000037666", "yolov4-tiny__000000006040"])
def test_network_inputs_equal_darknets(golden, name):
    recorded = np.load(golden(f"infer/{name}.npz"))
    image = tf.constant(recorded["image_u8_chw"].transpose(1, 2, 0))
    side = recorded["letterbox/X"].shape[1]
    for mode, resize in (("resize", "stretch"), ("letterbox", "letterbox")):
        protocol = EvaluationProtocol(resize=resize, interpolation="align_corners")
        ours = normalise(resize_image(image, (side, side), protocol)).numpy().transpose(2, 0, 1)  # [3, side, side]
        if f"{mode}/X" in recorded:
            np.testing.assert_allclose(ours, recorded[f"{mode}/X"], atol=1e-6)
        if f"{mode}/X_sample" in recorded:
            at = recorded[f"{mode}/X_sample_idx"]
            np.testing.assert_allclose(ours.ravel()[at], recorded[f"{mode}/X_sample"], atol=1e-6)


def test_padding_value_is_the_protocols():
    image = tf.zeros([20, 50, 3], tf.uint8)
    result = resize_image(image, (96, 64), EvaluationProtocol(padding_value=7)).numpy()
    assert set(np.unique(result)) == {0, 7}
    assert (result[0] == 7).all() and (result[-1] == 7).all() and (result[48] == 0).all()
    for interpolation, level in (("bilinear", 128), ("opencv", 128), ("align_corners", 127.5)):  # Darknet's .5
        assert resize_image(image, (96, 64), EvaluationProtocol(interpolation=interpolation)).numpy()[0, 0, 0] == level


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("image_size", [(1, 1000), (1000, 1), (1, 1)])
def test_extreme_shapes_keep_at_least_one_pixel(image_size, interpolation):
    protocol = EvaluationProtocol(interpolation=interpolation)
    result = resize_image(tf.fill([*image_size, 3], tf.constant(255, tf.uint8)), (64, 96), protocol)
    assert result.shape == (64, 96, 3) and (result.numpy() == 255).any()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_static_shape_from_an_image_of_unknown_size(interpolation):
    protocol = EvaluationProtocol(interpolation=interpolation)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def resize(image):
        result = resize_image(image, (64, 96), protocol)
        assert result.shape == (64, 96, 3) and result.dtype == pixel_type(protocol)
        return result

    for size in ((30, 50), (50, 30)):
        image = tf.constant(random_image(*size))
        np.testing.assert_array_equal(resize(image), resize_image(image, (64, 96), protocol))


def test_whole_levels_round():
    levels = whole_levels(tf.constant([[[[0.4, 127.5, 254.6]]]]))
    np.testing.assert_array_equal(levels, [[[[0, 128, 255]]]])
    assert levels.dtype == tf.uint8


@pytest.mark.parametrize("protocol", [LETTERBOX, STRETCH])
def test_boxes_there_and_back(protocol):
    sizes = tf.constant([[30, 50], [480, 123], [0, 0]], tf.int32)  # the last is a padding row of a batch
    boxes = np.random.default_rng(0).random((3, 5, 4), np.float32)
    boxes[:, 0] = [0, 0, 1, 1]  # on the border
    boxes[:, 1] = [0.3, 0.4, 0.3, 0.4]  # degenerate
    boxes[:, 2] = 0  # padding
    there = boxes_to_input(tf.constant(boxes), sizes, whole_image(sizes), (64, 96), protocol)
    assert np.isfinite(there).all()
    np.testing.assert_allclose(boxes_to_original(there, sizes, (64, 96), protocol), boxes, atol=2e-6)


def test_no_boxes():
    empty, sizes = tf.zeros([2, 0, 4]), tf.constant([[30, 50], [50, 30]], tf.int32)
    assert boxes_to_input(empty, sizes, whole_image(sizes), (64, 96), LETTERBOX).shape == (2, 0, 4)
    assert boxes_to_original(empty, sizes, (64, 96), LETTERBOX).shape == (2, 0, 4)


def test_a_window_is_placed_as_an_image_of_its_size():
    """Boxes of a part of the image, relative to that part, are where boxes of that part as an image are."""
    sizes = tf.constant([[40, 80], [100, 50]], tf.int32)
    windows = tf.constant([[10, 20, 30, 50], [-5, -10, 120, 70]], tf.int32)
    inside = np.random.default_rng(0).random((2, 5, 4), np.float32)
    top_left, sides = np.tile(windows[:, :2], 2)[:, None], np.tile(windows[:, 2:], 2)[:, None]
    boxes = (inside * sides + top_left) / np.tile(sizes, 2)[:, None]
    for protocol in (LETTERBOX, STRETCH):
        ours = boxes_to_input(tf.constant(boxes, tf.float32), sizes, windows, (64, 96), protocol)
        parts = boxes_to_input(tf.constant(inside), windows[:, 2:], whole_image(windows[:, 2:]), (64, 96), protocol)
        np.testing.assert_allclose(ours, parts, atol=2e-6)
    # Stretching changes no bit of a relative box.
    stretched = boxes_to_input(tf.constant(inside), sizes, whole_image(sizes), (64, 96), STRETCH)
    np.testing.assert_array_equal(stretched, inside)


def test_normalise():
    images = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    np.testing.assert_array_equal(normalise(tf.constant(images)), images.astype(np.float32) / np.float32(255))


def test_boxes_in_the_padding_are_not_clipped():
    sizes = tf.constant([[20, 40]] * 2, tf.int32)  # fills rows 32 to 64 of 96
    found = boxes_to_original(tf.constant([[[0.0, -0.5, 1.0, 2.0]]] * 2), sizes, (96, 64), LETTERBOX)
    np.testing.assert_allclose(found, [[[-1, -0.5, 2, 2]]] * 2, atol=1e-6)


@pytest.mark.parametrize("protocol", [LETTERBOX, STRETCH])
def test_boxes_follow_their_pixels(protocol):
    """A white rectangle is, in the resized image, where the box map says."""
    height, width, input_size = 300, 170, (96, 160)
    top, left, bottom, right = 90, 20, 210, 120
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    box = tf.constant([[top / height, left / width, bottom / height, right / width]], tf.float32)
    image_size = tf.constant([height, width])
    mapped = boxes_to_input(box, image_size, whole_image(image_size), input_size, protocol)[0] * np.tile(input_size, 2)
    white = resize_image(tf.constant(image), input_size, protocol).numpy()[..., 0] > 200
    rows, columns = np.nonzero(white.any(axis=1))[0], np.nonzero(white.any(axis=0))[0]
    np.testing.assert_allclose(mapped, [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], atol=0.8)


def encoded(image, mode, file_format):
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, file_format)
    return tf.constant(buffer.getvalue())


def test_decode_png_of_any_kind_is_rgb():
    image = random_image(11, 17)
    np.testing.assert_array_equal(decode_image(encoded(image, "RGB", "PNG")), image)
    np.testing.assert_array_equal(decode_image(encoded(image, "RGBA", "PNG")), image)
    grey = decode_image(encoded(image, "L", "PNG")).numpy()
    np.testing.assert_array_equal(grey, np.stack([np.asarray(Image.fromarray(image).convert("L"))] * 3, axis=-1))


def test_decode_jpeg_agrees_with_pillow():
    smooth = np.asarray(Image.fromarray(random_image(4, 6)).resize((90, 60), Image.Resampling.BICUBIC))
    for mode in ("RGB", "L"):
        contents = encoded(smooth, mode, "JPEG")
        pillow = np.asarray(Image.open(io.BytesIO(contents.numpy())).convert("RGB")).astype(int)
        assert np.abs(decode_image(contents).numpy() - pillow).max() <= 4


@pytest.mark.parametrize("contents", [b"", b"not an image", b"\xff\xd8\xff\xe0 cut"])
def test_bytes_that_are_no_image_are_an_error(contents):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(contents))
