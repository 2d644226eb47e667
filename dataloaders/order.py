"""The order of training: position p of the endless stream is epoch p // n, place p % n in its permutation."""

import tensorflow as tf
from jaxtyping import Int64


def draw_row(
    position: Int64[tf.Tensor, ""], examples: int, seed: int
) -> tuple[Int64[tf.Tensor, ""], Int64[tf.Tensor, "2"]]:
    """The data set's row at a position of the training stream, and that example's own seed.

    A pure function of the run's seed and the position: an epoch has each row once, and nothing need be replayed.
    """
    epoch, place = position // examples, position % examples
    epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
    row = tf.random.experimental.index_shuffle(place, epoch_seed, tf.constant(examples - 1, tf.int64))
    return row, tf.random.experimental.stateless_fold_in(epoch_seed, place)
