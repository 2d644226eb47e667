"""A recorded network rebuilt: the cfg in the trace as our Keras graph, with the trace's parameters, in Darknet's terms.

Darknet's images are NCHW and its parameters are named L003_weights; `ours` of every comparison is put into that form by
the same code that reads and writes .weights files, so that a trace needs no other conversion than the product has.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import keras
import numpy as np
import tensorflow as tf
from jaxtyping import Float

from modeling.darknet import sections
from modeling.darknet.build import Graph, build_network
from modeling.darknet.loading import load_into, values_of
from modeling.darknet.weights import Header, Record, WeightsFile, network_records
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.compare import Absolute, OfAbsmax
from reproduction.traces.precision import precision
from reproduction.traces.steps import parameter
from reproduction.traces.trace import TraceError, relayout
from reproduction.yolo.case import network_of

Values = Float[tf.Tensor, "..."]
Arrays = Float[np.ndarray, "..."]
# A parameter's name in Darknet's weights, and that of the array into which Darknet adds up its update.
UPDATES = {"weights": "weight_updates", "biases": "bias_updates", "scales": "scale_updates"}
STATISTICS = ("rolling_mean", "rolling_variance")


@dataclass(frozen=True)
class Rebuilt:
    """The network of a case. Its cfg's layers are numbered as in the trace."""

    case: Case
    graph: Graph
    records: list[Record]

    @classmethod
    def fresh(cls, case: Case) -> "Rebuilt":
        """With initial weights."""
        return cls(case, build_network(network_of(case), seed=0), network_records(network_of(case)))

    @classmethod
    def of(cls, case: Case) -> "Rebuilt":
        """With the recorded parameters init/L000_weights, ..."""
        rebuilt = cls.fresh(case)
        rebuilt.load("init/")
        return rebuilt

    @classmethod
    def exact(cls, case: Case) -> "Rebuilt":
        """As `of`, in float64."""
        with precision("float64"):
            return cls.of(case)

    def load(self, prefix: str, called: Mapping[str, str] = MappingProxyType({})) -> list[Values]:
        """Takes recorded arrays PREFIX/L000_weights, ... as parameters; gives the trainable variables' values.

        called: other names of some, such as those of gradients; moving statistics, which have none, are 0 then.
        """
        values = {
            record.name: {
                name: np.zeros(shape, np.float32)
                if called and name in STATISTICS
                else parameter(self.case.trace, f"{prefix}L{record.index:03d}_{called.get(name, name)}", shape)
                for name, shape in record.parameters.items()
            }
            for record in self.records
        }
        load_into(self.graph.model, self.records, WeightsFile(Header(), values), self.case.trace.origin)
        return [tf.identity(variable) for variable in self.graph.model.trainable_variables]

    def image(self, name: str = "X") -> Float[tf.Tensor, "batch height width channels"]:
        """A recorded input of the network, one or a batch of them: [batch, height, width, channels]."""
        net = network_of(self.case).net
        one = (net.channels, net.height, net.width)
        if name in self.case.trace and self.case.trace[name].ndim == 3:
            array = self.case.trace.array(name, one, np.floating)[np.newaxis]
        else:
            array = self.case.trace.array(name, ("batch", *one), np.floating)
        return tf.constant(relayout(array, "NCHW", "NHWC"), self.graph.model.inputs[0].dtype)

    @functools.cached_property
    def _all_layers(self) -> keras.Model:
        return keras.Model(self.graph.model.inputs, self.graph.outputs)

    def all_outputs(
        self, image: Float[tf.Tensor, "batch height width channels"], training: bool
    ) -> list[Float[tf.Tensor, "batch ..."]]:
        """The output of every cfg layer, [batch, height, width, channels] or [batch, numbers]."""
        outputs = self._all_layers(image, training=training)
        return outputs if isinstance(outputs, list) else [outputs]

    def in_darknets_form(self, ours: Values, recorded: str = "") -> Arrays:
        """A layer's output as Darknet lays it out: NCHW, the channel of an anchor's entry anchor * entries + entry.

        Numbers in a row are given the shape of the array `recorded`, or channels: Darknet gives them no sides.
        """
        values = np.asarray(ours)
        if values.ndim == 5:  # [batch, rows, columns, anchors, entries]
            values = values.reshape(*values.shape[:3], -1)
        if values.ndim == 4:
            return relayout(values, "NHWC", "NCHW")
        shape = self.case.trace[recorded].shape if recorded in self.case.trace else (*values.shape, 1, 1)
        return values.reshape(shape) if np.prod(shape) == values.size and shape[:1] == values.shape[:1] else values

    def parameters(self) -> dict[str, Arrays]:
        """All parameters by Darknet's names: L003_weights, L003_rolling_mean, ...; shared ones under both layers."""
        values = values_of(self.graph.model, self.records)
        named = {f"L{r.index:03d}_{name}": array for r in self.records for name, array in values[r.name].items()}
        for layer in network_of(self.case).layers:
            owner = getattr(layer, "share_index", None)
            for name, array in list(named.items()) if owner is not None else ():
                if name.startswith(f"L{owner:03d}_"):
                    named[f"L{layer.index:03d}_{name.partition('_')[2]}"] = array
        return named

    def take(self, weights: Sequence[Values], statistics: Sequence[Values]) -> None:
        """Takes values of the model's trainable and its other variables."""
        model = self.graph.model
        for variable, value in zip(
            model.trainable_variables + model.non_trainable_variables, [*weights, *statistics], strict=True
        ):
            variable.assign(value)

    def updates(self, deltas: Sequence[Values]) -> dict[str, Arrays]:
        """Deltas by the model's trainable variables as Darknet's L003_weight_updates, ...; of frozen ones 0.

        They stand in the variables' places for a moment: what puts parameters into Darknet's form does it for them.
        """
        model = self.graph.model
        kept = [variable.numpy() for variable in model.variables]
        for variable in model.variables:
            variable.assign(tf.zeros_like(variable))
        for variable, delta in zip(model.trainable_variables, deltas, strict=True):
            variable.assign(delta)
        named = self.parameters()
        for variable, value in zip(model.variables, kept, strict=True):
            variable.assign(value)
        return {f"{name[:5]}{UPDATES[name[5:]]}": array for name, array in named.items() if name[5:] in UPDATES}


def gradients_of(
    tape: tf.GradientTape, target: Values, sources: Sequence, upstream: Values | None = None
) -> list[Values]:
    """By tensors or Keras variables; zeros by what the target does not depend on."""
    found = tape.gradient(target, sources, upstream)
    pairs = zip(sources, found, strict=True)
    return [tf.zeros(source.shape, source.dtype) if one is None else one for source, one in pairs]


def compare_updates(
    rebuilt: Rebuilt,
    prefix: str,
    updates: Mapping[str, Arrays],
    bound: float,
    exact: Callable[[], Mapping[str, Arrays]],
) -> Iterator[Row]:
    """Rows for arrays like L003_weight_updates beside PREFIX/L003_weight_updates, each within `bound` of its absmax.

    The derivative by a bias before a batch-norm is 0, and what is recorded of it is rounding. An array that small
    beside those of its layer is compared as 0: within `bound` of the layer's absmax.

    exact: the updates in float64; see `Case.compare`.
    """
    case = rebuilt.case
    for name, ours in updates.items():
        recorded = f"{prefix}/{name}"
        if recorded not in case.trace and isinstance(network_of(case).layers[int(name[1:4])], sections.Local):
            yield case.skip(recorded, "not recorded")
            continue
        try:
            expected = parameter(case.trace, recorded, ours.shape)
        except TraceError as error:
            yield case.fail(recorded, str(error))
            continue
        layer = [f"{prefix}/{other}" for other in updates if other.startswith(name[:5])]
        absmax = max(float(np.abs(case.trace[other]).max()) for other in layer if other in case.trace)
        is_zero = np.abs(expected).max() < bound * absmax < np.inf
        tolerance = Absolute(bound=bound * absmax) if is_zero else OfAbsmax(bound=bound)
        yield case.compare(recorded, ours, tolerance, expected, Clue("gradient"), lambda name=name: exact()[name])
