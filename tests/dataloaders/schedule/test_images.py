"""Which images an example is made of: each equally often in every pass, makeups by their shares."""

from collections import Counter

import pytest
import tensorflow as tf

from dataloaders.schedule.images import schedule_of
from official.core.errors import UserError

V7 = [((4,), 0.68), ((9,), 0.17), ((4, 4), 0.096), ((4, 9), 0.024), ((9, 4), 0.024), ((9, 9), 0.006)]


def _rows(schedule, images, start, stop, seed=3):
    """(number of its makeup, rows) of each position."""
    plan = tf.function(lambda position: schedule.plan(position, images, seed), autograph=False)
    found = [plan(tf.constant(position, tf.int64)) for position in range(start, stop)]
    assert all(int(one.count) == sum(schedule.makeups[int(one.makeup)]) for one in found)
    return [(int(one.makeup), one.rows.numpy()[: int(one.count)].tolist()) for one in found]


@pytest.mark.parametrize(
    ("shares", "reuse", "examples"),
    [
        ([((1,), 1.0)], 1, None),
        ([((4,), 1.0)], 1, None),
        ([((1,), 0.5), ((4,), 0.5)], 1, None),
        ([((4,), 1.0)], 4, 12),
        ([((1,), 0.5), ((4,), 0.5)], 5, 8),
        (V7, 5, 100),
    ],
)
def test_each_pass_uses_every_image_exactly_reuse_times(shares, reuse, examples):
    schedule = schedule_of(shares, reuse, examples)
    images = 2 * schedule.images  # a pass of the order is two blocks
    found = _rows(schedule, images, 0, 4 * schedule.examples)
    half = found[: 2 * schedule.examples], found[2 * schedule.examples :]
    for pass_ in half:
        assert Counter(row for _, rows in pass_ for row in rows) == dict.fromkeys(range(images), reuse)
    if images > 2:
        assert half[0] != half[1]


def test_kinds_have_their_shares_of_every_block_in_an_order_of_its_own():
    schedule = schedule_of(V7)
    assert schedule.quota == (68, 17, 10, 2, 2, 1) and schedule.examples == 100
    kinds = [kind for kind, _ in _rows(schedule, 1000, 0, 200)]
    first, second = kinds[:100], kinds[100:]
    assert Counter(first) == Counter(second) == dict(enumerate(schedule.quota)) and first != second


def test_images_of_a_mosaic_are_different_ones_and_partners_change_with_each_use():
    schedule = schedule_of([((4,), 1.0)], 4, 16)
    mosaics = [frozenset(rows) for _, rows in _rows(schedule, 16, 0, 16)]
    assert all(len(mosaic) == 4 for mosaic in mosaics) and len(set(mosaics)) > 12


def test_far_positions_and_resuming():
    schedule = schedule_of([((1,), 0.5), ((4,), 0.5)])
    whole = _rows(schedule, 37, 0, 250)
    assert _rows(schedule, 37, 131, 250) == whole[131:]
    assert _rows(schedule, 37, 2**40, 2**40 + 3)


def test_a_window_whose_images_cannot_be_used_equally_often_is_refused():
    with pytest.raises(
        UserError, match=r"10 examples are made of 40 images, .* not a multiple of reuse: 3; expected examples: 12"
    ):
        schedule_of([((4,), 1.0)], 3, 10)


@pytest.mark.parametrize("shares", [V7, [((9,), 0.7), ((4,), 0.3)], [((4,), 0.9), ((1,), 0.1)]])
@pytest.mark.parametrize("examples, reuse", [(8, 4), (6, 5), (3, 7)])
def test_a_window_that_is_refused_is_told_what_would_do(shares, examples, reuse):
    with pytest.raises(UserError, match=r"window: .* expected examples: \d+") as refused:
        schedule_of(shares, reuse, examples)
    schedule = schedule_of(shares, reuse, int(str(refused.value).rpartition(": ")[2].partition(",")[0]))
    assert all(schedule.quota) and schedule.images * reuse == schedule.uses


@pytest.mark.parametrize(
    "shares, reuse, examples, message",
    [
        ([((1,), 1.0)], 2, 20_001, r"not a multiple of reuse: 2; expected examples: 20002,"),
        ([((4,), 1.0)], 20_011, 8, r"not a multiple of reuse: 20011; expected reuse: 32,"),
        ([((1,), 1.0)], 20_011, 1, r"expected a smaller reuse,"),
        ([((1,), 1 - 1e-5), ((4,), 1e-5)], 4, 100, r"none of .* a mosaic of 4 .*; expected a share of 0, or of 1 in"),
        ([((1,), 0.5), ((4,), 0.5)], 2, 1, r"1 examples hold none of the examples of a mosaic of 4 "),
    ],
    ids=["large", "reuse", "smaller", "share", "equal"],
)
def test_what_a_refused_window_is_told_is_true(shares, reuse, examples, message):
    """Also where no number of examples does, and where kinds are equally rare."""
    with pytest.raises(UserError, match=message):
        schedule_of(shares, reuse, examples)


def test_the_other_reuse_that_a_refused_window_is_told_is_accepted():
    assert schedule_of([((4,), 1.0)], 32, 8).images == 1


def test_every_kind_with_a_share_occurs():
    rare = schedule_of([((1,), 0.996), ((4,), 0.004)])
    assert rare.quota == (996, 4)
    with pytest.raises(UserError, match=r"4 examples hold none of the examples of a mosaic of 4 \(a share of 0.1\)"):
        schedule_of([((1,), 0.9), ((4,), 0.1)], 4, 4)
    with pytest.raises(UserError, match=r"one image and one image, blended \(a share of 1e-05\) .* 1 in 10,000"):
        schedule_of([((1,), 1 - 1e-5), ((1, 1), 1e-5)])


@pytest.mark.parametrize("examples, reuse", [(32, 4), (8, 4), (12, 3)])
def test_a_batch_of_a_window_has_at_least_so_many_different_images(examples, reuse):
    schedule, batch = schedule_of([((4,), 1.0)], reuse, examples), 8
    mosaics = [rows for _, rows in _rows(schedule, 500, 0, 6 * batch)]
    batches = [mosaics[start : start + batch] for start in range(0, len(mosaics), batch)]
    assert all(len({row for rows in one for row in rows}) >= 4 * batch / reuse for one in batches)
