"""The shapes of a cfg's layers and of their parameters, without building anything (Darknet's make_*_layer)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from modeling.darknet.cfg import Network
from modeling.darknet.grammar import INT_LIMIT, CfgError
from modeling.darknet.sections import (
    Avgpool,
    Batchnorm,
    Connected,
    Contrastive,
    Convolutional,
    Cost,
    Crnn,
    Crop,
    Detection,
    GaussianYolo,
    Layer,
    Local,
    LocalAvgpool,
    Maxpool,
    Region,
    Reorg,
    Route,
    Sam,
    ScaleChannels,
    Shortcut,
    Softmax,
    Upsample,
    Yolo,
)

Parameters = dict[str, tuple[int, ...]]


class Shape(NamedTuple):
    """What a layer passes on: an image, or `outputs` numbers in a row, which Darknet gives no channels and sides."""

    channels: int
    height: int
    width: int
    outputs: int


class LayerShape(NamedTuple):
    """`parameters` have Darknet's names, its order of axes and that of a .weights file; shared ones are not listed."""

    input: Shape
    output: Shape
    parameters: Parameters


class _MisfitError(Exception):
    """A layer's input does not suit it; the message continues the layer's place."""


Rule = Callable[[Layer, Shape, Sequence[Shape]], tuple[Shape, Parameters]]


def layer_shapes(network: Network, input_size: tuple[int, int] | None = None) -> tuple[LayerShape, ...]:
    """Shapes of all layers. `input_size` is (height, width) in pixels, by default the cfg's.

    Raises:
        CfgError: a layer cannot take what comes before it, or is larger than Darknet could count.
    """
    net = network.net
    height, width = input_size or (net.height, net.width)
    image = Shape(net.channels, height, width, net.channels * height * width or net.inputs)
    shapes: list[LayerShape] = []
    outputs: list[Shape] = []
    for layer in network.layers:
        before = outputs[-1] if outputs else image
        try:
            output, parameters = _rule(layer)(layer, before, outputs)
            _check_size(output, parameters)
        except _MisfitError as problem:
            raise CfgError(f"{network.where(layer)} {problem}") from None
        if isinstance(layer, Convolutional) and layer.share_index is not None:
            _check_shared(network, layer, parameters, shapes)
            parameters = {}
        shapes.append(LayerShape(before, output, parameters))
        outputs.append(output)
    return tuple(shapes)


def count(shape: tuple[int, ...]) -> int:
    """How many numbers a tensor of this shape has; an int of Python's, so it cannot overflow."""
    product = 1
    for side in shape:
        product *= side
    return product


def _rule(layer: Layer) -> Rule:
    return next((rule for kind, rule in _RULES.items() if isinstance(layer, kind)), _same)


def _check_size(output: Shape, parameters: Parameters) -> None:
    if output.outputs < 1:
        raise _MisfitError(f"has an output of {output.width}x{output.height}x{output.channels}; its input is too small")
    largest = max([output.outputs, *(count(shape) for shape in parameters.values())])
    if largest >= INT_LIMIT:
        raise _MisfitError(f"needs a tensor of {largest} numbers; Darknet's limit is {INT_LIMIT - 1}")


def _check_shared(network: Network, layer: Convolutional, parameters: Parameters, shapes: Sequence[LayerShape]) -> None:
    owner = network.layers[layer.share_index]
    while owner.share_index is not None:
        owner = network.layers[owner.share_index]
    if shapes[owner.index].parameters["weights"] != parameters["weights"]:
        raise CfgError(
            f"{network.where(layer)} shares the weights {shapes[owner.index].parameters['weights']} of layer"
            f" {owner.index}; expected {parameters['weights']}, as its input has other channels"
        )


def _image(channels: int, height: int, width: int) -> Shape:
    if min(channels, height, width) < 1:
        return Shape(channels, height, width, 0)
    return Shape(channels, height, width, channels * height * width)


def _need_image(shape: Shape) -> None:
    if not shape.channels:
        raise _MisfitError(f"needs an image; the layer before it gives {shape.outputs} numbers in a row")


def _same(layer: Layer, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    return before, {}


def _in_a_row(layer: Layer, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    if isinstance(layer, Softmax) and before.outputs % layer.groups:
        raise _MisfitError(f"has groups={layer.groups}, which does not divide its {before.outputs} inputs")
    return Shape(0, 0, 0, before.outputs), {}


def _norm(filters: int) -> Parameters:
    return {"scales": (filters,), "rolling_mean": (filters,), "rolling_variance": (filters,)}


def _filters(filters: int, channels: int, size: int, groups: int, batch_normalize: int) -> Parameters:
    """A convolution's parameters; Darknet's only bias under batch-norm is the norm's own."""
    if channels % groups:
        raise _MisfitError(f"has groups={groups}, which does not divide its {channels} input channels")
    weights = (filters, channels // groups, size, size)
    return {"biases": (filters,)} | (_norm(filters) if batch_normalize else {}) | {"weights": weights}


def _convolutional(layer: Convolutional, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    if layer.antialiasing:
        raise _MisfitError("antialiasing is not supported")
    # Dilation is not in Darknet's formula: it multiplies the padding too, which cancels out where size is 2p + 1.
    height = (before.height + 2 * layer.padding - layer.size) // layer.stride_y + 1
    width = (before.width + 2 * layer.padding - layer.size) // layer.stride_x + 1
    parameters = _filters(layer.filters, before.channels, layer.size, layer.groups, layer.batch_normalize)
    return _image(layer.filters, height, width), parameters


def _crnn(layer: Crnn, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    """Three convolutions: of the input, of the state, and of their sum."""
    _need_image(before)
    parts = {
        "input": (layer.hidden, before.channels),
        "self": (layer.hidden, layer.hidden),
        "output": (layer.output, layer.hidden),
    }
    parameters = {}
    for part, (filters, channels) in parts.items():
        named = _filters(filters, channels, layer.size, layer.groups, layer.batch_normalize)
        parameters |= {f"{part}_{name}": shape for name, shape in named.items()}
    height, width = (
        (side + 2 * layer.padding - layer.size) // layer.stride + 1 for side in (before.height, before.width)
    )
    return _image(layer.output, height, width), parameters


def _local(layer: Local, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    """A convolution with its own weights at every location."""
    _need_image(before)
    height, width = (
        (side - (1 if layer.pad else layer.size)) // layer.stride + 1 for side in (before.height, before.width)
    )
    output = _image(layer.filters, height, width)
    weights = (height, width, layer.filters, before.channels, layer.size, layer.size)
    return output, {"biases": (layer.filters, height, width), "weights": weights}


def _connected(layer: Connected, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    """Weights are over the flattened input in the order channel, row, column; batch-norm comes after them."""
    parameters = {"biases": (layer.output,), "weights": (layer.output, before.outputs)}
    return _image(layer.output, 1, 1), parameters | (_norm(layer.output) if layer.batch_normalize else {})


def _batchnorm(layer: Batchnorm, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    return before, {"biases": (before.channels,)} | _norm(before.channels)


def _pool(layer: LocalAvgpool, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    if isinstance(layer, Maxpool) and layer.antialiasing:
        raise _MisfitError("antialiasing is not supported")
    if isinstance(layer, Maxpool) and layer.maxpool_depth:
        return _image(layer.out_channels, before.height, before.width), {}
    height = (before.height + layer.padding - layer.size) // layer.stride_y + 1
    width = (before.width + layer.padding - layer.size) // layer.stride_x + 1
    return _image(before.channels, height, width), {}


def _avgpool(layer: Avgpool, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    return _image(before.channels, 1, 1), {}


def _upsample(layer: Upsample, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    height, width = (
        side * layer.stride if layer.stride > 0 else side // -layer.stride for side in (before.height, before.width)
    )
    return _image(before.channels, height, width), {}


def _reorg(layer: Reorg, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    stride, (channels, height, width, _) = layer.stride, before
    if layer.reverse:
        if channels % stride**2:
            raise _MisfitError(f"has stride={stride}, whose square does not divide its {channels} input channels")
        return _image(channels // stride**2, height * stride, width * stride), {}
    if height % stride or width % stride:
        raise _MisfitError(f"has stride={stride}, which does not divide its input of {width}x{height}")
    return _image(channels * stride**2, height // stride, width // stride), {}


def _crop(layer: Crop, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    _need_image(before)
    if layer.crop_height > before.height or layer.crop_width > before.width:
        crop = f"{layer.crop_width}x{layer.crop_height}"
        raise _MisfitError(f"crops {crop} from {before.width}x{before.height}, which is smaller")
    return _image(before.channels, layer.crop_height, layer.crop_width), {}


def _route(layer: Route, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    sources = [earlier[index] for index in layer.layers]
    first = sources[0]
    for index, source in zip(layer.layers, sources, strict=True):
        _need_image(source)
        if (source.width, source.height) != (first.width, first.height):
            raise _MisfitError(
                f"joins layer {layer.layers[0]} of {first.width}x{first.height} and layer {index} of"
                f" {source.width}x{source.height}; expected the same width and height"
            )
        if source.channels % layer.groups:
            raise _MisfitError(
                f"has groups={layer.groups}, which does not divide the {source.channels} channels of {index}"
            )
    channels = sum(source.channels for source in sources) // layer.groups
    return _image(channels, first.height, first.width), {}


def _shortcut(layer: Shortcut, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    """The output has this layer's input's shape; of what is added, further channels are left out and missing ones 0."""
    _need_image(before)
    for index in layer.from_:
        source = earlier[index]
        if (source.width, source.height) != (before.width, before.height):
            raise _MisfitError(
                f"adds layer {index} of {source.width}x{source.height} to {before.width}x{before.height};"
                " expected the same width and height"
            )
    if layer.weights_type == "none":
        return before, {}
    each = before.channels if layer.weights_type == "per_channel" else 1
    return before, {"weights": (len(layer.from_) + 1, each)}


def _sam(layer: Sam, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    source = earlier[layer.from_]
    if source != before:
        raise _MisfitError(
            f"multiplies layer {layer.from_} {_size(source)} by {_size(before)}; expected the same shape"
        )
    return source, {}


def _scale_channels(layer: ScaleChannels, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    source = earlier[layer.from_]
    fits = (1, source.height, source.width) if layer.scale_wh else (source.channels, 1, 1)
    if before[:3] != fits:
        expected = _size(_image(*fits))
        raise _MisfitError(f"scales layer {layer.from_} {_size(source)} by {_size(before)}; expected {expected}")
    return source, {}


def _size(shape: Shape) -> str:
    return f"({shape.width}x{shape.height}x{shape.channels})"


def _head(entries_of: Callable[[Layer], int]) -> Rule:
    """A head takes a convolution's output as it is; its channels must be what the head's options add up to."""

    def rule(layer: Layer, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
        _need_image(before)
        expected = entries_of(layer)
        if before.channels != expected:
            raise _MisfitError(
                f"takes {expected} channels (classes={layer.classes}, {len(_anchors_of(layer))} anchors), but the layer"
                f" before it gives {before.channels}; set filters={expected} there, or change classes"
            )
        return before, {}

    return rule


def _anchors_of(layer: Layer) -> Sequence[object]:
    return layer.anchors if isinstance(layer, Region) else layer.mask


def _detection(layer: Detection, before: Shape, earlier: Sequence[Shape]) -> tuple[Shape, Parameters]:
    expected = layer.side**2 * ((1 + layer.coords) * layer.num + layer.classes)
    if before.outputs != expected:
        raise _MisfitError(
            f"takes side² * ((1 + coords) * num + classes) = {expected} numbers, but the layer before it gives"
            f" {before.outputs}; set output={expected} there, or change classes"
        )
    return Shape(0, 0, 0, expected), {}


_RULES: dict[type | tuple[type, ...], Rule] = {
    Convolutional: _convolutional,
    Crnn: _crnn,
    Local: _local,
    Connected: _connected,
    Batchnorm: _batchnorm,
    LocalAvgpool: _pool,  # and Maxpool
    Avgpool: _avgpool,
    Upsample: _upsample,
    Reorg: _reorg,  # and Reorg3d
    Crop: _crop,
    Route: _route,
    Shortcut: _shortcut,
    ScaleChannels: _scale_channels,
    Sam: _sam,
    (Softmax, Contrastive, Cost): _in_a_row,
    Yolo: _head(lambda head: len(head.mask) * (5 + head.classes)),
    GaussianYolo: _head(lambda head: len(head.mask) * (9 + head.classes)),
    Region: _head(lambda head: head.num * (1 + head.coords + head.classes)),
    Detection: _detection,
}
