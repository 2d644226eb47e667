"""Shapes and parameter counts of every layer, as Darknet itself counts them."""

import json

import numpy as np
import pytest

from modeling.darknet.cfg import parse_cfg, read_cfg
from modeling.darknet.grammar import CfgError
from modeling.darknet.shapes import Shape, count, layer_shapes

NET = "[net]\nwidth=12\nheight=10\nchannels=4\n"


def shapes(sections, **size):
    return layer_shapes(parse_cfg(NET + sections, "x.cfg"), **size)


def test_all_detector_cfgs_have_darknets_shapes_and_weight_counts(shared):
    cfgs = json.loads((shared / "golden/misc/layer_shapes_all_detector_cfgs.json").read_text())["cfgs"]
    assert len(cfgs) == 68
    for name, recorded in cfgs.items():
        network = read_cfg(str(shared / "assets/darknet" / name.replace("Yolo-Fastest/", "cfg/yolo-fastest/")))
        found = layer_shapes(network)
        assert len(found) == recorded["n_layers"]
        for layer, shape, expected in zip(network.layers, found, recorded["layers"], strict=True):
            floats = sum(count(parameter) for parameter in shape.parameters.values())
            if layer.section == "crnn" or getattr(layer, "share_index", None) is not None:
                floats = expected[6]  # the record leaves out the first and counts what is stored elsewhere
            assert [*shape.output, floats] == expected[2:7], f"{name} layer {layer.index}"


def test_recorded_layers_have_their_shapes(golden):
    folder = golden("layers_cudnn_emulated/conv_1x1_pad1.npz").parent
    traces = {path: np.load(path) for path in sorted(folder.glob("*.npz"))}
    recorded = {path: trace for path, trace in traces.items() if "meta/shapes" in trace.files}
    if not recorded:
        pytest.skip("the traces in the repository leave the shapes out")
    for path, trace in recorded.items():
        found = layer_shapes(parse_cfg(str(trace["meta/cfg"]), path.name))
        assert [list(shape.output[:3]) for shape in found] == trace["meta/shapes"].tolist(), path.name
        for index, shape in enumerate(found):
            for name, parameter in shape.parameters.items():
                assert trace[f"init/L{index:03d}_{name}"].size == count(parameter), f"{path.name} {index} {name}"


def test_another_input_size():
    pool = "[maxpool]\nsize=2\nstride=2\n"
    assert shapes(pool)[0].output == Shape(4, 5, 6, 120)
    assert shapes(pool, input_size=(7, 9))[0].output == Shape(4, 4, 5, 80)


def test_parameters_are_in_the_files_order():
    convolution, connected, norm = shapes(
        "[convolutional]\nbatch_normalize=1\nfilters=6\nsize=3\ngroups=2\n[connected]\noutput=5\nbatch_normalize=1\n"
        "[batchnorm]\n"
    )
    assert list(convolution.parameters) == ["biases", "scales", "rolling_mean", "rolling_variance", "weights"]
    assert convolution.parameters["weights"] == (6, 2, 3, 3)
    assert list(connected.parameters) == ["biases", "weights", "scales", "rolling_mean", "rolling_variance"]
    assert connected.parameters["weights"] == (5, 6 * 8 * 10)
    assert list(norm.parameters) == ["biases", "scales", "rolling_mean", "rolling_variance"]


def test_what_is_shared_is_listed_once():
    convolution = "[convolutional]\nfilters=4\nsize=3\npad=1\nbatch_normalize=1\n"
    first, second, third = shapes(convolution + (convolution + "share_index=-1\n") * 2)
    assert first.parameters
    assert not second.parameters
    assert not third.parameters


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        (
            "[convolutional]\nsize=11\n",
            "x.cfg:5: [convolutional] (layer 0) has an output of 2x0x1; its input is too small",
        ),
        ("[convolutional]\nfilters=6\ngroups=3\n", "has groups=3, which does not divide its 4 input channels"),
        ("[convolutional]\nfilters=16777216\nsize=16777216\npad=1\n", "needs a tensor of"),
        ("[connected]\noutput=16777216\n", "needs a tensor of 8053063680 numbers; Darknet's limit is 2147483647"),
        ("[convolutional]\nantialiasing=1\n", "antialiasing is not supported"),
        ("[maxpool]\nsize=5\npadding=0\n[maxpool]\nsize=9\npadding=0\n", "[maxpool] (layer 1) has an output of 0x-2x4"),
        ("[softmax]\n[convolutional]\n", "needs an image; the layer before it gives 480 numbers in a row"),
        ("[softmax]\ngroups=7\n", "has groups=7, which does not divide its 480 inputs"),
        ("[reorg]\nstride=4\n", "has stride=4, which does not divide its input of 12x10"),
        ("[reorg]\nstride=3\nreverse=1\n", "whose square does not divide its 4 input channels"),
        ("[crop]\ncrop_width=13\ncrop_height=10\n", "crops 13x10 from 12x10, which is smaller"),
        ("[maxpool]\n[maxpool]\nstride=2\n[route]\nlayers=0,1\n", "joins layer 0 of 12x10 and layer 1 of 6x5"),
        ("[maxpool]\n[route]\nlayers=0\ngroups=3\n", "has groups=3, which does not divide the 4 channels of 0"),
        ("[maxpool]\n[maxpool]\nstride=2\n[shortcut]\nfrom=0\n", "adds layer 0 of 12x10 to 6x5"),
        ("[maxpool]\n[convolutional]\nfilters=3\n[sam]\nfrom=0\n", "multiplies layer 0 (12x10x4) by (12x10x3)"),
        ("[maxpool]\n[scale_channels]\nfrom=0\n", "scales layer 0 (12x10x4) by (12x10x4); expected (1x1x4)"),
        ("[maxpool]\n[scale_channels]\nfrom=0\nscale_wh=1\n", "expected (12x10x1)"),
        (
            "[maxpool]\n[yolo]\nclasses=3\nnum=2\n",
            "takes 16 channels (classes=3, 2 anchors), but the layer before it gives 4",
        ),
        ("[maxpool]\n[Gaussian_yolo]\nclasses=3\n", "takes 12 channels (classes=3, 1 anchors)"),
        ("[maxpool]\n[region]\nclasses=3\nnum=2\n", "set filters=16 there"),
        ("[connected]\noutput=9\n[detection]\nclasses=3\ncoords=4\n", "= 392 numbers, but the layer before it gives 9"),
        (
            "[convolutional]\nfilters=8\n" * 2 + "share_index=0\n",
            "shares the weights (8, 4, 1, 1) of layer 0; expected",
        ),
    ],
)
def test_layers_that_do_not_fit_are_errors(sections, says):
    with pytest.raises(CfgError) as error:
        shapes(sections)
    assert says in str(error.value)
    assert str(error.value).startswith("x.cfg:")


def test_the_layers_before_are_not_copied_for_each_layer(monkeypatch):
    """A cfg of as many sections as its size allows took minutes, in the square of their number."""
    given = []

    def rule(layer, before, earlier):
        given.append(earlier)
        return before, {}

    monkeypatch.setattr("modeling.darknet.shapes._rule", lambda layer: rule)
    shapes("[maxpool]\n" * 50)
    assert len(given) == 50 and all(earlier is given[0] for earlier in given)
