"""A SavedModel that is loaded for a check computes what was saved, and is gone afterwards."""

import gc

import numpy as np
import tensorflow as tf

from reproduction.seeded.saved_program import signatures_of


def save_doubling(folder: str) -> None:
    module = tf.Module()
    module.factor = tf.Variable(2.0)
    spec = tf.TensorSpec([None, 3], tf.float32, "images")
    module.twice = tf.function(lambda images: {"boxes": module.factor * images}, input_signature=[spec])
    tf.saved_model.save(module, folder, signatures={"raw": module.twice})


def test_signatures_compute_what_was_saved(tmp_path):
    save_doubling(str(tmp_path))
    images = np.arange(6, dtype=np.float32).reshape(2, 3)
    with signatures_of(str(tmp_path)) as signatures:
        found = signatures["raw"](images=tf.constant(images))
        assert tf.executing_eagerly()  # what a check computes meanwhile is no part of the loaded graph
    np.testing.assert_array_equal(found["boxes"], 2 * images)


def graphs() -> int:
    """How many graphs there are that are no function's."""
    gc.collect()
    return sum(type(one) is tf.Graph for one in gc.get_objects())


def test_nothing_is_left_of_a_loaded_export(tmp_path):
    save_doubling(str(tmp_path))
    before = graphs()
    with signatures_of(str(tmp_path)) as signatures:
        signatures["raw"](images=tf.zeros([1, 3]))
        assert graphs() > before
    del signatures
    assert graphs() == before
