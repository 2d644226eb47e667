"""The order of training: position p of the endless stream is epoch p // n, place p % n in its permutation."""

import tensorflow as tf
from jaxtyping import Int64, Shaped

_FIRST_OF_SEED = 498247692  # the operation wants three numbers; this is the first of index_shuffle's


def row_at(position: Int64[tf.Tensor, "*n"], examples: int, seed: int) -> Int64[tf.Tensor, "*n"]:
    """The data set's row at a position of the training stream, or at each of several (at most one dimension).

    A pure function of the run's seed and the position: an epoch has each row once, and nothing need be replayed.
    """
    epoch, place = position // examples, position % examples
    return shuffled(place, keys_of(seed, epoch), examples)


def seed_at(position: Int64[tf.Tensor, ""], examples: int, seed: int) -> Int64[tf.Tensor, "2"]:
    """The seed by which everything random about the example at a position is drawn."""
    epoch, place = position // examples, position % examples
    return tf.random.experimental.stateless_fold_in(keys_of(seed, epoch), place)


def keys_of(seed: int | Int64[tf.Tensor, ""], number: Int64[tf.Tensor, "*n"]) -> Int64[tf.Tensor, "*n 2"]:
    """A key for each number: of an epoch, of a block, of a pass."""
    return tf.stack([tf.fill(tf.shape(number), tf.cast(seed, tf.int64)), number], axis=-1)


def shuffled(place: Shaped[tf.Tensor, "*n"], key: Shaped[tf.Tensor, "*k 2"], count: int) -> Shaped[tf.Tensor, "*n"]:
    """The new places of places 0 .. count - 1 in the random order of a key, or of one key for each place; integers.

    tf.random.experimental.index_shuffle gives the same for one key; given several, it pads them along the wrong axis.
    """
    seed = tf.pad(key, [[0, 0]] * (key.shape.rank - 1) + [[1, 0]], constant_values=_FIRST_OF_SEED)  # [*k, 3]
    last = tf.constant(count - 1, place.dtype)
    return tf.raw_ops.RandomIndexShuffle(index=place, seed=seed, max_index=last, rounds=4)
