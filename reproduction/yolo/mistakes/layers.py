"""What a Darknet layer would give with a known mistake in it: the restated layer, with one thing changed.

Arrays are as in reproduction/restated/layers.py. Each alternative is `cause` or `cause` and a variant, such as
`batch_norm_epsilon 1e-3`, as `Clue.alternatives` takes them.
"""

from collections.abc import Callable, Mapping, Sequence

from modeling.darknet import sections
from modeling.darknet.options import Layer
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.yolo.mistakes import convolutions, joins
from reproduction.yolo.mistakes.convolutions import Parameters


def layer_alternatives(section: Layer, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    """A layer in evaluation mode with each mistake.

    inputs: of the layers it reads, as recorded: the one before, then those of `from`; of a route those it joins.
    Empty for sections of which no mistake is known, and for activations that this file lacks.
    """
    make = _TABLE.get(type(section))
    return make(section, inputs, parameters) if make else {}


def training_alternatives(section: Layer, inputs: Sequence[Array], parameters: Parameters) -> Alternatives:
    """A layer in training mode with each mistake.

    Batch-norm takes the batch's mean and biased variance. A layer without one is as in evaluation.
    """
    if not (isinstance(section, sections.Convolutional) and section.batch_normalize):
        return layer_alternatives(section, inputs, parameters)
    return convolutions.convolutional(section, inputs, parameters, of_batch=True)


_TABLE: Mapping[type, Callable[..., Alternatives]] = {
    sections.Convolutional: convolutions.convolutional,
    sections.Maxpool: convolutions.maxpool,
    sections.LocalAvgpool: convolutions.average,
    sections.Upsample: joins.upsample,
    sections.Route: joins.route,
    sections.Shortcut: joins.shortcut,
    sections.Reorg: joins.reorg,
    sections.Reorg3d: joins.reorg,
    sections.Connected: convolutions.connected,
}
