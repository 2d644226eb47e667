"""What the comparisons with the formulas run in place of a whole experiment: its small copy, and its seeded weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.experiment import Experiment
from modeling.layers.batch_norm import BatchNorm
from official.core.config_io import load_config
from reproduction.experiment.own import Own
from reproduction.originals import original_of
from reproduction.seeded.stated_step import ELEMENTS, Stated, some_of
from reproduction.seeded.updates import without_draws
from reproduction.seeded.weights import seed_weights
from reproduction.traces.precision import graphs_as_written
from reproduction.yolo.recipe import darknet_experiment
from tests.conftest import EXPERIMENTS

DEMO = str(EXPERIMENTS / "demo.yaml")
DOWN = "[convolutional]\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
YOLO = "[convolutional]\nfilters=7\nsize=1\nactivation=linear\n[yolo]\nmask=0\nanchors=9,9\nclasses=2\nnum=1\n"
CONNECTED = "[connected]\noutput=28\nactivation=linear\n[detection]\nclasses=2\nside=2\nnum=1\ncoords=4\nsqrt=1\n"


def own_of(experiment: Experiment) -> Own:
    return Own(experiment, original_of(experiment))


@pytest.mark.parametrize(
    ("layers", "size"),
    [
        (5 * DOWN + YOLO, (96, 128)),
        (3 * DOWN + YOLO, (96, 128)),
        (6 * DOWN + YOLO, (128, 192)),
        (CONNECTED, (256, 256)),
    ],
    ids=["stride 32", "stride 8", "stride 64", "fully connected"],
)
def test_a_small_copy_has_an_input_that_the_network_can_take(tmp_path, layers, size):
    path = tmp_path / "net.cfg"
    path.write_text(f"[net]\nwidth=256\nheight=256\nchannels=3\nbatch=1\nmax_batches=9\n{layers}", encoding="utf-8")
    own = own_of(darknet_experiment(str(path), None, []))
    assert own.small_size == size
    assert own.output_shapes((256, 256)) == [own.model.outputs[0].shape[1:]]


def test_seeded_weights_let_no_deep_network_run_away():
    own = own_of(load_config(DEMO, Experiment, [])).small
    size = own.experiment.task.model.input_size
    inputs = x = keras.Input((*size, 3))
    x = keras.layers.Conv2D(4, 3, strides=8, padding="same", use_bias=False)(x)
    for _ in range(30):
        x = x + BatchNorm(own.experiment.task.model.norm_momentum)(
            keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        )
    model = keras.Model(inputs, x)
    seed_weights(model, own)
    images = np.random.default_rng(5).uniform(0, 1, (2, *size, 3)).astype(np.float32)
    assert np.abs(model(images, training=False)).max() < 100  # each block adds about 1


def test_graphs_round_as_they_are_written_and_only_inside():
    levels = tf.range(256, dtype=tf.float32)
    relative = tf.function(lambda: levels / 255, autograph=False)
    options = tf.config.optimizer.get_experimental_options()
    with graphs_as_written():
        np.testing.assert_array_equal(relative(), levels / 255)
        assert tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
    after = tf.config.optimizer.get_experimental_options()
    assert not after["disable_meta_optimizer"] and after | options == after


def test_elements_are_spread_over_a_variable_and_hold_none_of_it():
    whole = np.arange(10.0 * ELEMENTS).reshape(10, -1)
    some = some_of(whole)
    assert len(some) == ELEMENTS and some[0] == 0 and some[-1] >= whole.size - 10
    assert not np.shares_memory(some, whole)
    assert some_of(np.zeros(0)).size == 0 and some_of(np.array(3.0)).tolist() == [3]


@pytest.mark.parametrize(("off", "is_own"), [(1e-7, True), (1e-3, False)])
def test_a_step_is_stated_from_the_runs_pixels_where_gate_8_passes_them(off, is_own):
    own = own_of(load_config(DEMO, Experiment, [])).small
    stated = Stated(own, own.family, own.model)
    rng = np.random.default_rng(7)
    size = tuple(own.experiment.task.model.input_size)
    batch = stated.family.plain(stated.family.batch(stated.family.labels(rng), size, rng))
    formula, own_pixels = stated.family.prepare(batch)[0], own.task.prepare(batch)[0].numpy()
    prepare = own.task.prepare
    own.task.prepare = lambda part: (prepare(part)[0] + off, None)
    images, _ = stated._prepared(batch)
    np.testing.assert_allclose(images, own_pixels + off if is_own else formula, rtol=0, atol=1e-9)
    assert np.abs(images - formula).max() > 0 or not is_own


def test_a_drawn_rate_alone_is_exchanged():
    drawn = load_config(DEMO, Experiment, ["trainer.schedule={type: random, learning_rate: 0.01}"]).trainer
    assert without_draws(drawn).schedule.type == "constant" and without_draws(drawn).schedule.learning_rate == 0.01
    assert without_draws(drawn).model_copy(update={"schedule": drawn.schedule}) == drawn
    fixed = load_config(DEMO, Experiment, []).trainer
    assert without_draws(fixed) is fixed
