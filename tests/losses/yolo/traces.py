"""What Darknet computed for one cfg, as the losses take it (recorded traces; see their README)."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from configs.yolo.heads import Head
from configs.yolo.losses import Loss
from losses.truth import Truth
from losses.yolo import HEAD_LOSS_PARTS
from losses.yolo.darknet.head_loss import HeadLoss
from losses.yolo.darknet.yolov1 import CellTruth, cell_loss
from losses.yolo.from_cfg import head_and_loss
from modeling.darknet.cfg import Network, parse_cfg
from modeling.darknet.sections import Detection
from official.core.task import Moment


@dataclasses.dataclass(frozen=True)
class Case:
    arrays: np.lib.npyio.NpzFile
    network: Network
    head: Head
    loss: Loss
    truth: Truth | CellTruth
    moment: Moment

    @functools.cached_property
    def outputs(self) -> list[tf.Tensor]:
        """What goes into each head: the recorded output of the layer before it."""
        layers = self.network.heads
        return [tf.constant(as_raw(self.arrays[f"train/L{layer.index - 1:03d}_output"], layer)) for layer in layers]

    def recorded(self, name: str) -> list[np.ndarray]:
        """The array `train/L..._name` of each head."""
        return [self.arrays[f"train/L{layer.index:03d}_{name}"] for layer in self.network.heads]

    def deltas(self) -> list[np.ndarray]:
        return [
            as_raw(values, layer) for values, layer in zip(self.recorded("loss_delta"), self.network.heads, strict=True)
        ]

    def heads(self) -> list[HeadLoss]:
        if isinstance(self.truth, CellTruth):
            return [cell_loss(self.outputs[0], self.truth, self.head, self.loss)]
        return HEAD_LOSS_PARTS[self.head.type](self.outputs, self.truth, self.head, self.loss, self.moment)


def load(golden, name: str, folder: str = "loss") -> Case:
    arrays = np.load(golden(f"{folder}/{name}.npz"))
    network = parse_cfg(str(arrays["meta/cfg"]), name)
    head, loss = head_and_loss(network)
    size = (network.net.height, network.net.width)
    step = 1 if "small" in name else 10**6  # [region] begins in another way than it goes on
    truth = cells_of(arrays["truth"], network.heads[0]) if head.type == "detection" else truth_of(arrays["truth"])
    return Case(arrays, network, head, loss, truth, Moment(tf.constant(step, tf.int64), size))


def as_raw(values: np.ndarray, layer) -> np.ndarray:
    """Darknet's [batch, anchors * entries, rows, columns] as [batch, rows, columns, anchors, entries]."""
    if isinstance(layer, Detection):
        return values.reshape(len(values), -1)
    batch, _, rows, columns = values.shape
    anchors = len(layer.mask) if hasattr(layer, "mask") else layer.num
    return values.reshape(batch, anchors, -1, rows, columns).transpose(0, 3, 4, 1, 2)


def truth_of(rows: np.ndarray) -> Truth:
    """From [batch, truths, 6]: cxcywh, class, track; the list ends where x is 0."""
    valid = np.cumprod(rows[..., 0] != 0, axis=1).astype(bool)
    return Truth(tf.constant(rows[..., :4]), tf.constant(rows[..., 4], tf.int32), tf.constant(valid))


def cells_of(rows: np.ndarray, layer: Detection) -> CellTruth:
    """From [batch, cells, 5 + classes]: whether there is an object, its class, its box."""
    cells = rows.reshape(-1, layer.side, layer.side, 5 + layer.classes)
    return CellTruth(tf.constant(cells[..., 0] == 1), tf.constant(cells[..., 1:-4]), tf.constant(cells[..., -4:]))
