"""The Keras network that a Darknet cfg describes."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import keras
from jaxtyping import Float

from modeling.darknet import sections
from modeling.darknet.cfg import Network
from modeling.darknet.grammar import CfgError
from modeling.darknet.options import Layer
from modeling.darknet.shapes import layer_shapes
from modeling.darknet.support import check_supported, untrainable
from modeling.layers.activations import Activation
from modeling.layers.batch_norm import BatchNorm, SharedBatchNorm
from modeling.layers.connected import Connected, ConnectedNorm, Local
from modeling.layers.convolution import Convolution, Geometry
from modeling.layers.merging import Alongside, ChannelSlice, Flatten, Shortcut, SplitAnchors
from modeling.layers.pooling import ChannelMaxPool, LocalAvgPool, MaxPool
from modeling.layers.precision import output_dtype
from modeling.layers.resampling import Crop, Reorg, SpaceToDepth, Upsample
from modeling.layers.special import Dropout, InferenceOnly, LocalResponseNorm, Softmax, StopGradient
from modeling.layers.style import Style

KerasTensor = Float[keras.KerasTensor, "batch ..."]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A cfg as a Keras network.

    model: image float32 [batch, height, width, channels], RGB 0..1 -> list of what goes into the cfg's heads, in the
        cfg's order, float32: of [yolo] [b, rows, columns, anchors of its mask, 5 + classes], of [Gaussian_yolo]
        [..., 9 + classes], of [region] [b, rows, columns, num, coords + 1 + classes], of [detection] [b, numbers].
        A cfg without a head gives the output of its last layer. For float32 read `output_dtype`.
    outputs: of every cfg layer, [b, height, width, channels] or [b, numbers].

    Layers that `stopbackward=1` freezes are not trainable. What `stopbackward` above 1 asks for is left to training.
    """

    network: Network
    model: keras.Model
    outputs: list[KerasTensor]


def layer_name(layer: Layer) -> str:
    """The name of a cfg layer's Keras layer; its batch-norm's ends on _norm, its activation's on _activation."""
    return f"L{layer.index:03d}_{layer.section}"


def layer_index(name: str) -> int:
    """The index of the cfg layer that a Keras layer of this name was made for."""
    return int(name[1:].partition("_")[0])


def build_network(
    network: Network,
    *,
    seed: int,
    norm: Literal["local", "sync", "folded"] = "local",
    norm_momentum: float = 0.99,
    norm_epsilon: float = 1e-5,
    input_size: tuple[int | None, int | None] | None = None,
) -> Graph:
    """The Keras network of a cfg, with Darknet's initial weights.

    network: of modeling.darknet.cfg.read_cfg.
    seed: of the initial weights; a layer's depend on the seed, its index and its section alone.
    norm: batch-norm over each replica's batch, or that of all; folded: none, convolutions have a bias instead, for
        `modeling.folding.fold_into`.
    norm_momentum: share of the old moving statistics (cuDNN Darknet: 0.99).
    norm_epsilon: added to the variance (Darknet batchnorm_layer.c: 1e-5).
    input_size: (height, width) in pixels, by default the cfg's; None for a side that may vary.

    Raises:
        CfgError: a layer cannot take what comes before it, or is not supported.
    """
    size = (network.net.height, network.net.width) if input_size is None else input_size
    varies = None in size
    layer_shapes(network, None if varies else size)  # raises where something does not fit
    for layer in network.layers:
        check_supported(network, layer, varies)
    if not (network.net.channels and 0 not in size):
        raise CfgError(f"{network.source}:{network.net.line}: [net] needs width, height and channels of the input")
    builder = _Builder(network, Style("linear", norm, norm_epsilon, norm_momentum, "uniform", seed), size)
    for layer in network.layers:
        builder.add(layer)
    model = keras.Model(builder.image, builder.predictions(), name="detector")
    model.made = tuple(builder.style.made)
    _freeze(network, model)
    return Graph(network, model, builder.outputs)


class _Builder:
    """Adds layer after layer. `outputs` are those of the layers so far."""

    def __init__(self, network: Network, style: Style, size: tuple[int | None, int | None]) -> None:
        self.network, self.style = network, style
        # What goes in, what predicts and what it predicts: no policy makes less of them.
        self.output_dtype = output_dtype()
        self.image = keras.Input((*size, network.net.channels), dtype=self.output_dtype, name="image")
        self.outputs: list[KerasTensor] = []
        self.owners = {layer.share_index for layer in network.layers if getattr(layer, "share_index", None) is not None}
        self.shared: dict[int, tuple[Convolution, BatchNorm | None]] = {}  # by the index of the layer
        self.predicts = {head.index - 1 for head in network.heads}

    def add(self, layer: Layer) -> None:
        x = self.outputs[-1] if self.outputs else self.image
        reason = untrainable(self.network, layer)
        if reason:
            x = InferenceOnly(reason, name=f"{layer_name(layer)}_inference_only")(x)
        x = _LAYERS[type(layer)](self, layer, x)
        if isinstance(layer, sections.Dropout):
            self.outputs[-1] = x  # it works in place: who refers to the layer before it, gets its output
        if layer.onlyforward:
            x = StopGradient(name=f"{layer_name(layer)}_onlyforward")(x)
        self.outputs.append(x)
        if layer.stopbackward == 1:
            names = (f"{layer_name(layer)}_stop{index:03d}" for index in range(len(self.outputs)))
            self.outputs = [StopGradient(name=name)(y) for name, y in zip(names, self.outputs, strict=True)]

    def predictions(self) -> list[KerasTensor]:
        """What goes into the heads. The last comes with layers that no other takes, so that the model has them all."""
        outputs = [self.outputs[head.index] for head in self.network.heads] or self.outputs[-1:]
        reached = {operation.name for operation in keras.Function(self.image, outputs).operations}
        loose = [x for x in self.outputs if x._keras_history.operation.name not in reached]
        if loose:
            last = layer_name(self.network.layers[-1])
            outputs[-1] = Alongside(name=f"{last}_alongside", dtype=outputs[-1].dtype)([outputs[-1], *loose])
        return outputs

    def _style_of(self, layer: Layer) -> dict[str, str]:
        return {"dtype": self.output_dtype} if layer.index in self.predicts else {}

    def _norm(self, layer: Layer) -> BatchNorm:
        name, sync = f"{layer_name(layer)}_norm", self.style.norm == "sync"
        kind = SharedBatchNorm if layer.index in self.owners else BatchNorm
        return kind(self.style.momentum, sync=sync, epsilon=self.style.epsilon, name=name, **self._style_of(layer))

    def _activate(self, layer: Layer, x: KerasTensor) -> KerasTensor:
        if layer.activation == "linear":
            return x
        return Activation(layer.activation, name=f"{layer_name(layer)}_activation", **self._style_of(layer))(x)

    def convolutional(self, layer: sections.Convolutional, x: KerasTensor) -> KerasTensor:
        geometry = Geometry((layer.stride_y, layer.stride_x), layer.padding, layer.dilation)
        if layer.share_index is None:
            convolution, norm = self._new_convolution(layer, geometry)
            x = convolution(x)
        else:
            convolution, norm = self.shared[layer.share_index]
            x = convolution(x, geometry=[list(geometry.stride), geometry.padding, geometry.dilation])
        self.shared[layer.index] = convolution, norm
        return self._activate(layer, x if norm is None else norm(x))

    def _new_convolution(
        self, layer: sections.Convolutional, geometry: Geometry
    ) -> tuple[Convolution, BatchNorm | None]:
        name = layer_name(layer)
        self.style.record(name, f"{name}_norm" if layer.batch_normalize else None)
        normalises = layer.batch_normalize and self.style.norm != "folded"
        convolution = Convolution(
            layer.filters,
            layer.size,
            geometry.stride,
            padding=geometry.padding,
            dilation=geometry.dilation,
            groups=1 if layer.xnor else layer.groups,
            binary=bool(layer.xnor),
            bias=None if normalises else 0.0,
            seed=self.style.seed_of(name),
            name=name,
            **self._style_of(layer),
        )
        return convolution, self._norm(layer) if normalises else None

    def connected(self, layer: sections.Connected, x: KerasTensor) -> KerasTensor:
        name, style = layer_name(layer), self._style_of(layer)
        self.style.record(name, f"{name}_norm" if layer.batch_normalize else None)
        normalises = layer.batch_normalize and self.style.norm != "folded"
        bias = None if normalises else 0.0
        x = Connected(layer.output, bias=bias, seed=self.style.seed_of(name), name=name, **style)(self._flat(layer, x))
        if normalises:
            x = ConnectedNorm(epsilon=self.style.epsilon, name=f"{name}_norm", **style)(x)
        return self._activate(layer, x)

    def _flat(self, layer: Layer, x: KerasTensor) -> KerasTensor:
        return x if len(x.shape) == 2 else Flatten(name=f"{layer_name(layer)}_flat")(x)  # [b, c * h * w]

    def local(self, layer: sections.Local, x: KerasTensor) -> KerasTensor:
        name = layer_name(layer)
        seed = self.style.seed_of(name)
        local = Local(layer.filters, layer.size, layer.stride, padding=layer.pad, seed=seed, name=name)
        return self._activate(layer, local(x))

    def batchnorm(self, layer: sections.Batchnorm, x: KerasTensor) -> KerasTensor:
        style = self.style
        return BatchNorm(style.momentum, sync=style.norm == "sync", epsilon=style.epsilon, name=layer_name(layer))(x)

    def activation(self, layer: sections.Activation, x: KerasTensor) -> KerasTensor:
        return Activation(layer.activation, name=layer_name(layer))(x)

    def maxpool(self, layer: sections.Maxpool, x: KerasTensor) -> KerasTensor:
        if layer.maxpool_depth:
            return ChannelMaxPool(layer.out_channels, name=layer_name(layer))(x)
        return MaxPool(layer.size, (layer.stride_y, layer.stride_x), layer.padding, name=layer_name(layer))(x)

    def local_avgpool(self, layer: sections.LocalAvgpool, x: KerasTensor) -> KerasTensor:
        return LocalAvgPool(layer.size, (layer.stride_y, layer.stride_x), layer.padding, name=layer_name(layer))(x)

    def avgpool(self, layer: sections.Avgpool, x: KerasTensor) -> KerasTensor:
        return keras.layers.GlobalAveragePooling2D(keepdims=True, name=layer_name(layer))(x)

    def upsample(self, layer: sections.Upsample, x: KerasTensor) -> KerasTensor:
        return Upsample(layer.stride, layer.scale, name=layer_name(layer))(x)

    def reorg(self, layer: sections.Reorg, x: KerasTensor) -> KerasTensor:
        return Reorg(layer.stride, bool(layer.reverse), name=layer_name(layer))(x)

    def reorg3d(self, layer: sections.Reorg3d, x: KerasTensor) -> KerasTensor:
        return SpaceToDepth(layer.stride, name=layer_name(layer))(x)

    def crop(self, layer: sections.Crop, x: KerasTensor) -> KerasTensor:
        return Crop(layer.crop_height, layer.crop_width, not layer.noadjust, name=layer_name(layer))(x)

    def route(self, layer: sections.Route, x: KerasTensor) -> KerasTensor:
        name, parts = layer_name(layer), [self.outputs[index] for index in layer.layers]
        if layer.groups > 1:
            names = [f"{name}_part{number}" for number in range(len(parts))]
            cut = [ChannelSlice(layer.groups, layer.group_id, name=part) for part in names]
            parts = [one(part) for one, part in zip(cut, parts, strict=True)]
        return keras.layers.Concatenate(name=name)(parts) if len(parts) > 1 else parts[0]

    def shortcut(self, layer: sections.Shortcut, x: KerasTensor) -> KerasTensor:
        add = Shortcut(layer.weights_type, layer.weights_normalization, name=layer_name(layer))
        return self._activate(layer, add([x, *(self.outputs[index] for index in layer.from_)]))

    def sam(self, layer: sections.Sam, x: KerasTensor) -> KerasTensor:
        """[sam], of equal shapes, and [scale_channels], where one is repeated over the other."""
        return self._activate(layer, keras.layers.Multiply(name=layer_name(layer))([self.outputs[layer.from_], x]))

    def dropout(self, layer: sections.Dropout, x: KerasTensor) -> KerasTensor:
        name = layer_name(layer)
        return Dropout(layer.probability, seed=self.style.seed_of(name), name=name)(x)

    def softmax(self, layer: sections.Softmax, x: KerasTensor) -> KerasTensor:
        return Softmax(layer.groups, layer.temperature, name=layer_name(layer))(self._flat(layer, x))

    def normalization(self, layer: sections.Normalization, x: KerasTensor) -> KerasTensor:
        name = layer_name(layer)
        return LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.kappa, name=name)(x)

    def nothing(self, layer: Layer, x: KerasTensor) -> KerasTensor:
        return x

    def anchors_head(
        self, layer: sections.Yolo | sections.GaussianYolo | sections.Region, x: KerasTensor
    ) -> KerasTensor:
        anchors = layer.num if isinstance(layer, sections.Region) else len(layer.mask)
        return SplitAnchors(anchors, name=layer_name(layer), dtype=self.output_dtype)(x)

    def detection(self, layer: sections.Detection, x: KerasTensor) -> KerasTensor:
        return x if len(x.shape) == 2 else Flatten(name=layer_name(layer), dtype=self.output_dtype)(x)


_LAYERS: dict[type[Layer], Callable[[_Builder, Layer, KerasTensor], KerasTensor]] = {
    sections.Convolutional: _Builder.convolutional,
    sections.Connected: _Builder.connected,
    sections.Local: _Builder.local,
    sections.Batchnorm: _Builder.batchnorm,
    sections.Activation: _Builder.activation,
    sections.Maxpool: _Builder.maxpool,
    sections.LocalAvgpool: _Builder.local_avgpool,
    sections.Avgpool: _Builder.avgpool,
    sections.Upsample: _Builder.upsample,
    sections.Reorg: _Builder.reorg,
    sections.Reorg3d: _Builder.reorg3d,
    sections.Crop: _Builder.crop,
    sections.Route: _Builder.route,
    sections.Shortcut: _Builder.shortcut,
    sections.Sam: _Builder.sam,
    sections.ScaleChannels: _Builder.sam,
    sections.Dropout: _Builder.dropout,
    sections.Softmax: _Builder.softmax,
    sections.Normalization: _Builder.normalization,
    sections.Empty: _Builder.nothing,
    sections.Contrastive: _Builder.nothing,
    sections.Yolo: _Builder.anchors_head,
    sections.GaussianYolo: _Builder.anchors_head,
    sections.Region: _Builder.anchors_head,
    sections.Detection: _Builder.detection,
}


def _freeze(network: Network, model: keras.Model) -> None:
    """`stopbackward=1` of a layer freezes those before it: no update, and batch-norm keeps its moving statistics.

    The layer itself gets no gradient either, but is decayed and normalises as in training (Darknet
    network_kernels.cu backward_network_gpu, parser.c parse_network_cfg_custom).
    """
    last = max((layer.index for layer in network.layers if layer.stopbackward == 1), default=0)
    for layer in model.layers[1:]:
        if layer_index(layer.name) < last:
            layer.trainable = False
