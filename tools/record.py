"""Writes a trace: python -m tools.record ours|opencv|onnx|convert ... --output FILE.npz

Of PyTorch there is no command, since a module is code: call `record_torch` of traces/record/torch_module.py.
What a model is given comes from a trace (--input, arrays by the inputs' names), or from a picture (--image: RGB, 0..1,
stretched).
"""

import argparse
import os
from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Float32

from configs.experiment import Experiment
from modeling.darknet.cfg import read_cfg
from official.core.config_io import load_config
from official.core.errors import UserError, one_line_errors
from official.vision.protocol import EvaluationProtocol
from official.vision.resize import decode_image, normalise, resize_image
from reproduction.traces.record.convert import convert
from reproduction.traces.record.keras_model import record_model
from reproduction.traces.record.onnx_model import record_onnx
from reproduction.traces.trace import Source, read_trace, relayout
from reproduction.yolo.record_opencv import record_opencv
from tasks import build_task


@one_line_errors
def main() -> None:
    arguments = _parser().parse_args()
    arguments.write(arguments)
    print(f"written: {arguments.output}")


def _ours(arguments: argparse.Namespace) -> None:
    task = build_task(load_config(arguments.config, Experiment, arguments.set))
    model = task.build_model()
    if arguments.weights:
        task.load_weights(model, arguments.weights)
    if arguments.image:
        (height, width), name = model.inputs[0].shape[1:3], model.inputs[0].name
        inputs = {name: picture(arguments.image, (height, width))}
    else:
        inputs = dict(read_trace(arguments.input))
    record_model(model, inputs, arguments.output)


def _opencv(arguments: argparse.Namespace) -> None:
    net = read_cfg(arguments.cfg).net
    if arguments.image:
        image = relayout(picture(arguments.image, (net.height, net.width)), "NHWC", "NCHW")
    else:
        image = read_trace(arguments.input).array("X", ("batch", net.channels, net.height, net.width), np.float32)
    record_opencv(arguments.cfg, arguments.weights, image, arguments.output)


def _onnx(arguments: argparse.Namespace) -> None:
    if arguments.image:
        raise UserError("--image: what an ONNX model wants of a picture is not known; give --input FILE.npz")
    record_onnx(arguments.model, dict(read_trace(arguments.input)), arguments.output)


def _convert(arguments: argparse.Namespace) -> None:
    source = Source(**{name: getattr(arguments, name) for name in Source.model_fields})
    os.makedirs(arguments.output, exist_ok=True)
    for path in map(Path, arguments.files):
        convert(path, Path(arguments.output, path.name), source)


def picture(path: str, size: tuple[int, int]) -> Float32[np.ndarray, "1 height width 3"]:
    """A JPEG or PNG file as a batch of one: [1, height, width, 3], RGB, 0..1, stretched as OpenCV does."""
    if None in size:
        raise UserError("--image: the model takes images of any size; give --input FILE.npz")
    try:
        decoded = decode_image(tf.io.read_file(path))
    except tf.errors.InvalidArgumentError:
        raise UserError(f"--image {path}: expected a JPEG or PNG file") from None
    protocol = EvaluationProtocol(resize="stretch", interpolation="opencv")
    return normalise(resize_image(decoded, size, protocol))[tf.newaxis].numpy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.record", description=__doc__)
    writers = parser.add_subparsers(required=True, metavar="ours|opencv|onnx|convert")
    ours = writers.add_parser("ours", help="every layer of an experiment's model")
    ours.add_argument("--config", required=True)
    ours.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    ours.add_argument("--weights", help="by default the initial ones")
    ours.set_defaults(write=_ours)
    opencv = writers.add_parser("opencv", help="Darknet's cfg and weights by OpenCV")
    opencv.add_argument("--cfg", required=True)
    opencv.add_argument("--weights", required=True)
    opencv.set_defaults(write=_opencv)
    onnx = writers.add_parser("onnx", help="every value of an ONNX model, by ONNX Runtime")
    onnx.add_argument("--model", required=True)
    onnx.set_defaults(write=_onnx)
    for writer in (ours, opencv, onnx):
        given = writer.add_mutually_exclusive_group(required=True)
        given.add_argument("--input", metavar="FILE.npz", help="arrays by the names of the model's inputs")
        given.add_argument("--image", metavar="FILE.jpg")
        writer.add_argument("--output", required=True, metavar="FILE.npz")
    converter = writers.add_parser("convert", help="manifests for traces that have none")
    converter.add_argument("files", nargs="+", metavar="FILE.npz")
    converter.add_argument("--output", required=True, metavar="FOLDER")
    for name in Source.model_fields:
        converter.add_argument(f"--{name}", default="")
    converter.set_defaults(write=_convert)
    return parser


if __name__ == "__main__":
    main()
