"""Deformable convolution, version 2 (Zhu et al. 2019; CenterNet lib/models/networks/DCNv2), in gathers of static shape.

Each tap of the kernel reads where its offset says, between four cells, times its mask. All taps at once would hold 36
times the input's memory, four neighbours for each of nine taps, in every layer until the backward pass. So the taps are
taken one after the other in a loop, forward and backward, and the backward pass reads them again.
"""

from typing import no_type_check

import keras
import tensorflow as tf
from jaxtyping import Float, Int32

from modeling.layers.shapes import sides_of


def deformable_convolution(
    inputs: Float[tf.Tensor, "batch rows columns channels"],
    offsets: Float[tf.Tensor, "batch rows columns taps 2"],
    mask: Float[tf.Tensor, "batch rows columns taps"],
    kernel: Float[tf.Tensor, "size size channels filters"],
) -> Float[tf.Tensor, "batch rows columns filters"]:
    """Convolution at stride 1 with `size // 2` zeros around, whose tap t reads (dy, dx) = `offsets[..., t, :]` away.

    Taps are in the kernel's row-major order; `size` is odd. A position is read bilinearly, with zeros outside the map,
    and one that is a whole cell or more outside is 0 and has no gradient (dcn_v2_im2col_cuda.cu). Rows and columns are
    static, or unknown until run time. Offsets, mask and all sums are in `accumulation_type(inputs.dtype)`.
    """
    (rows, columns), channels = sides_of(inputs), inputs.shape[3]
    size, filters = kernel.shape[0], kernel.shape[3]
    if size % 2 == 0 or offsets.shape[3] != size * size:
        raise ValueError(
            f"deformable_convolution: a {size} x {size} kernel and offsets for {offsets.shape[3]} taps; expected an odd"
            " size, and a tap for each of its cells"
        )
    cells, weights = _where_to_read(offsets, mask, size)
    taps = tf.reshape(kernel, [size * size, channels, filters])
    outputs = _sum_over_taps(_with_neighbours(inputs), cells, weights, taps)  # [batch * rows * columns, filters]
    return tf.reshape(outputs, [-1, rows, columns, filters])


def accumulation_type(dtype: tf.DType) -> tf.DType:
    """What positions and sums are held in: float32, or float64 if the features are. bfloat16 cannot count to 257."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def _with_neighbours(inputs: tf.Tensor) -> tf.Tensor:
    """Each cell beside its right, lower and lower right neighbours, from one row and column before the map.

    [batch, rows, columns, channels] to [batch, (rows + 1) * (columns + 1), 4 * channels]; zeros outside the map.
    """
    (rows, columns), channels = sides_of(inputs), inputs.shape[3]
    framed = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
    above, below = framed[:, :-1], framed[:, 1:]
    four = [above[:, :, :-1], above[:, :, 1:], below[:, :, :-1], below[:, :, 1:]]
    return tf.reshape(tf.concat(four, axis=-1), [-1, (rows + 1) * (columns + 1), 4 * channels])


def _where_to_read(
    offsets: tf.Tensor, mask: tf.Tensor, size: int
) -> tuple[Int32[tf.Tensor, "taps batch positions"], Float[tf.Tensor, "taps batch positions corners=4"]]:
    """For each tap and position, the cell of `_with_neighbours` to read and the weights of its four neighbours."""
    (rows, columns), taps = sides_of(offsets), offsets.shape[3]
    position = tf.stack(tf.meshgrid(tf.range(rows), tf.range(columns), indexing="ij"), axis=-1)  # [rows, columns, 2]
    tap = tf.stack(tf.meshgrid(tf.range(size), tf.range(size), indexing="ij"), axis=-1) - size // 2  # [size, size, 2]
    start = tf.cast(position[:, :, tf.newaxis] + tf.reshape(tap, [taps, 2]), offsets.dtype)  # [rows, columns, taps, 2]
    place = start + offsets  # [batch, rows, columns, taps, 2]
    inside = tf.reduce_all((place > -1) & (place < tf.cast([rows, columns], offsets.dtype)), axis=-1)
    place = tf.where(inside[..., tf.newaxis], place, tf.zeros([], place.dtype))
    corner = tf.floor(place)
    y, x = tf.unstack(place - corner, axis=-1)  # 0..1, [batch, rows, columns, taps]
    weights = tf.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], axis=-1)
    weights *= tf.where(inside, mask, tf.zeros([], mask.dtype))[..., tf.newaxis]  # [batch, rows, columns, taps, 4]
    above, left = tf.unstack(tf.cast(corner, tf.int32) + 1, axis=-1)
    cells = above * (columns + 1) + left  # [batch, rows, columns, taps]
    cells = tf.transpose(tf.reshape(cells, [-1, rows * columns, taps]), [2, 0, 1])
    return cells, tf.transpose(tf.reshape(weights, [-1, rows * columns, taps, 4]), [2, 0, 1, 3])


@tf.custom_gradient
def _sum_over_taps(cells_of: tf.Tensor, cells: tf.Tensor, weights: tf.Tensor, kernel: tf.Tensor):
    """Sum over taps of (the weighted sum of a cell's four neighbours) times the tap's matrix.

    cells_of: [batch, cells, 4 * channels]; cells: [taps, batch, positions]; weights: [taps, batch, positions, 4];
    kernel: [taps, channels, filters]. Returns [batch * positions, filters].
    """
    taps, channels, filters = kernel.shape
    wide = weights.dtype
    batch, number, positions = tf.shape(cells_of)[0], sides_of(cells_of)[0], sides_of(cells)[1]

    def read(tap: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The four neighbours [batch, positions, 4, channels], and their weighted sum [batch * positions, channels]."""
        four = tf.reshape(tf.gather(cells_of, cells[tap], batch_dims=1), [-1, positions, 4, channels])
        mixed = tf.reduce_sum(four * tf.cast(weights[tap], four.dtype)[..., tf.newaxis], axis=2)
        return four, tf.reshape(mixed, [-1, channels])

    def loop(body, *start: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # One tap after the other: at once, the neighbours of all taps would be held.
        loop_vars = (tf.constant(0), *start)
        return tf.while_loop(
            lambda tap, *_: tap < taps, body, loop_vars, maximum_iterations=taps, parallel_iterations=1
        )[1:]

    def add_tap(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tap + 1, total + tf.cast(tf.matmul(read(tap)[1], kernel[tap]), wide)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
        first_cell = tf.range(batch)[:, tf.newaxis] * number  # [batch, 1]

        def tap_gradient(tap: tf.Tensor, by_cells: tf.Tensor, by_weights: tf.Tensor, by_kernel: tf.Tensor):
            four, mixed = read(tap)
            own_kernel = tf.cast(tf.matmul(mixed, upstream, transpose_a=True), wide)  # [channels, filters]
            by_mixed = tf.reshape(tf.matmul(upstream, kernel[tap], transpose_b=True), [-1, positions, 1, channels])
            own_weights = tf.cast(tf.reduce_sum(four * by_mixed, axis=3), wide)  # [batch, positions, 4]
            by_four = tf.reshape(tf.cast(weights[tap], four.dtype)[..., tf.newaxis] * by_mixed, [-1, 4 * channels])
            where = tf.reshape(cells[tap] + first_cell, [-1])
            own_cells = tf.math.unsorted_segment_sum(tf.cast(by_four, wide), where, batch * number)
            return (
                tap + 1,
                by_cells + own_cells,
                tf.tensor_scatter_nd_update(by_weights, [[tap]], own_weights[tf.newaxis]),
                tf.tensor_scatter_nd_update(by_kernel, [[tap]], own_kernel[tf.newaxis]),
            )

        by_cells, by_weights, by_kernel = loop(
            tap_gradient,
            tf.zeros([batch * number, 4 * channels], wide),
            tf.zeros_like(weights),
            tf.zeros(kernel.shape, wide),
        )
        by_cells = tf.reshape(by_cells, tf.shape(cells_of))
        return tf.cast(by_cells, cells_of.dtype), None, by_weights, tf.cast(by_kernel, kernel.dtype)

    (total,) = loop(add_tap, tf.zeros([batch * positions, filters], wide))
    return tf.cast(total, cells_of.dtype), gradient


@keras.saving.register_keras_serializable("detector")
@no_type_check  # Keras inspects signatures, which run-time checks would wrap
class DeformableConvolution(keras.layers.Layer):
    """[batch, rows, columns, channels] -> [batch, rows, columns, filters], the original's DCN at stride 1, with bias.

    Offsets and masks come from a plain convolution of the input of the same size, which starts at 0: no offset, and a
    mask of 0.5, so that an untrained layer is half a convolution. Its channels are (dy, dx) of each tap, then the masks
    (dcn_v2.py: two thirds are put together again before they are read as pairs). The kernel and bias start from
    U(-1, 1) / sqrt(fan_in) and 0.
    """

    def __init__(self, filters: int, size: int = 3, *, seed: int, **kwargs):
        super().__init__(**kwargs)
        if size % 2 == 0:
            raise ValueError(f"layer {self.name}: the kernel's size must be odd, got {size}")
        self.filters, self.size, self.seed = filters, size, seed

    def build(self, input_shape):
        # Variance 1 / (3 fan_in), uniform: limits +- sqrt(1 / fan_in).
        initial = keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform", seed=self.seed)
        window = (self.size, self.size, input_shape[-1])
        taps = self.size * self.size
        self.kernel = self.add_weight(name="kernel", shape=(*window, self.filters), initializer=initial)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")
        self.offset_kernel = self.add_weight(name="offset_kernel", shape=(*window, 3 * taps), initializer="zeros")
        self.offset_bias = self.add_weight(name="offset_bias", shape=(3 * taps,), initializer="zeros")

    def call(self, inputs):
        (rows, columns), taps = sides_of(inputs), self.size * self.size
        moves = tf.nn.conv2d(inputs, tf.convert_to_tensor(self.offset_kernel), 1, "SAME")
        moves = tf.nn.bias_add(moves, tf.convert_to_tensor(self.offset_bias))
        moves = tf.cast(moves, accumulation_type(moves.dtype))
        offsets = tf.reshape(moves[..., : 2 * taps], [-1, rows, columns, taps, 2])
        mask = tf.sigmoid(moves[..., 2 * taps :])
        outputs = deformable_convolution(inputs, offsets, mask, tf.convert_to_tensor(self.kernel))
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))

    def compute_output_shape(self, input_shape):
        return *input_shape[:3], self.filters
