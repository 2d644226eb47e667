"""Any Keras model beside a trace of any program: `reproduce.py --compare model.keras --trace x.npz --map map.yaml`.

The map {ours: theirs} says which recorded array belongs to which layer, and which the model is given. Each layer is
compared twice (reproduction/traces/walk.py): in the whole network, and alone, from what the trace has before it.
"""

import difflib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

import tasks  # noqa: F401  registers the layers of our own networks with Keras
from official.core.errors import UserError, first_line
from reproduction import report
from reproduction.experiment.subject import Subject, sha256
from reproduction.gates import GATES, with_few_maps
from reproduction.traces.align import Alignment, read_map
from reproduction.traces.case import Case, Row
from reproduction.traces.result import GateResult
from reproduction.traces.walk import keras_walk, layer_tensors

CHECK, GATE = "foreign_trace", 2
_SHOWN = 5  # names that a message lists


class ForeignError(UserError):
    """A model and a trace that cannot be compared; says why, and what to do."""


def compare(model_path: str, trace_path: str, map_path: str | None = None) -> report.Report:
    """The report of one comparison; it has a single gate.

    map_path: a YAML or JSON file {ours: theirs}. Layers and inputs that it lacks have the same name on both sides.

    Raises:
        ForeignError, AlignError, TraceError: a file cannot be read, or the two have nothing to compare.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's 10 bits prove nothing to 1e-5
    start, case = time.perf_counter(), Case(Path(trace_path), about="layer")
    model = load_model(model_path)
    names = read_map(map_path) if map_path else {}
    rows = [row.model_copy(update={"check": CHECK}) for row in _rows(model, case, names)]
    outcome = "fail" if any(row.outcome == "fail" for row in rows) else "pass"
    gate = GateResult(
        number=GATE, name=GATES[GATE], outcome=outcome, rows=with_few_maps(rows), seconds=time.perf_counter() - start
    )
    made = report.report_of(Subject(), f"{Path(model_path).name} beside {case.path.name}", [gate])
    files = {"model": model_path, "trace": trace_path, "map": map_path}
    found = {what: f"{path}, SHA-256 {sha256(Path(path))}" for what, path in files.items() if path}
    found["recorded by"] = " ".join(filter(None, case.trace.source.model_dump().values())) or "no manifest says by whom"
    return made.model_copy(update={"provenance": found})


def load_model(path: str) -> keras.Model:
    """A functional model from a .keras file. Code that a file brings along is not run: Keras refuses it.

    Raises:
        ForeignError: it is no such file, or of a class that is not registered.
    """
    if not Path(path).is_file():
        raise ForeignError(f"{path}: no such file; expected a model that Keras saved, NAME.keras")
    if Path(path).suffix != ".keras":  # Keras reads the older formats without its safe mode
        raise ForeignError(f"{path}: expected a model that Keras saved with model.save('NAME.keras')")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many types: zipfile's, h5py's, JSON's, Keras's own
        # Keras names the cause last, after the whole configuration; and then how to load it unsafely.
        cause = str(error).rpartition("Exception encountered: ")[2] or error
        why = first_line(UserError(cause)).partition(". ")[0]
        raise ForeignError(f"{path}: Keras cannot load this model: {why}") from None
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        what = f"found a {type(model).__name__} without known inputs"
        raise ForeignError(f"{path}: expected a functional model, or a sequential one that was built; {what}")
    return model


def _rows(model: keras.Model, case: Case, names: Mapping[str, str]) -> Iterator[Row]:
    inputs = [_recorded(tensor.name, names, case) for tensor in model.inputs]
    own = {tensor.name for tensor in model.inputs}
    both = [ours for ours, theirs in names.items() if theirs in inputs and ours not in own]
    if both:
        raise ForeignError(f"the map gives {names[both[0]]!r}, which the model is given, to {both[0]!r} as well")
    of_layers = {ours: theirs for ours, theirs in names.items() if ours not in own}
    walk, found = keras_walk(model, case, of_layers, inputs)
    if not found.pairs:
        raise ForeignError(_nothing_in_common(model, case, found))
    try:
        yield from walk.whole()
        yield from walk.alone()
    except UserError:
        raise
    except Exception as error:  # of a foreign layer, or of what it was given: the model's failure, not the command's
        yield case.fail("all", f"{type(error).__name__}: {first_line(error)}")
    for ours, near in found.suggestions.items():
        if ours not in own:
            perhaps = f"; perhaps it is {' or '.join(near)}: say so in the map" if near else ""
            yield case.skip(ours, f"the trace has no array of this name{perhaps}")


def _recorded(ours: str, names: Mapping[str, str], case: Case) -> str:
    """The name of the array that one of the model's inputs is given."""
    theirs = names.get(ours, ours)
    if theirs not in case.trace:
        near = difflib.get_close_matches(theirs, case.trace, n=3, cutoff=0.4)
        raise ForeignError(
            f"{case.path}: no array {theirs!r} for the model's input {ours!r}; it has {_listed(near or case.trace)};"
            f" say in the map which it is: `{ours}: NAME`"
        )
    return theirs


def _nothing_in_common(model: keras.Model, case: Case, found: Alignment) -> str:
    likely = next((f"{ours}: {near[0]}" for ours, near in found.suggestions.items() if near), "OURS: THEIRS")
    layers = _listed(list(layer_tensors(model)))
    return (
        f"{case.path}: no array has the name of a layer. The model has {layers}; the trace has {_listed(found.unused)}."
        f" Write a map, such as `{likely}`, and give it by --map"
    )


def _listed(names: Sequence[str] | Mapping) -> str:
    shown = list(names)[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
