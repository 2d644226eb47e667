"""Flip and colour: draws as a distribution, pixels against float64 NumPy and recorded Darknet output."""

import numpy as np
import pytest
import tensorflow as tf

from configs.data import DarknetAugmentation
from dataloaders.augment.colour import apply_colour, draw_colour
from dataloaders.augment.compiled import fused
from dataloaders.augment.hsv import distort as plain_distort
from dataloaders.batch import ColourDraws, Effects, TrainBatch
from reproduction.yolo.restated import pixels

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 10, 14, 3), np.uint8)
IMAGES[0, 0, :4] = [[0, 0, 0], [255, 255, 255], [90, 90, 90], [255, 0, 255]]
distort = fused(plain_distort)  # as in every step


def _draws(flip, hue, saturation, exposure):
    return ColourDraws(tf.constant(flip), tf.constant(hue), tf.constant(saturation), tf.constant(exposure))


def _batch(images, draws, boxes, valid):
    count = tf.shape(images)[0]
    classes = tf.zeros(valid.shape, tf.int32)
    return TrainBatch(tf.constant(images), boxes, classes, valid, tf.range(tf.cast(count, tf.int64)), draws)


def test_distort_equals_the_restated_one():
    """tests/reproduction/restated hold that against Darknet's record and Python's own HSV."""
    draws = _draws([False] * 3, [0.1, -0.3, 0.0], [1.5, 0.4, 1.0], [0.7, 1.5, 1.2])
    ours = distort(tf.constant(IMAGES), draws).numpy()
    for number in range(3):
        expected = pixels.distorted(IMAGES[number], *(draw[number].numpy() for draw in draws[1:4]))
        np.testing.assert_allclose(ours[number], expected, atol=2e-6)


RECORDED = [
    ("0.1", "1.5", "1.5"),
    ("-0.1", "0.6667", "0.6667"),
    ("0", "1", "1"),
    ("0.05", "1.2", "0.8"),
    ("-0.1", "1.5", "0.7"),
]


@pytest.mark.parametrize(("hue", "saturation", "exposure"), RECORDED)
def test_distort_equals_darknet(golden, hue, saturation, exposure):
    recorded = np.load(golden("misc/image_ops.npz"))
    image = recorded["image_u8_chw"].transpose(1, 2, 0)
    draws = _draws([False] * 2, [float(hue)] * 2, [float(saturation)] * 2, [float(exposure)] * 2)
    ours = distort(tf.constant(np.stack([image, image])), draws).numpy()
    expected = recorded[f"distort_hue{hue}_sat{saturation}_exp{exposure}"].transpose(1, 2, 0)
    np.testing.assert_allclose(ours[0], expected, atol=1e-6)
    np.testing.assert_array_equal(ours[0], ours[1])


def test_a_hue_of_exactly_one_turn_is_darknets_magenta():
    """hsv_to_rgb has six cases for hues below one turn, and takes the last for the turn itself."""
    cyan = np.zeros((2, 1, 1, 3), np.uint8)
    cyan[..., 1:] = 200
    ours = distort(tf.constant(cyan), _draws([False] * 2, [0.5, 0.4999], [1.0] * 2, [1.0] * 2)).numpy()[:, 0, 0]
    np.testing.assert_allclose(ours * 255, [[200, 0, 200], [200, 0, 0.12]], atol=1e-3)


def test_flip_equals_darknet(golden):
    recorded = np.load(golden("misc/image_ops.npz"))
    images = np.stack([recorded["image_u8_chw"].transpose(1, 2, 0)] * 2)
    draws = _draws([True, False], [0.0] * 2, [1.0] * 2, [1.0] * 2)
    ours, _ = apply_colour(_batch(images, draws, tf.zeros([2, 1, 4]), tf.zeros([2, 1], tf.bool)), DarknetAugmentation())
    np.testing.assert_allclose(ours[0], recorded["flip"].transpose(1, 2, 0), atol=1e-7)


def test_draws_that_change_nothing_pass_the_pixels_exactly():
    draws = _draws([False] * 3, [0.0, 0.0, 0.1], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    ours = distort(tf.constant(IMAGES), draws).numpy()
    np.testing.assert_array_equal(ours[:2], IMAGES[:2].astype(np.float32) / np.float32(255))
    assert np.abs(ours[2] - IMAGES[2] / 255).max() > 0.1


def test_flip_mirrors_pixels_and_valid_boxes_and_leaves_padding_zero():
    draws = _draws([True, False, True], [0.0] * 3, [1.0] * 3, [1.0] * 3)
    boxes = np.zeros((3, 2, 4), np.float32)
    boxes[:, 0] = [0.25, 0.5, 0.5, 0.125]
    valid = np.array([[True, False], [True, False], [False, False]])
    boxes[2] = 0
    images, flipped = apply_colour(_batch(IMAGES, draws, tf.constant(boxes), tf.constant(valid)), DarknetAugmentation())
    np.testing.assert_array_equal(images[0], (IMAGES[0].astype(np.float32) / np.float32(255))[:, ::-1])
    np.testing.assert_array_equal(images[1], IMAGES[1].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(flipped[0], [[0.75, 0.5, 0.5, 0.125], [0, 0, 0, 0]])
    np.testing.assert_array_equal(flipped[1:], boxes[1:])


EFFECTS = {"type": "darknet_opencv", "blur": 5, "gaussian_noise": 9}
COLOURS = {"float": {"type": "darknet_float"}, "gains": {"type": "hsv_gains"}, "effects": EFFECTS}


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS.keys())
def test_compiles_with_static_shapes(colour):
    """As part of a step that XLA compiles, as on a TPU, and of one that it does not."""
    effects = Effects(tf.constant([1, 5, 0]), tf.constant([0, 9, 9]), tf.constant([[1, 2], [3, 4], [5, 6]]))
    draws = _draws([True, False, True], [0.125] * 3, [1.25] * 3, [0.75] * 3)
    draws = draws._replace(effects=effects if colour is EFFECTS else ())
    batch = _batch(IMAGES, draws, tf.fill([3, 5, 4], 0.25), tf.ones([3, 5], tf.bool))
    config = DarknetAugmentation(colour=colour)
    apply = lambda batch: apply_colour(batch, config)  # noqa: E731
    whole, parts = (tf.function(apply, autograph=False, jit_compile=jit) for jit in (True, None))
    for ours, expected in zip(whole(batch), parts(batch), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_blur_spares_the_objects_of_the_flipped_image():
    """And the parts come in Darknet's order: flip, colour, blur, noise."""
    nothing = Effects(tf.constant([1, 0, 0]), tf.constant([0, 0, 0]), tf.zeros([3, 2], tf.int32))
    draws = _draws([True, True, False], [0.0] * 3, [1.0] * 3, [1.0] * 3)._replace(effects=nothing)
    boxes = np.tile(np.float32([0.25, 0.5, 0.5, 1]), (3, 5, 1))  # the left half; as many as above: compiled already
    batch = _batch(IMAGES, draws, tf.constant(boxes), tf.ones([3, 5], tf.bool))
    ours, _ = apply_colour(batch, DarknetAugmentation(colour=EFFECTS))
    plain = IMAGES.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(ours[0, :, 7:], plain[0, :, ::-1][:, 7:])
    assert np.all(np.abs(ours[0, :, :7] - plain[0, :, ::-1][:, :7]).mean(axis=-1).mean(axis=0) > 0.05)
    np.testing.assert_array_equal(ours[1:], np.stack([plain[1, :, ::-1], plain[2]]))


def test_without_augmentation_pixels_are_only_normalised():
    draws = _draws([False] * 3, [0.0] * 3, [1.0] * 3, [1.0] * 3)
    images, boxes = apply_colour(_batch(IMAGES, draws, tf.fill([3, 1, 4], 0.5), tf.ones([3, 1], tf.bool)), None)
    np.testing.assert_array_equal(images, IMAGES.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(boxes, np.full([3, 1, 4], 0.5, np.float32))


def _many_draws(config: DarknetAugmentation) -> ColourDraws:
    """Of 4000 examples, made as the input pipeline does."""
    draw = lambda number: draw_colour(config, tf.stack([number, tf.ones_like(number)]))  # noqa: E731
    return next(iter(tf.data.Dataset.range(4000).map(draw).batch(4000)))


def test_draws_follow_darknets_distributions():
    draws = _many_draws(DarknetAugmentation(hue=0.1, saturation=1.5, exposure=2.0))
    assert draws.effects == ()
    flip, hue, saturation, exposure = (draw.numpy() for draw in draws[:4])
    assert abs(flip.mean() - 0.5) < 0.03
    assert -0.1 <= hue.min() < -0.099 and 0.099 < hue.max() <= 0.1 and abs(hue.std() - 0.1 / np.sqrt(3)) < 0.002
    for scale, most in ((saturation, 1.5), (exposure, 2.0)):
        up = scale >= 1
        assert abs(up.mean() - 0.5) < 0.03 and scale.min() >= 1 / most - 1e-6 and scale.max() <= most
        # Uniform above 1, the inverse of uniform below: not uniform in its logarithm.
        for part in (scale[up], 1 / scale[~up]):
            assert abs(part.mean() - (1 + most) / 2) < 0.02 * most
            assert abs(part.std() - (most - 1) / np.sqrt(12)) < 0.02
    assert np.abs(np.corrcoef([flip, hue, saturation, exposure]) - np.eye(4)).max() < 0.06


def test_effects_follow_darknets_distributions():
    """data.c load_data_detection: rand_int(0, 2) and rand_int(0, 1)."""
    effects = _many_draws(
        DarknetAugmentation(colour={"type": "darknet_opencv", "blur": 7, "gaussian_noise": 12})
    ).effects
    blur, noise = effects.blur.numpy(), effects.noise.numpy()
    assert all(abs(np.mean(blur == kind) - 1 / 3) < 0.03 for kind in (0, 1, 7))
    assert set(noise) == {0, 12} and abs(np.mean(noise == 12) - 0.5) < 0.03
    assert abs(np.corrcoef(blur, noise)[0, 1]) < 0.06 and len(np.unique(effects.seed, axis=0)) == 4000
    behind = _many_draws(DarknetAugmentation(colour={"type": "darknet_opencv", "blur": 1})).effects
    assert abs(np.mean(behind.blur.numpy() == 1) - 2 / 3) < 0.03 and not np.any(behind.noise)


def test_gains_follow_the_originals_distribution():
    """augment_hsv: 1 + U(-1, 1) times each number; here in steps that multiply a level exactly."""
    draws = _many_draws(
        DarknetAugmentation(colour={"type": "hsv_gains", "hue": 0.015, "saturation": 0.7, "value": 0.4})
    )
    gains = np.stack([draws.hue, draws.saturation - 1, draws.exposure - 1]).astype(np.float64)
    for drawn, most in zip(gains, (0.015, 0.7, 0.4), strict=True):
        assert np.abs(drawn).max() <= most + 2**-16 and np.abs(drawn).max() > 0.99 * most
        assert abs(drawn.mean()) < 0.03 * most and abs(drawn.std() - most / np.sqrt(3)) < 0.02 * most
        assert np.all(drawn * 2**15 % 1 == 0)
    assert np.abs(np.corrcoef(gains) - np.eye(3)).max() < 0.06 and abs(np.mean(draws.flip) - 0.5) < 0.03


def test_two_kinds_of_draws_at_once_are_refused():
    with pytest.raises(ValueError, match="which has its own hue"):
        DarknetAugmentation(hue=0.1, colour={"type": "hsv_gains"})


def test_without_augmentation_nothing_changes():
    draws = draw_colour(None, tf.constant([1, 2], tf.int64))
    assert [value.numpy().item() for value in draws[:4]] == [False, 0.0, 1.0, 1.0] and draws.effects == ()
    unflipped = [
        draw_colour(DarknetAugmentation(flip=False), tf.constant([seed, 2], tf.int64)).flip for seed in range(20)
    ]
    assert not np.any(unflipped)
