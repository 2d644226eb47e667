"""Convolution, pooling and resampling against Darknet's loops written out, over sizes, strides and paddings."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.layers.convolution import Convolution
from modeling.layers.merging import ChannelSlice, Shortcut, SplitAnchors
from modeling.layers.pooling import ChannelMaxPool, LocalAvgPool, MaxPool
from modeling.layers.resampling import Crop, Reorg, SpaceToDepth, Upsample
from modeling.layers.special import Dropout, LocalResponseNorm, Softmax

IMAGE = np.random.default_rng(0).normal(size=(2, 9, 7, 4)).astype(np.float32)


def windows(image, size, stride, before, after, dilation=1, outside=np.nan):
    """[b, rows, columns, size, size, channels]: what a kernel sees at each place; `outside` where there is no image."""
    padded = np.pad(image, ((0, 0), (before, after), (before, after), (0, 0)), constant_values=outside)
    extent = (size - 1) * dilation + 1
    rows = range(0, padded.shape[1] - extent + 1, stride[0])
    columns = range(0, padded.shape[2] - extent + 1, stride[1])
    return np.stack(
        [np.stack([padded[:, i : i + extent : dilation, j : j + extent : dilation] for j in columns], 1) for i in rows],
        1,
    )


def both(layer, image):
    """The layer's output, and its symbolic shape with the sides known and unknown must agree with it."""
    output = layer(image)
    known = layer(keras.Input(image.shape[1:]))
    unknown = layer(keras.Input((None, None, image.shape[-1])))
    assert tuple(known.shape[1:]) == tuple(output.shape[1:])
    assert all(a in (b, None) for a, b in zip(unknown.shape[1:], output.shape[1:], strict=True))
    return np.asarray(output)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 2)])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution(size, stride, padding, groups):
    layer = Convolution(8, size, stride, padding=padding, groups=groups, bias=None, seed=1)
    output = both(layer, IMAGE)
    seen = windows(IMAGE, size, stride, padding, padding, outside=0)
    kernel = np.asarray(layer.kernel)
    parts = [
        np.einsum("brcxyi,xyio->brco", part, weights)
        for part, weights in zip(np.split(seen, groups, -1), np.split(kernel, groups, -1), strict=True)
    ]
    np.testing.assert_allclose(output, np.concatenate(parts, -1), atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_dilated_convolution(groups, stride):
    layer = Convolution(4, 3, stride, dilation=2, groups=groups, bias=None, seed=1)
    output = both(layer, IMAGE)
    seen = windows(IMAGE, 3, (stride, stride), 2, 2, dilation=2, outside=0)
    kernel = np.asarray(layer.kernel)
    expected = [
        np.einsum("brcxyi,xyio->brco", part, weights)
        for part, weights in zip(np.split(seen, groups, -1), np.split(kernel, groups, -1), strict=True)
    ]
    np.testing.assert_allclose(output, np.concatenate(expected, -1), atol=1e-5)


def test_shared_kernel_in_another_geometry():
    layer = Convolution(4, 3, bias=0.0, seed=1)
    layer(IMAGE)
    strided = layer(IMAGE, geometry=[[2, 1], 0, 1])
    expected = np.einsum("brcxyi,xyio->brco", windows(IMAGE, 3, (2, 1), 0, 0), np.asarray(layer.kernel))
    np.testing.assert_allclose(strided, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "padding"), [(1, 0), (2, 0), (2, 1), (2, None), (3, 0), (3, 1), (3, 2), (3, None), (5, 2), (5, None)]
)
@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
@pytest.mark.parametrize("kind", [MaxPool, LocalAvgPool])
def test_pooling(size, padding, stride, kind):
    layer = kind(size, stride, padding)
    total = size - 1 if padding is None else padding
    pair = (stride, stride) if isinstance(stride, int) else stride
    seen = windows(IMAGE, size, pair, total // 2, total - total // 2)
    expected = (np.nanmax if kind is MaxPool else np.nanmean)(seen, (3, 4))
    np.testing.assert_allclose(both(layer, IMAGE), expected, atol=1e-6)


def test_local_average_ignores_not_a_number_only_outside():
    image = np.full((1, 3, 5, 1), 2.0, np.float32)
    np.testing.assert_array_equal(LocalAvgPool(2, 2)(image), np.full((1, 2, 3, 1), 2.0))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_channel_max_pool(channels):
    expected = np.stack([IMAGE[..., g::channels].max(-1) for g in range(channels)], -1)
    np.testing.assert_array_equal(both(ChannelMaxPool(channels), IMAGE), expected)


@pytest.mark.parametrize(("stride", "scale"), [(2, 1.0), (3, 0.5)])
def test_upsample_and_its_gradient(stride, scale):
    layer = Upsample(stride, scale)
    expected = IMAGE.repeat(stride, 1).repeat(stride, 2) * np.float32(scale)
    np.testing.assert_array_equal(both(layer, IMAGE), expected)
    x, upstream = tf.constant(IMAGE), np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    gradient = tape.gradient(y, x, output_gradients=upstream)
    blocks = upstream.reshape(2, 9, stride, 7, stride, 4).sum((2, 4)) * scale
    np.testing.assert_allclose(gradient, blocks, atol=1e-5)


def test_downsample_sums_blocks():
    image = IMAGE[:, :8, :6]
    np.testing.assert_allclose(
        both(Upsample(-2, 0.5), image), image.reshape(2, 4, 2, 3, 2, 4).sum((2, 4)) * 0.5, atol=1e-6
    )


def reorg_loop(x, stride, reverse):
    """Darknet's blas.c reorg_cpu on one image [channels, height, width], as [reorg] calls it."""
    channels, height, width = x.shape
    inner = channels // stride**2
    flat, out = x.reshape(-1), np.zeros(x.size, x.dtype)
    for k in range(channels):
        for j in range(height):
            for i in range(width):
                here = i + width * (j + height * k)
                column, row = i * stride + k // inner % stride, j * stride + k // inner // stride
                there = column + width * stride * (row + height * stride * (k % inner))
                out[there if reverse else here] = flat[here if reverse else there]
    return out


@pytest.mark.parametrize("reverse", [False, True])
def test_reorg_is_darknets_loop(reverse):
    image = np.random.default_rng(0).normal(size=(2, 6, 8, 8)).astype(np.float32)
    output = both(Reorg(2, reverse), image)
    for before, after in zip(image, output, strict=True):
        expected = reorg_loop(before.transpose(2, 0, 1), 2, reverse)
        shape = (2, 12, 16) if reverse else (32, 3, 4)
        np.testing.assert_array_equal(after, expected.reshape(shape).transpose(1, 2, 0))


def test_space_to_depth_orders_by_row_column_channel():
    image = IMAGE[:, :8, :6]
    expected = image.reshape(2, 4, 2, 3, 2, 4).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 3, 16)
    np.testing.assert_array_equal(both(SpaceToDepth(2), image), expected)


@pytest.mark.parametrize("adjust", [True, False])
def test_crop_takes_the_middle(adjust):
    middle = IMAGE[:, 2:7, 2:5]
    np.testing.assert_array_equal(Crop(5, 3, adjust)(IMAGE), middle * 2 - 1 if adjust else middle)


def test_shortcut_takes_the_firsts_channels():
    few, many = IMAGE[..., :3], np.concatenate([IMAGE, IMAGE], -1)
    expected = 2 * IMAGE + np.pad(few, ((0, 0),) * 3 + ((0, 1),))
    np.testing.assert_allclose(Shortcut()([IMAGE, few, many]), expected, atol=1e-6)


@pytest.mark.parametrize("weights", ["per_feature", "per_channel"])
@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_weighted_shortcut(weights, normalization):
    layer = Shortcut(weights, normalization)
    layer.build([IMAGE.shape] * 2)
    kernel = np.random.default_rng(2).normal(size=layer.kernel.shape).astype(np.float32)
    layer.kernel.assign(kernel)
    parts = np.maximum(kernel, 0) if normalization == "relu" else np.exp(kernel - kernel.max(0))
    shares = parts / (parts.sum(0) + 1e-4)
    np.testing.assert_allclose(layer([IMAGE, IMAGE * 3]), IMAGE * (shares[0] + 3 * shares[1]), atol=1e-5)


def test_channel_slice_must_divide():
    with pytest.raises(ValueError, match="4 channels do not divide into 3 groups"):
        ChannelSlice(3, 0, name="part").compute_output_shape((None, 2, 2, 4))


def test_anchors_are_split_channel_by_channel():
    output = both(SplitAnchors(2), IMAGE)
    np.testing.assert_array_equal(output, IMAGE.reshape(2, 9, 7, 2, 2))


def test_local_response_norm_is_darknets_loop():
    channels, size = 9, 5
    image = np.random.default_rng(0).normal(size=(1, 2, 3, channels)).astype(np.float32)
    squares, norms = image**2, np.zeros_like(image)
    norms[..., 0] = 1 + 0.5 * squares[..., : size // 2].sum(-1)
    for k in range(1, channels):
        norms[..., k] = norms[..., k - 1]
        if k - 3 >= 0:
            norms[..., k] -= 0.5 * squares[..., k - 3]
        if k + 2 < channels:
            norms[..., k] += 0.5 * squares[..., k + 2]
    norms = np.abs(norms)  # a window that lost a square it never had can be negative, whose power does not exist
    actual = np.asarray(LocalResponseNorm(size, 0.5, 0.75, 1.0)(image))
    kept = np.isfinite(actual)
    assert kept.mean() > 0.5
    np.testing.assert_allclose(actual[kept], (image * norms**-0.75)[kept], rtol=1e-4)


def test_softmax_of_groups_at_a_temperature():
    x = IMAGE.reshape(2, -1)
    expected = tf.nn.softmax(x.reshape(2, 3, 84) / 2).numpy().reshape(2, -1)
    np.testing.assert_allclose(Softmax(3, 2.0)(x), expected, atol=1e-6)


# ---- dropout


def test_dropout_drops_that_share_and_keeps_the_mean():
    x = np.random.default_rng(0).uniform(1, 2, (8, 20, 25, 4)).astype(np.float32)
    layer = Dropout(0.3, seed=5)
    dropped = np.asarray(layer(x, training=True))
    zero = dropped == 0
    assert abs(zero.mean() - 0.3) < 0.01
    np.testing.assert_allclose(dropped[~zero], x[~zero] / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(layer(x, training=False), x)


def test_dropout_repeats_on_the_same_batch_and_changes_on_another():
    x = np.random.default_rng(0).uniform(1, 2, (2, 10, 10, 4)).astype(np.float32)
    layer = Dropout(0.5, seed=5)
    first = np.asarray(layer(x, training=True)) == 0
    np.testing.assert_array_equal(np.asarray(layer(x, training=True)) == 0, first)
    assert 0.4 < ((np.asarray(layer(x + 0.01, training=True)) == 0) == first).mean() < 0.6
    assert 0.4 < ((np.asarray(Dropout(0.5, seed=6)(x, training=True)) == 0) == first).mean() < 0.6


def test_dropout_passes_the_gradient_of_what_it_kept():
    x = tf.random.stateless_uniform((2, 5, 5, 4), seed=(1, 2), minval=1.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = Dropout(0.5, seed=1)(x, training=True)
    gradient = tape.gradient(y, x)
    np.testing.assert_array_equal(gradient, np.where(np.asarray(y) == 0, 0.0, 2.0))
