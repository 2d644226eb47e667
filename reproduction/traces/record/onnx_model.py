"""Any ONNX model by ONNX Runtime: all values inside its graph, computed without its optimisations."""

import os
from collections.abc import Mapping

import numpy as np

from official.core.errors import UserError, first_line
from reproduction.traces.causes.residual import Array
from reproduction.traces.record.keras_model import checked
from reproduction.traces.record.names import fresh, legal, maps_in
from reproduction.traces.trace import Source, write_trace


class OnnxError(UserError):
    """A model that cannot be run, or the packages for it are missing."""


def record_onnx(model: str, inputs: Mapping[str, Array], path: str | os.PathLike) -> None:
    """Inputs, and the output of every node by ONNX's name of the value; maps are NCHW.

    inputs: by the names of the model's inputs.

    Raises:
        OnnxError: onnx or onnxruntime is not installed, or refuses the file.
        TraceError: an input is missing, or of another shape.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise OnnxError(f"{error}: pip install -e .[onnx]") from None
    try:
        proto = onnx.load(model)
        onnx.checker.check_model(proto)
        # The types of values inside are not written down in most files; the checker's inference finds them.
        inside = {value.name: value for value in onnx.shape_inference.infer_shapes(proto).graph.value_info}
        known = {value.name for value in proto.graph.output}
        names = [name for node in proto.graph.node for name in node.output if name]
        proto.graph.output.extend(inside[name] for name in names if name in inside and name not in known)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        given = {one.name: checked(one.name, tuple(one.shape), inputs, model) for one in session.get_inputs()}
        outputs = session.run(None, given)
    except UserError:
        raise
    except Exception as error:  # both packages raise types of their own, and not always the same
        raise OnnxError(f"{model}: ONNX Runtime cannot run it: {first_line(error)}") from None
    arrays: dict[str, np.ndarray] = {}
    results = {one.name: output for one, output in zip(session.get_outputs(), outputs, strict=True)}
    for name, value in {**given, **results}.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":  # else a sequence or text
            arrays[fresh(legal(name), arrays)] = value
    source = Source(program=f"ONNX Runtime {onnxruntime.__version__}", note=f"{proto.producer_name}: {model}")
    write_trace(path, arrays, source, maps_in("NCHW", arrays))
