"""Sizes of training: Darknet's own, each step's from the seed alone, streams that divide the steps among themselves."""

import collections
import itertools
import math

import numpy as np
import pydantic
import pytest
import tensorflow as tf

from configs.data import DarknetAugmentation, MultiScale, TrainSplit
from dataloaders.compose.composer import Composer
from dataloaders.pipeline import train_dataset
from dataloaders.reading.sources import open_source
from dataloaders.schedule.sizes import SizePlan, plan_sizes
from official.vision.protocol import EvaluationProtocol

BASES = [(416, 416), (320, 480), (96, 160), (608, 352)]


def plan(base=(320, 480), seed=3, **config) -> SizePlan:
    return plan_sizes(base, MultiScale(**config), seed, lambda duration: duration.in_steps(4, 40))


def draws(sizes: SizePlan, count: int) -> list[tuple[int, int]]:
    """The sizes of the blocks 1 to `count`."""
    indices = tf.function(lambda: tf.map_fn(sizes.index, tf.range(1, count + 1, dtype=tf.int64)), autograph=False)()
    return [sizes.sizes[index] for index in indices]


def darknets(base, factor: float) -> tuple[int, int]:
    """Written as detector.c does it; C's roundl rounds halves away from zero."""
    sides = tuple(math.floor(factor * side / 32 + 1 + 0.5) * 32 for side in base)
    return base if factor < 1 and (sides[0] > base[0] or sides[1] > base[1]) else sides


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("coefficient", [1.4, 2.0, 1.1])
def test_the_sizes_are_all_that_darknet_may_draw(base, coefficient):
    factors = np.concatenate([np.linspace(1, coefficient, 5001), 1 / np.linspace(1, coefficient, 5001)[1:]])
    drawn = {darknets(base, factor) for factor in factors}
    sizes = plan(base, coefficient=coefficient, sizes="all").sizes
    assert set(sizes) == drawn and list(sizes) == sorted(drawn)


@pytest.mark.parametrize("base", BASES)
def test_a_few_sizes_are_spread_over_darknets_with_both_ends(base):
    every, few = plan(base, sizes="all").sizes, plan(base, sizes=3).sizes
    assert len(few) == 3 and (few[0], few[-1]) == (every[0], every[-1]) and set(few) <= set(every)
    assert plan(base, sizes=100).sizes == every


def test_sizes_are_drawn_as_often_as_darknet_draws_them():
    base, count = (416, 416), 3000
    sizes = plan(base, sizes="all", every={"steps": 1})
    ours = collections.Counter(draws(sizes, count))
    rng = np.random.default_rng(0)
    factors = rng.uniform(1, 1.4, 100_000) ** rng.choice([1, -1], 100_000)
    theirs = collections.Counter(darknets(base, factor) for factor in factors)
    for size, number in theirs.items():
        expected = number / 100_000
        assert ours[size] / count == pytest.approx(expected, abs=4 * math.sqrt(expected / count)), size


def test_with_few_sizes_a_step_takes_the_one_closest_to_darknets():
    every, few = (plan((416, 416), every={"steps": 1}, sizes=sizes) for sizes in ("all", 4))
    for step in range(1, 100):
        distance = min(abs(size[0] - every.at(step)[0]) for size in few.sizes)
        assert abs(few.at(step)[0] - every.at(step)[0]) == distance


def test_a_block_keeps_its_size_and_the_first_and_the_last_ones_are_the_largest():
    sizes = plan(every={"steps": 10}, largest_from={"steps": 401}, sizes="all")
    seen = [sizes.at(step) for step in range(600)]
    blocks = [set(seen[start : start + 10]) for start in range(0, 600, 10)]
    assert all(len(block) == 1 for block in blocks)
    assert seen[:10] == [sizes.sizes[-1]] * 10
    assert set(seen[410:]) == {sizes.sizes[-1]}  # the block at 400 began before
    assert len(set(seen[:400])) > 8


def test_durations_may_be_epochs():
    assert plan(every={"epochs": 0.5}).every == 5  # 10 steps an epoch


def test_the_seed_decides():
    one, same, other = (plan(seed=seed, every={"steps": 1}) for seed in (3, 3, 4))
    assert draws(one, 200) == draws(same, 200) == [one.at(step) for step in range(1, 201)]
    assert draws(one, 200) != draws(other, 200)


@pytest.mark.parametrize("start", [0, 7, 123, 10**9])
def test_the_streams_of_all_sizes_divide_the_steps_among_themselves(start):
    sizes = plan(every={"steps": 3}, sizes=3)
    taken = {}
    for size in sizes.sizes:
        for step in sizes.steps(start, size):
            if step >= start + 90:
                break
            taken[int(step)] = size
    assert taken == {step: sizes.at(step) for step in range(start, start + 90)}


def test_streams_of_sizes_that_no_longer_occur_end():
    sizes = plan((64, 96), every={"steps": 3}, sizes=3, largest_from={"steps": 20})
    for size in sizes.sizes[:-1]:
        steps = [int(step) for step in sizes.steps(0, size)]
        assert steps == [step for step in range(21) if sizes.at(step) == size]
        assert steps and not list(sizes.steps(20, size))


def test_without_a_config_all_steps_have_the_one_size():
    sizes = plan_sizes((64, 96), None, 0, lambda duration: 1 / 0)
    assert sizes.sizes == ((64, 96),) and sizes.at(10**6) == (64, 96)
    assert [int(step) for step in itertools.islice(sizes.steps(5, (64, 96)), 3)] == [5, 6, 7]


def test_a_size_changes_the_pixels_of_a_step_and_nothing_else_of_it(seven):
    exact = DarknetAugmentation(jitter=0.2, precise=True)  # otherwise boxes follow what is rounded to whole pixels
    split = TrainSplit(source=seven.source, batch_size=3, max_boxes=5, threads=2, augmentation=exact)
    dataset, sizes = open_source(seven.source, ("cell", "dot"), "fail", 5), plan((32, 64), every={"steps": 2}, sizes=2)

    def batches(size, steps):
        return train_dataset(
            Composer(dataset.examples("cxcywh"), split, size, EvaluationProtocol(resize="stretch"), "cxcywh", 1),
            split,
            steps,
        )

    every = list(itertools.islice(batches((32, 64), tf.data.Dataset.range(40)), 40))
    for size in sizes.sizes:
        stream = batches(size, sizes.steps(9, size))
        assert stream.element_spec.image.shape == (3, *size, 3)
        steps = [step for step in range(9, 40) if sizes.at(step) == size]
        for step, batch in zip(steps, stream, strict=False):
            np.testing.assert_array_equal(batch.example_id, every[step].example_id)
            for own, other in zip(tf.nest.flatten(batch[5:]), tf.nest.flatten(every[step][5:]), strict=True):
                np.testing.assert_array_equal(own, other)
            both = batch.valid & every[step].valid  # small boxes go at a small size
            np.testing.assert_allclose(batch.boxes[both], every[step].boxes[both], atol=1e-6)


@pytest.mark.parametrize("wrong", [{"coefficient": 1.0}, {"sizes": 1}, {"every": {"steps": 0}}, {"size": 3}])
def test_a_wrong_config_is_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        MultiScale(**wrong)
