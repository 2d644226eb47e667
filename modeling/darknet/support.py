"""Which layers and options of a cfg are not built, or not trained."""

from modeling.darknet import sections
from modeling.darknet.cfg import Network
from modeling.darknet.grammar import CfgError
from modeling.darknet.options import Layer

# What changes the network's outputs, and what changes its training alone.
_UNSUPPORTED = ("binary", "coordconv", "maxpool_zero_nonmax", "tree")
_INFERENCE_ONLY = (
    *("xnor", "cbn", "assisted_excitation", "sway", "rotate", "stretch", "stretch_sway"),
    *("grad_centr", "dropblock"),
)
# Activations that some of Darknet's layers turn into zeros, because they call a function that does not know them.
_ZERO_IN_SHORTCUT = ("hard_mish", *(name for name in sections.ACTIVATIONS if name.startswith("normalize_channels")))
_ZERO_ELSEWHERE = ("swish", "mish", *_ZERO_IN_SHORTCUT)
_ONE_SIZE = (sections.Local, sections.Connected, sections.Softmax, sections.Crop, sections.Detection)


def check_supported(network: Network, layer: Layer, varies: bool) -> None:
    """Raises CfgError for a layer that cannot be built; `varies`: for images whose height or width may vary."""
    where = network.where(layer)
    options = [
        option for option in _UNSUPPORTED if getattr(layer, option, 0) and not isinstance(layer, sections.HEAD_SECTIONS)
    ]
    if isinstance(layer, sections.Crnn | sections.Cost):
        raise CfgError(f"{where} is not supported")
    if options:
        raise CfgError(f"{where} {options[0]}={getattr(layer, options[0])} is not supported; remove it")
    if isinstance(layer, sections.Reorg3d) and layer.reverse:
        raise CfgError(f"{where} reverse=1 is not supported; remove it")
    if getattr(layer, "activation", None) in _zeros(layer):
        raise CfgError(f"{where} has activation={layer.activation}, with which Darknet outputs zeros; take another")
    if varies and isinstance(layer, _ONE_SIZE):
        raise CfgError(f"{where} takes images of one size only; give the network one input size")
    if isinstance(layer, sections.Convolutional):
        _check_convolutional(network, layer, where)


def untrainable(network: Network, layer: Layer) -> str | None:
    """Why a network with this layer can be evaluated, but not trained; None where it can."""
    reason = f"{network.where(layer)}{{}} can be evaluated, but its training is not supported"
    for option in _INFERENCE_ONLY:
        if getattr(layer, option, 0):
            return reason.format(f" {option}={getattr(layer, option)}")
    draws = isinstance(layer, sections.Crop) and (
        layer.flip or (layer.crop_height, layer.crop_width) != (network.net.height, network.net.width)
    )
    return reason.format("") if draws or isinstance(layer, sections.Contrastive) else None


def _zeros(layer: Layer) -> tuple[str, ...]:
    if isinstance(layer, sections.Convolutional):
        return ()
    return _ZERO_IN_SHORTCUT if isinstance(layer, sections.Shortcut) else _ZERO_ELSEWHERE


def _check_convolutional(network: Network, layer: sections.Convolutional, where: str) -> None:
    if layer.dilation > 1 and layer.size != 2 * layer.padding + 1:
        raise CfgError(
            f"{where} has dilation={layer.dilation} with size={layer.size} and padding={layer.padding}; expected an odd"
            " size and pad=1, else Darknet misreads memory"
        )
    if layer.share_index is None:
        return
    owner = network.layers[layer.share_index]
    if (bool(owner.batch_normalize), owner.xnor) != (bool(layer.batch_normalize), layer.xnor):
        raise CfgError(
            f"{where} shares the weights of layer {owner.index}, which has another batch_normalize or xnor; expected"
            " the same"
        )
