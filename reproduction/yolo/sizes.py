"""Which input sizes a network of the YOLO family takes."""

from configs.yolo.darknet_model import DarknetModel
from configs.yolo.task import YoloModel
from modeling.darknet.cfg import read_cfg
from modeling.darknet.sections import Connected, Local
from modeling.darknet.shapes import layer_shapes

STRIDE = 32  # of the coarsest features, at least


def coarsest_stride(model: YoloModel | DarknetModel) -> int:
    """Input pixels of a cell of the coarsest output: the sides of an input are multiples of it."""
    if isinstance(model, YoloModel):
        return STRIDE
    network = read_cfg(model.cfg)
    shapes = layer_shapes(network)
    strides = [network.net.height // max(1, shapes[head.index - 1].output.height) for head in network.heads]
    return max([STRIDE, *strides])


def fixes_size(model: YoloModel | DarknetModel) -> bool:
    """Whether a layer of its cfg has weights for inputs of one size alone."""
    return isinstance(model, DarknetModel) and any(
        isinstance(one, Connected | Local) for one in read_cfg(model.cfg).layers
    )
