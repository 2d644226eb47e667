"""Whole networks: recorded stages, heads, and the moving statistics that a forward pass in training leaves (`*_trace`).

Ours computes in float32, as it does in every run, and in float64: that is beside the original's float64, and decides
where float32's rounding comes near a bound. Stages are recorded in float32 alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import keras
import numpy as np

from modeling.weights.torch_names import torch_name
from reproduction.centernet.losses import maps
from reproduction.centernet.model import Parameters, build, layer_of
from reproduction.traces.align import in_our_layout
from reproduction.traces.case import Case, Row
from reproduction.traces.causes import Clue
from reproduction.traces.causes.numbers import moved_alternatives
from reproduction.traces.causes.residual import Alternatives, Array
from reproduction.traces.compare import OfAbsmax
from reproduction.traces.precision import precision
from reproduction.traces.trace import Layout, Trace, relayout
from reproduction.traces.walk import Place, Walk

BOUND = OfAbsmax(bound=1e-4)
LAYER = Clue("layer", "NCHW")
HEADS = ("hm", "wh", "reg")
MOMENTS = {"eval": False, "train": True}  # in this order: training changes the moving statistics
MOMENTUM = 0.9  # share of the old moving statistics: PyTorch's momentum of 0.1
ROUNDING = 3  # how far from float64 a recorded stage in float32 may be, in units of what the recorded heads are


def network(case: Case) -> Iterator[Row]:
    """Stages and heads in evaluation and in training, each stage alone, and the statistics."""
    models: dict[str, keras.Model] = {}
    for short, name in (("f32", "float32"), ("f64", "float64")):
        with precision(name):
            models[short], _ = build(case)
    layers = {stage: layer_of(models["f64"], stage) for stage in _stages(case.trace)}
    for stage in [stage for stage, layer in layers.items() if layer is None]:
        del layers[stage]
        yield case.fail(f"stage/{stage}", "the network that the parameters make has no such stage")
    count = len(models["f64"].outputs)
    rounding = _rounding(case.trace, count)
    for moment, training in MOMENTS.items():
        names = [*(f"{moment}/stage/{stage}" for stage in layers), *head_names(case.trace, moment, count)]
        ours, exact = (_outputs(case, models[short], list(layers), training) for short in ("f32", "f64"))
        has_both = any(name.startswith(f"{moment}_f64/") for name in case.trace)
        for number, (name, single, double) in enumerate(zip(names, ours, exact, strict=True)):
            yield _beside_float32(case, name, single, rounding, lambda double=double: double)
            if has_both and number >= len(layers):
                yield case.compare(_in_float64(name), double, BOUND, clue=LAYER)
        if moment == "eval":
            yield from _walk(case, models["f64"], layers).alone()
    yield from _statistics(case, models)


def _outputs(case: Case, model: keras.Model, stages: Sequence[str], training: bool) -> list[np.ndarray]:
    """Stages, then heads, in the original's axes."""
    inside = keras.Model(model.inputs, [*(layer_of(model, stage).output for stage in stages), *model.outputs])
    outputs = inside(maps(case.trace, "input"), training=training)
    return [relayout(output.numpy(), "NHWC", "NCHW") for output in outputs]


def _walk(case: Case, model: keras.Model, layers: dict[str, keras.Layer]) -> Walk:
    """Stages and heads in evaluation, for each to be computed from the recorded ones before it."""
    tensors = {f"eval/stage/{stage}": layer.output for stage, layer in layers.items()}
    tensors |= dict(zip(head_names(case.trace, "eval", len(model.outputs)), model.outputs, strict=True))
    recorded = [_place(name, tensor) for name, tensor in tensors.items() if name in case.trace]
    return Walk(case, [_place("input", model.inputs[0])], recorded, BOUND)


def _place(name: str, tensor: keras.KerasTensor) -> Place:
    return Place(
        name,
        tensor,
        lambda array: in_our_layout(name, array, Layout(layout="NCHW"), tuple(tensor.shape)),
        lambda value: relayout(np.asarray(value), "NHWC", "NCHW"),
        lambda: LAYER,
    )


def _stages(trace: Trace) -> list[str]:
    return sorted({name.split("/", 2)[2] for name in trace if name.startswith(("eval/stage/", "train/stage/"))})


def head_names(trace: Trace, moment: str, outputs: int) -> list[str]:
    """What the recorded heads are called, in the order of our outputs; stacks have a folder each if there are two."""
    count = len(HEADS) if outputs % len(HEADS) == 0 else len(HEADS) - 1
    single = outputs == count and any(f"{moment}/{head}" in trace for head in HEADS)
    folders = [moment] if single else [f"{moment}/stack{number}" for number in range(outputs // count)]
    return [f"{folder}/{head}" for folder in folders for head in HEADS[:count]]


def _in_float64(name: str) -> str:
    moment, _, rest = name.partition("/")
    return f"{moment}_f64/{rest}"


def _statistics(case: Case, models: Mapping[str, keras.Model]) -> Iterator[Row]:
    parameters = Parameters.of(case)
    exact = {torch_name(variable.path): variable for variable in models["f64"].non_trainable_variables}
    for short, model in models.items():
        prefix = f"{short}/after_train_forward"
        if not any(name.startswith(f"{prefix}/") for name in case.trace):
            yield case.skip(prefix, "not recorded")
            continue
        for variable in model.non_trainable_variables:
            name = torch_name(variable.path)
            start, recorded = parameters.value(name, tuple(variable.shape)), f"{prefix}/{name}"
            others = _moved_otherwise(start, case.trace[recorded]) if recorded in case.trace else {}
            clue = Clue("statistics", "", others)
            yield case.compare(recorded, variable, BOUND, None, clue, lambda name=name: exact[name])


def _moved_otherwise(start: Array, moved: Array) -> Alternatives:
    batch = (np.asarray(moved, float) - MOMENTUM * start) / (1 - MOMENTUM)
    return moved_alternatives(start, batch, MOMENTUM)


def _rounding(trace: Trace, outputs: int) -> float:
    """How far the original's float32 heads are from its float64, of the largest: the worst head's; 0 if not known.

    Of both moments together: in which of them rounding is enlarged more depends on the order of the sums.
    """
    names = [name for moment in MOMENTS for name in head_names(trace, moment, outputs)]
    names = [name for name in names if name in trace and _in_float64(name) in trace]
    pairs = [(trace[name], trace[_in_float64(name)]) for name in names]
    known = [np.abs(one - other).max() / np.abs(other).max() for one, other in pairs if one.shape == other.shape]
    return float(np.nan_to_num(max(known))) if known else 0.0


def _beside_float32(case: Case, name: str, ours: np.ndarray, rounding: float, exact: Callable[[], np.ndarray]) -> Row:
    """A row for a float32 record; skipped where the record itself cannot be told so precisely.

    Deformable convolutions one after the other enlarge rounding: DLA's float32 record is beyond the bound from its
    float64 in evaluation. Nobody's float32 is nearer; there the heads in float64 decide.
    """
    row = case.compare(name, ours, BOUND, None, LAYER, exact)
    if row.outcome == "pass" or row.error is None or row.error > ROUNDING * rounding:
        return row
    return case.skip(
        name, f"{row.error:.2g} of the largest; the original's own float32 heads are {rounding:.2g} from its float64"
    )
