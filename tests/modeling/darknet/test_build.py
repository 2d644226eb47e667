"""Networks from cfg files: the shapes and weights Darknet counts, names, seeds, freezing, sizes, precision, files."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from modeling.darknet.build import Graph, build_network, layer_index
from modeling.darknet.cfg import Network, parse_cfg, read_cfg
from modeling.darknet.classes import with_classes
from modeling.darknet.grammar import CfgError
from modeling.darknet.shapes import layer_shapes
from modeling.folding import fold_into
from modeling.layers.batch_norm import BatchNorm
from modeling.layers.convolution import Convolution
from official.core.errors import UserError
from tests.modeling.trained import trained_like

SHAPES = "misc/layer_shapes_all_detector_cfgs.json"
FAST = ("yolov3-tiny", "yolo-fastest-1.1.cfg", "enet-coco", "yolov2-tiny.cfg", "yolov7-tiny", "tiny_contrastive")
HEADER = "[net]\nwidth=96\nheight=64\nchannels=3\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride={}\npad=1\nactivation={}\n"
YOLO = "[yolo]\nmask=0,1\nanchors=10,14,23,27,37,58\nclasses=3\nnum=3\n"
# Most kinds of layer; its head is [b, 4, 6, 2, 8] for 64 x 96.
MIXED = (
    HEADER
    + CONV.format(8, 2, "leaky")  # 0
    + CONV.format(8, 2, "mish")  # 1
    + CONV.format(8, 1, "swish").replace("pad=1", "pad=1\ngroups=8")  # 2
    + "[shortcut]\nfrom=-2\nactivation=leaky\n"  # 3
    + "[route]\nlayers=-1\ngroups=2\ngroup_id=1\n"  # 4
    + CONV.format(4, 1, "relu")  # 5
    + "[route]\nlayers=-1,-2\n"  # 6
    + CONV.format(8, 1, "leaky").replace("pad=1", "pad=1\ngroups=2")  # 7
    + "[maxpool]\nsize=2\nstride=2\n"  # 8
    + "[avgpool]\n[convolutional]\nfilters=8\nactivation=logistic\n[scale_channels]\nfrom=-3\n"  # 9 10 11
    + "[reorg3d]\nstride=2\n[upsample]\nstride=2\n"  # 12 13
    + "[route]\nlayers=-1,-3\n[batchnorm]\n"  # 14 15
    + CONV.format(16, 2, "leaky")  # 16
    + "[shortcut]\nfrom=-1,-1\nweights_type=per_channel\nweights_normalization=softmax\nactivation=linear\n"  # 17
    + "[dropout]\nprobability=.2\n"  # 18
    + "[convolutional]\nsize=1\nstride=1\nfilters=16\nactivation=linear\n"  # 19
    + YOLO
)
FLAT = (
    HEADER.replace("96", "14").replace("64", "21")
    + CONV.format(4, 2, "leaky")
    + "[local]\nsize=3\npad=1\nfilters=2\nactivation=leaky\n[dropout]\n"
    + "[connected]\nbatch_normalize=1\noutput=12\nactivation=leaky\n[connected]\noutput=66\nactivation=linear\n"
    + "[detection]\nclasses=6\ncoords=4\nside=2\nnum=1\n".replace("num=1", "num=2\nside=2")
).replace("output=66", "output=64")


def parsed(text: str) -> Network:
    return parse_cfg(text, "test.cfg")


def built(text: str, **options) -> Graph:
    return build_network(parsed(text), **{"seed": 0} | options)


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def assert_close(actual, expected, bound=1e-5):
    for one, two in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        assert np.abs(np.asarray(one) - np.asarray(two)).max() <= bound * max(1.0, np.abs(two).max())


# ---- Darknet's own count of shapes and weights


def assert_as_recorded(network: Network, recorded: dict) -> None:
    graph = build_network(network, seed=0)
    counted = dict.fromkeys(range(len(network.layers)), 0)
    for variable in graph.model.variables:
        counted[layer_index(variable.path)] += int(np.prod(variable.shape))
    assert len(recorded["layers"]) == len(graph.outputs)
    for layer, output, row in zip(network.layers, graph.outputs, recorded["layers"], strict=True):
        _, _, channels, height, width, numbers, weights = row
        shape = tuple(output.shape[1:])
        assert np.prod(shape) == numbers, layer
        if channels and len(shape) == 3:  # a head's raw output has an axis for the anchors, v1's is in a row
            assert shape == (height, width, channels), layer
        assert counted[layer.index] == (0 if getattr(layer, "share_index", None) is not None else weights), layer


def recorded_cfgs(golden, shared):
    recorded = json.loads(golden(SHAPES).read_text())["cfgs"]
    folder = shared / "assets/darknet/cfg"
    paths = {
        key: folder / key.replace("cfg/", "", 1) if key.startswith("cfg/") else folder / key.lower() for key in recorded
    }
    return {key: (paths[key], recorded[key]) for key in recorded}


@pytest.mark.parametrize("name", FAST)
def test_shapes_and_weights_are_darknets(golden, shared, name):
    chosen = {key: value for key, value in recorded_cfgs(golden, shared).items() if name in key}
    path, recorded = next(iter(chosen.values()))
    assert_as_recorded(read_cfg(str(path)), recorded)


@pytest.mark.slow
def test_shapes_and_weights_of_all_detectors_are_darknets(golden, shared):
    cfgs = recorded_cfgs(golden, shared)
    assert len(cfgs) == 68
    refused = []
    for key, (path, recorded) in cfgs.items():
        try:
            assert_as_recorded(read_cfg(str(path)), recorded)
        except CfgError as error:
            refused.append((key, str(error)))
        keras.backend.clear_session()
    assert [key for key, _ in refused] == ["cfg/yolov3-tiny_occlusion_track.cfg"]
    assert "yolov3-tiny_occlusion_track.cfg:112: [crnn] (layer 13) is not supported" in refused[0][1]


# ---- names, seeds, initial weights


def test_layers_are_named_by_index_and_section():
    model = built(MIXED).model
    names = {layer.name for layer in model.layers}
    assert {"L000_convolutional", "L000_convolutional_norm", "L000_convolutional_activation"} <= names
    assert {"L003_shortcut", "L008_maxpool", "L015_batchnorm", "L017_shortcut", "L020_yolo"} <= names
    assert model.output_names == ["L020_yolo"]
    assert {variable.path for variable in model.variables if variable.path.startswith("L010")} == {
        "L010_convolutional/kernel",
        "L010_convolutional/bias",
    }


def test_initial_weights_are_darknets_and_independent_of_neighbours():
    one, same, other = built(MIXED).model, built(MIXED).model, built(MIXED, seed=1).model
    for a, b, c in zip(one.variables, same.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)
        is_drawn = a.path.endswith("kernel") and "shortcut" not in a.path
        assert np.array_equal(a, c) != is_drawn
    fewer = built(MIXED.replace("[shortcut]\nfrom=-2\nactivation=leaky", "[empty]")).model
    np.testing.assert_array_equal(
        fewer.get_layer("L016_convolutional").kernel, one.get_layer("L016_convolutional").kernel
    )
    kernel = np.asarray(built(HEADER + CONV.format(512, 1, "leaky")).model.get_layer("L000_convolutional").kernel)
    limit = np.sqrt(2 / 27)
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.std() - limit / np.sqrt(3)) < 0.02 * limit


def test_local_and_connected_start_within_darknets_limits():
    model = built(FLAT).model
    for name, fan_in in (("L001_local", 36), ("L003_connected", 11 * 7 * 2), ("L004_connected", 12)):
        kernel, limit = np.asarray(model.get_layer(name).kernel), np.sqrt(2 / fan_in)
        assert 0.9 * limit < np.abs(kernel).max() <= limit


# ---- what is not supported says so


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[crnn]\noutput=4\nhidden=4\n", r"test.cfg:5: \[crnn\] \(layer 0\) is not supported"),
        ("[conv]\ncoordconv=1\n", r"test.cfg:5: \[convolutional\] \(layer 0\) coordconv=1 is not supported"),
        ("[reorg3d]\nstride=2\nreverse=1\n[conv]\n", r"test.cfg:5: \[reorg3d\]"),
        ("[conv]\n[activation]\nactivation=mish\n", r"test.cfg:6: \[activation\] \(layer 1\).*outputs zeros"),
        ("[conv]\n[shortcut]\nfrom=-1\nactivation=hard_mish\n", r"test.cfg:6: \[shortcut\].*outputs zeros"),
        ("[conv]\nsize=3\ndilation=2\n", r"test.cfg:5: \[convolutional\] \(layer 0\) has dilation=2.*pad=1"),
        ("[conv]\nfilters=3\nbatch_normalize=1\n[conv]\nfilters=3\nshare_index=0\n", "another batch_normalize or xnor"),
        ("[conv]\nsize=3\nstride=2\npad=1\n[route]\nlayers=-1,-1\n[conv]\nstride=2\n[route]\nlayers=0,-1\n", "layer 3"),
    ],
)
def test_unsupported_or_misfitting_layer_is_an_error_with_its_place(text, message):
    with pytest.raises(CfgError, match=message):
        built(HEADER + text)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            ("batch_normalize=1\nfilters=4", "xnor=1\nbatch_normalize=1\nfilters=4"),
            r"^test.cfg:34: .*\(layer 5\) xnor=1",
        ),
        (("[dropout]", "[dropout]\ndropblock=1"), r"\[dropout\] \(layer 18\) dropblock=1"),
        (("batch_normalize=1\nfilters=4", "cbn=1\nfilters=4"), r"\(layer 5\) cbn=1"),
    ],
)
def test_layers_for_inference_alone_evaluate_but_do_not_train(change, place):
    model = built(MIXED.replace(*change)).model
    assert np.isfinite(model(images(1, 64, 96, 3), training=False)).all()
    with pytest.raises(UserError, match=rf"{place} can be evaluated, but its training is not supported"):
        model(images(1, 64, 96, 3), training=True)


def test_contrastive_detector_evaluates_and_holds_all_its_weights(shared):
    network = read_cfg(str(shared / "assets/darknet/cfg/yolov4-tiny_contrastive.cfg"))
    model = build_network(network, seed=0, input_size=(64, 96)).model
    assert [output.shape[1:3] for output in model.outputs] == [(8, 12)]
    with pytest.raises(UserError, match=r"contrastive.cfg:447: \[contrastive\] \(layer 54\) can be evaluated"):
        model(images(1, 64, 96, 3), training=True)


def test_xnor_uses_signs_and_a_filters_mean_size():
    model = built(HEADER + "[convolutional]\nfilters=4\nxnor=1\nsize=3\npad=1\nactivation=linear\n").model
    layer = model.get_layer("L000_convolutional")
    inputs = images(2, 64, 96, 3) - 0.5
    kernel = np.asarray(layer.kernel)
    binary = np.where(kernel > 0, 1, -1) * np.abs(kernel).mean((0, 1, 2))
    expected = tf.nn.conv2d(np.where(inputs > 0, 1, -1).astype(np.float32), binary.astype(np.float32), 1, "SAME")
    assert_close(model(inputs), expected)


# ---- training behaviour


def gradients_of(model, inputs):
    weights = [variable.value for variable in model.trainable_variables]
    moving = [variable.value for variable in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        outputs, moved = model.stateless_call(weights, moving, inputs, training=True)
        loss = tf.add_n([tf.reduce_sum(tf.square(x) * x) for x in tf.nest.flatten(outputs)])
    paths = [variable.path for variable in model.trainable_variables]
    return dict(zip(paths, tape.gradient(loss, weights), strict=True)), moved


def test_every_weight_of_a_mixed_network_has_a_gradient():
    gradients, _ = gradients_of(built(MIXED).model, images(2, 64, 96, 3))
    assert all(gradient is not None and np.abs(gradient).max() > 0 for gradient in gradients.values())
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.parametrize("text", [MIXED, FLAT], ids=["mixed", "flat"])
def test_train_step_compiles_with_the_same_result(text, not_deterministic):
    text = text.replace("[dropout]", "[empty]")  # rounding would choose other numbers to drop
    model = built(text).model
    inputs = tf.constant(images(4, *model.input_shape[1:]))
    plain = tf.function(lambda x: gradients_of(model, x), autograph=False)(inputs)
    compiled = tf.function(lambda x: gradients_of(model, x), autograph=False, jit_compile=True)(inputs)
    assert_close(tf.nest.flatten(compiled), tf.nest.flatten(plain), 1e-3)


def test_stopbackward_freezes_what_lies_before_it():
    graph = built(MIXED.replace("[shortcut]\nfrom=-2", "[shortcut]\nstopbackward=1\nfrom=-2"))
    gradients, _ = gradients_of(graph.model, images(2, 64, 96, 3))
    assert min(layer_index(path) for path in gradients) == 5
    assert all(gradient is not None for gradient in gradients.values())
    norms = {layer.name: layer.trainable for layer in graph.model.layers if isinstance(layer, BatchNorm)}
    assert norms["L002_convolutional_norm"] is False and norms["L005_convolutional_norm"] is True


def test_the_layer_that_says_stopbackward_gets_no_gradient_but_is_not_frozen():
    graph = built(MIXED.replace("filters=4\n", "filters=4\nstopbackward=1\n"))
    gradients, _ = gradients_of(graph.model, images(2, 64, 96, 3))
    assert gradients["L005_convolutional/kernel"] is None and gradients["L007_convolutional/kernel"] is not None
    assert graph.model.get_layer("L005_convolutional_norm").trainable


def test_onlyforward_stops_the_gradient_at_that_layer_alone():
    text = MIXED.replace("filters=4\n", "filters=4\nonlyforward=1\n")
    gradients, _ = gradients_of(built(text).model, images(2, 64, 96, 3))
    assert gradients["L005_convolutional/kernel"] is None
    assert gradients["L000_convolutional/kernel"] is not None  # by the route around it


def test_dropout_works_in_place():
    """Darknet's dropout changes its input's memory: a route to the layer before it sees the dropped numbers."""
    text = HEADER + "[convolutional]\nfilters=8\nactivation=linear\n[dropout]\nprobability=.5\n[route]\nlayers=0,1\n"
    model = built(text).model
    outputs = np.asarray(model(images(2, 64, 96, 3), training=True))
    np.testing.assert_array_equal(outputs[..., :8], outputs[..., 8:])
    assert 0.45 < (outputs == 0).mean() < 0.55


# ---- sizes, precision, files


def test_sides_may_vary():
    fixed, varying = (trained_like(built(MIXED, input_size=size).model) for size in ((64, 128), (None, None)))
    x = images(2, 64, 128, 3)
    assert tuple(varying.output_shape[1:]) == (None, None, 2, 8)
    assert_close(varying(x), fixed(x))
    unknown = tf.function(lambda x: varying(x), autograph=False, input_signature=[tf.TensorSpec([None, None, None, 3])])
    assert_close(unknown(x), fixed(x))
    assert tuple(varying(images(1, 96, 64, 3)).shape) == (1, 6, 4, 2, 8)


def test_layers_of_one_size_refuse_to_vary():
    with pytest.raises(CfgError, match=r"\[local\] \(layer 1\) takes images of one size only"):
        built(FLAT, input_size=(None, None))


@pytest.mark.parametrize("text", [MIXED, FLAT], ids=["mixed", "flat"])
def test_keras_file_gives_the_same_model(tmp_path, text):
    model = trained_like(built(text).model)
    model.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    x = images(2, *model.input_shape[1:])
    np.testing.assert_array_equal(loaded(x), model(x))


def test_shared_weights_survive_a_keras_file(tmp_path):
    model = built(HEADER + CONV.format(3, 1, "leaky") + CONV.format(3, 2, "leaky") + "share_index=0\n").model
    trained_like(model).save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    assert loaded.count_params() == 3 * 3 * 9 + 4 * 3
    np.testing.assert_array_equal(loaded(images(2, 64, 96, 3)), model(images(2, 64, 96, 3)))
    assert loaded.output_shape[1:] == (32, 48, 3)


def test_bfloat16_computes_in_bfloat16_and_predicts_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = built(MIXED).model
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = model(images(2, 64, 96, 3), training=True)
    assert outputs.dtype == tf.float32
    assert model.get_layer("L016_convolutional").output.dtype == "bfloat16"
    assert model.get_layer("L019_convolutional").output.dtype == "float32"
    assert {variable.dtype for variable in model.variables} == {"float32"}


# ---- folding

SHARED = HEADER + CONV.format(3, 1, "mish") + CONV.format(3, 2, "leaky") + "share_index=0\n[batchnorm]\n"


@pytest.mark.parametrize(
    "text",
    [MIXED, FLAT, SHARED, MIXED.replace("pad=1\ngroups=2", "pad=1\nxnor=1")],
    ids=["mixed", "connected and local", "shared", "xnor"],
)
def test_folding_keeps_the_outputs(text):
    graph = built(text)
    trained = trained_like(graph.model)
    folded = built(text, norm="folded").model
    fold_into(folded, trained)
    norms = [layer.name for layer in folded.layers if isinstance(layer, BatchNorm)]
    assert norms == [layer.name for layer in trained.layers if layer.name.endswith("_batchnorm")]
    x = images(2, *trained.input_shape[1:])
    compiled = tf.function(lambda x: folded(x, training=False), autograph=False)
    assert_close(compiled(x), trained(x, training=False))


def test_folding_another_network_is_an_error():
    trained = built(MIXED.replace("per_channel", "per_feature")).model
    with pytest.raises(ValueError, match=r"L017_shortcut/kernel is \(3, 1\) in the trained model"):
        fold_into(built(MIXED, norm="folded").model, trained)


# ---- another class count


@pytest.mark.parametrize(
    ("cfg", "before", "filters"),
    [("yolov3-tiny.cfg", 15, 3 * (5 + 7)), ("yolov2-tiny.cfg", 14, 5 * (5 + 7)), ("Gaussian_yolov3_BDD.cfg", 81, 48)],
)
def test_another_class_count_changes_head_and_convolution(shared, cfg, before, filters):
    network = read_cfg(str(shared / "assets/darknet/cfg" / cfg))
    changed = with_classes(network, 7)
    assert [head.classes for head in changed.heads] == [7] * len(network.heads)
    assert changed.layers[before].filters == filters
    same = [a == b for a, b in zip(network.layers, changed.layers, strict=True)]
    assert same.count(False) == 2 * len(network.heads)
    assert with_classes(network, network.heads[0].classes) == network
    assert layer_shapes(changed)[before].output.channels == filters  # its head takes that


def test_network_of_another_class_count_predicts_as_many():
    assert build_network(with_classes(parsed(MIXED), 5), seed=0).model.output_shape[1:] == (4, 6, 2, 10)


def test_another_class_count_of_v1_and_what_described_the_old_classes():
    changed = with_classes(parsed(FLAT), 9)
    assert changed.layers[4].output == 64 + 4 * 3
    counted = parsed(MIXED + "counters_per_class=4,5,6\n")
    assert counted.heads[0].counters_per_class == (4, 5, 6)
    assert with_classes(counted, 3).heads[0].counters_per_class == (4, 5, 6)
    assert with_classes(counted, 4).heads[0].counters_per_class is None


def test_impossible_class_counts_are_errors():
    with pytest.raises(CfgError, match="at least one class"):
        with_classes(parsed(MIXED), 0)
    text = MIXED.replace("[yolo]", "[empty]\n[yolo]")
    with pytest.raises(CfgError, match=r"\[yolo\].*must be \[convolutional\] or \[connected\]"):
        with_classes(parsed(text), 5)


def test_depthwise_and_grouped_convolutions_are_what_they_say():
    kernels = {layer.name: layer.kernel.shape for layer in built(MIXED).model.layers if isinstance(layer, Convolution)}
    assert kernels["L002_convolutional"] == (3, 3, 1, 8) and kernels["L007_convolutional"] == (3, 3, 4, 8)
