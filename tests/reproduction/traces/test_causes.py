"""Every cause is planted into numbers made here, and must come first or second; a sound pair of arrays gives none."""

# ruff: noqa: E501 (tables of one mistake a line)

import numpy as np
import pytest

from configs.yolo.heads import YoloHead, YoloLevel
from official.core.config import Sgd
from reproduction.traces.causes import CAUSES, Clue, explain
from reproduction.traces.causes.images import image_alternatives
from reproduction.traces.causes.rows import COCO_IDS
from reproduction.traces.compare import CompareError
from reproduction.yolo.mistakes.heads import Level, decoding_alternatives
from reproduction.yolo.mistakes.training import SgdStep, step_alternatives

RANDOM = np.random.default_rng(3)
MAP = RANDOM.normal(size=(2, 6, 7, 10))  # NCHW
HEAD = np.concatenate([RANDOM.uniform(size=(2, 3, 2, 5, 8)), RANDOM.normal(size=(2, 3, 2, 5, 8)),
                       RANDOM.uniform(size=(2, 3, 5, 5, 8))], axis=2)  # fmt: skip  # NAEHW, 4 classes


def sparse() -> np.ndarray:
    """A head's gradient: objectness everywhere, the rest at six positives."""
    gradient = np.zeros((2, 3, 9, 5, 8))
    gradient[:, :, 4] = RANDOM.uniform(0.01, 0.5, size=(2, 3, 5, 8))
    for image, anchor, row, column in [
        (0, 1, 2, 3),
        (0, 2, 4, 7),
        (0, 0, 0, 0),
        (1, 1, 3, 5),
        (1, 0, 2, 2),
        (1, 2, 1, 6),
    ]:
        gradient[image, anchor, :, row, column] = RANDOM.normal(size=9)
    return gradient


GRADIENT = sparse()


def causes(ours, expected, clue) -> list[str]:
    hints = explain(ours, expected, clue)
    assert all(hint.after <= 0.1 * hint.before and hint.text == CAUSES[hint.cause] and hint.evidence for hint in hints)
    return [hint.cause for hint in hints]


def changed(array, where, change) -> np.ndarray:
    other = array.copy()
    other[where] = change(other[where])
    return other


def shifted(array) -> np.ndarray:
    """One column to the right, something new on the left."""
    other = np.roll(array, 1, axis=-1)
    other[..., 0] = RANDOM.normal(size=other[..., 0].shape)
    return other


WH = (slice(None), slice(None), slice(2, 4))
PLANTED = {
    "channels_reversed": ("image", "NCHW", MAP[:, :3], lambda x: x[:, ::-1]),
    "height_width_swapped": ("layer", "NCHW", MAP, lambda x: x.swapaxes(2, 3)),
    "image_mirrored": ("image", "NCHW", MAP, lambda x: x[..., ::-1]),
    "image_upside_down": ("image", "NCHW", MAP, lambda x: x[:, :, ::-1]),
    "image_range": ("image", "NCHW", MAP, lambda x: 255 * x),
    "one_pixel_shift": ("image", "NCHW", MAP, shifted),
    "channels_permuted": ("layer", "NCHW", MAP, lambda x: x[:, [2, 0, 1, 4, 3, 5]]),
    "channel_halves_swapped": ("layer", "NCHW", MAP, lambda x: x[:, [3, 4, 5, 0, 1, 2]]),
    "gradient_sign": ("parameters", "", MAP, lambda x: -x),
    "leaky_slope": ("layer", "NCHW", np.where(MAP > 0, MAP, 0.1 * MAP), lambda x: np.where(x > 0, x, 2 * x)),
    "constant_ratio": ("layer", "NCHW", MAP, lambda x: 1.07 * x),
    "constant_offset": ("layer", "NCHW", MAP, lambda x: x + 0.3),
    "border_only": ("layer", "NCHW", MAP, lambda x: changed(x, np.s_[:, :, -1], lambda v: v + RANDOM.normal(size=v.shape))),
    "stride_alignment": ("layer", "NCHW", MAP, lambda x: changed(x, np.s_[..., ::2], lambda v: RANDOM.normal(size=v.shape))),
    "one_channel": ("layer", "NCHW", MAP, lambda x: changed(x, np.s_[:, 4], lambda v: v**3)),
    "one_image": ("layer", "NCHW", MAP, lambda x: changed(x, np.s_[1], lambda v: v**3)),
    "few_elements": ("layer", "NCHW", MAP, lambda x: changed(x, np.s_[1, 3, 4, 5], lambda v: v + 1)),
    "not_finite": ("layer", "NCHW", MAP, lambda x: changed(x, np.s_[1, 3, :, 5], lambda v: np.nan)),
    "per_channel_affine": ("layer", "NCHW", MAP, lambda x: x * np.arange(1, 7).reshape(6, 1, 1) + 0.1),
    "activation_twice": ("layer", "NCHW", MAP, lambda x: 1 / (1 + np.exp(-x))),
    "activation_missing": ("head", "NAEHW", HEAD, lambda x: changed(x, np.s_[:, :, 5:], lambda p: np.log(p / (1 - p)))),
    "scale_x_y": ("head", "NAEHW", HEAD, lambda x: changed(x, np.s_[:, :, :2], lambda v: 1.05 * v - 0.025)),
    "anchors_permuted": ("head", "NCHW", HEAD.reshape(2, 27, 5, 8), lambda x: x.reshape(2, 3, 9, 5, 8)[:, [2, 0, 1]].reshape(x.shape)),
    "anchor_mask": ("head", "NAEHW", HEAD, lambda x: changed(x, WH, lambda v: v * np.array([2, 3, 0.5]).reshape(3, 1, 1, 1))),
    "anchor_units": ("head", "NAEHW", HEAD, lambda x: changed(x, WH, lambda v: v / 32)),
    "entries_xy": ("head", "NAEHW", HEAD, lambda x: changed(x, np.s_[:, :, :2], lambda v: v**2)),
    "one_anchor": ("head", "NAEHW", HEAD, lambda x: changed(x, np.s_[:, 2], lambda v: v**3)),
    "ciou_gradient_wh": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, WH, lambda v: 0.5 * v)),
    "normaliser": ("gradient", "NCHW", GRADIENT.reshape(2, 27, 5, 8), lambda x: changed(x.reshape(2, 3, 9, 5, 8), np.s_[:, :, :4], lambda v: 0.07 * v).reshape(x.shape)),
    "ignore_rule": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, np.s_[:, 1, 4, 2:4, ::3], lambda v: 0 * v)),
    "second_truth_overwrites": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, np.s_[1, 1, 6, 3, 5], lambda v: v - 1)),
    "padded_rows_scatter": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, np.s_[1, 0, :, 0, 0], lambda v: v + RANDOM.normal(size=9))),
    "positives_extra": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, np.s_[1, 0, :, 3, 3], lambda v: v + RANDOM.normal(size=9))),
    "positives_missing": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, np.s_[1, 2, :, 1, 6], lambda v: 0 * v)),
    "nan_zero_width": ("gradient", "NAEHW", GRADIENT, lambda x: changed(x, np.s_[1, 2, 2:4, 1, 6], lambda v: np.nan * v)),
    "loss_scale": ("loss", "", np.array(3.7), lambda x: x / 8),
    "learning_rate_scale": ("schedule", "", np.linspace(1, 2, 9) * 1e-3, lambda x: x * 64),
    "batch_norm_variance": ("statistics", "", RANDOM.uniform(1, 2, size=16), lambda x: x * 47 / 48),
    "first_step_zero": ("schedule", "", (np.arange(1, 30) / 30) ** 4, lambda x: (np.arange(29) / 30) ** 4),
    "warmup_power": ("schedule", "", np.minimum((np.arange(1, 30) / 20), 1) ** 4, lambda x: np.minimum((np.arange(1, 30) / 20), 1)),
    "letterbox_value": ("image", "HWC", changed(MAP[0].transpose(1, 2, 0), np.s_[:2], lambda v: 0 * v + 0.5), lambda x: changed(x, np.s_[:2], lambda v: 0 * v + 0.447)),
}  # fmt: skip


@pytest.mark.parametrize("cause", PLANTED)
def test_a_planted_mistake_is_among_the_first_two_hints(cause):
    kind, layout, expected, plant = PLANTED[cause]
    assert cause in causes(plant(expected), expected, Clue(kind, layout))[:2]


@pytest.mark.parametrize("kind, layout, array", [("layer", "NCHW", MAP), ("head", "NAEHW", HEAD), ("gradient", "NAEHW", GRADIENT)])  # fmt: skip
def test_equal_arrays_and_noise_have_no_cause(kind, layout, array):
    assert causes(array, array, Clue(kind, layout)) == []
    assert causes(RANDOM.normal(size=array.shape), array, Clue(kind, layout)) == []


BOXES = np.concatenate([RANDOM.uniform(20, 40, size=(12, 2)), RANDOM.uniform(50, 90, size=(12, 2))], axis=1)  # xyxy
ROWS = np.concatenate([BOXES * np.arange(1, 13)[:, np.newaxis], RANDOM.integers(0, 79, size=(12, 1)),
                       np.linspace(0.9, 0.01, 12)[:, np.newaxis]], axis=1)  # fmt: skip  # xyxy class score


@pytest.mark.parametrize(
    "cause, plant",
    {
        "box_format": lambda b: np.stack([(b[:, 0] + b[:, 2]) / 2, (b[:, 1] + b[:, 3]) / 2, b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]], 1),
        "height_width_swapped": lambda b: b[:, [1, 0, 3, 2]],
        "box_units": lambda b: b / [416, 320, 416, 320],
        "box_inclusive": lambda b: b + [0, 0, 1, 1],
    }.items(),
)  # fmt: skip
def test_boxes(cause, plant):
    assert cause in causes(plant(BOXES), BOXES, Clue("boxes", "xyxy"))[:2]


@pytest.mark.parametrize(
    "cause, plant",
    {
        "class_ids_shifted": lambda r: changed(r, np.s_[:, 4], lambda c: c + 1),
        "class_ids_91": lambda r: changed(r, np.s_[:, 4], lambda c: COCO_IDS[c.astype(int)]),
        "score_floor": lambda r: r[r[:, 5] > 0.25][::-1],
        "box_format": lambda r: changed(r, np.s_[:, :4], lambda b: b[:, [1, 0, 3, 2]]),
        "nms_kind": lambda r: np.concatenate([r, [[*(r[2, :4] + [1, 1, 2, 2]), r[2, 4], 0.5]]]),
    }.items(),
)
def test_detections(cause, plant):
    """Rows may be in any order, and be missing."""
    ours = RANDOM.permutation(plant(ROWS))
    assert cause in causes(ours, ROWS, Clue("detections", "xyxy class score"))[:2]
    assert causes(RANDOM.permutation(ROWS), ROWS, Clue("detections")) == []


def first(ours, expected, clue) -> list[str]:
    return causes(ours, expected, clue)[:2]


def test_images_of_another_resize_order_or_padding():
    image, size = RANDOM.uniform(size=(37, 53, 3)), (24, 40)
    right = image_alternatives(image, size, "letterbox", "half_pixel")
    expected = image_alternatives(image, size, "letterbox", "align_corners")["resize_half_pixel"]()
    for name, mistaken in right.items():
        assert name.partition(" ")[0] in first(mistaken(), expected, Clue("image", "HWC", right)), name


def test_heads_decoded_otherwise():
    anchors = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
    head = YoloHead(anchors=anchors, levels=(YoloLevel(mask=(3, 4, 5), scale_x_y=1.05),))
    right = Level(head, RANDOM.normal(size=(1, 5, 8, 3, 9)), (160, 256))
    alternatives = decoding_alternatives(right)
    for name, mistaken in alternatives.items():
        assert name.partition(" ")[0] in first(mistaken(), right.boxes(), Clue("boxes", "", alternatives)), name


def test_steps_of_training():
    arrays = (RANDOM.normal(size=(4, 3)) for _ in range(3))
    step = SgdStep(Sgd(momentum=0.9, weight_decay=0.0005), *arrays, rate=0.01, decays=True, count=8)
    for one in (step, step._replace(decays=False)):
        alternatives = step_alternatives(one)
        for name, mistaken in alternatives.items():
            assert name.partition(" ")[0] in first(mistaken(), one.after(), Clue("steps", "", alternatives)), name


def test_what_is_unknown_is_said():
    with pytest.raises(CompareError, match="no kind of quantity 'layers'"):
        explain(MAP, MAP, Clue("layers"))
    with pytest.raises(CompareError, match="batch_norm_epsilon"):
        explain(MAP, MAP, Clue("layer", "NCHW", {"batchnorm_epsilon 1e-3": lambda: MAP}))
    with pytest.raises(CompareError, match="layout 'NHW' does not fit"):
        explain(MAP, MAP + 1, Clue("layer", "NHW"))


def test_shapes_that_differ_are_explained_by_exchanged_axes_alone():
    assert causes(MAP[:, :, :5], MAP, Clue("layer", "NCHW")) == []
