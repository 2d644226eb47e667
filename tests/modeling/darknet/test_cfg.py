"""The cfg reader: Darknet's grammar, the values it goes on with, notes on what it changes, errors, damaged files."""

import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modeling.darknet.cfg import LARGEST_FILE, parse_cfg, read_cfg
from modeling.darknet.grammar import CfgError, atof, atoi
from modeling.darknet.weights import network_records
from official.core.errors import UserError

NET = "[net]\nwidth=64\nheight=48\nchannels=3\n"
CONV = "[convolutional]\nfilters=18\n"
YOLO = "[yolo]\nclasses=1\nnum=3\nanchors=1,2, 3,4, 5,6\n"


def parse(text):
    return parse_cfg(text, "x.cfg")


def layer(section, index=-1):
    return parse(NET + section).layers[index]


def messages(text):
    return [str(note) for note in parse(text).notes]


def test_blanks_disappear_anywhere_and_comments_are_lines():
    network = parse(
        "# head\n\n[ n et ]\r\n wi dth = 6 4\nheight=48 \n;x=1\nchannels\t=3\n"
        " [con vol ut ional]\nfil ters=1 6 # many\n"
    )
    assert (network.net.width, network.net.height, network.net.channels) == (64, 48, 3)
    assert network.layers[0].filters == 16
    assert (network.net.line, network.layers[0].line, network.layers[0].index) == (3, 8, 0)
    assert not network.notes


def test_the_first_of_two_equal_keys_wins():
    text = NET + "[convolutional]\nstride=2\nstride=1\n"
    assert parse(text).layers[0].stride == 2
    assert messages(text) == [
        "x.cfg:7: [convolutional] 'stride=1' repeats a key; Darknet keeps the first, 'stride=2' in line 6"
    ]


def test_a_key_without_a_value_takes_the_default_even_if_it_is_given_again():
    network = parse(NET + "[convolutional]\nstride\nstride=2\nfilters=\nfilters=7\n")
    assert (network.layers[0].stride, network.layers[0].filters) == (1, 7)  # 'filters=' is dropped as a whole
    assert [note.line for note in network.notes] == [6, 7, 8]


@pytest.mark.parametrize(
    ("alias", "section"),
    [
        ("conv", "convolutional"),
        ("max", "maxpool"),
        ("avg", "avgpool"),
        ("local_avg", "local_avgpool"),
        ("conn", "connected"),
        ("soft", "softmax"),
        ("lrn", "normalization"),
    ],
)
def test_aliases_of_sections(alias, section):
    assert layer(f"[{alias}]\n").section == section
    assert parse(f"[network]\n{NET[6:]}{CONV}[silence]\n").layers[1].section == "empty"


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [
        ("12", 12, ""),
        ("-3x", -3, "x"),
        ("+4.9", 4, ".9"),
        ("", 0, ""),
        ("x1", 0, "x1"),
        ("1e3", 1, "e3"),
        ("0x9", 0, "x9"),
    ]
    + [("007", 7, ""), ("-2147483648", -2147483648, ""), ("2147483647", 2147483647, ""), ("--1", 0, "--1")],
)
def test_integers_are_read_as_by_atoi(text, value, rest):
    assert atoi(text) == (value, rest)


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [(".5", 0.5, ""), ("1.", 1.0, ""), ("-2.5e-3#", -0.0025, "#"), ("1e", 1.0, "e"), ("", 0.0, ""), (".", 0.0, ".")]
    + [("0x1.8p1", 3.0, ""), ("0x", 0.0, "x"), ("1,5", 1.0, ",5"), ("1.5.2", 1.5, ".2")],
)
def test_floats_are_read_as_by_atof(text, value, rest):
    assert atof(text) == (value, rest)


@pytest.mark.parametrize("text", ["2147483648", "-2147483649", "9" * 5000, "99999999999"])
def test_integers_beyond_32_bits_are_refused(text):
    with pytest.raises(OverflowError):
        atoi(text)


@pytest.mark.parametrize("text", ["inf", "-Infinity", "nan", "1e39", "1e999", "9" * 5000, "0x1p99999"])
def test_floats_beyond_float32_are_refused(text):
    with pytest.raises(OverflowError):
        atof(text)


def test_defaults_are_darknets():
    network = parse(NET + "[convolutional]\n[shortcut]\nfrom=-1\n[upsample]\n[dropout]\n[maxpool]\nstride=2\n")
    net, (convolution, shortcut, upsample, dropout, pool) = network.net, network.layers
    assert (net.flip, net.momentum, net.decay, net.learning_rate, net.power) == (1, 0.9, 0.0001, 0.001, 4)
    assert (net.policy, net.burn_in, net.resize_step, net.batch, net.mini_batch) == ("constant", 0, 32, 1, 1)
    assert (net.max_crop, net.min_crop, net.B2, net.eps, net.learning_rate_min) == (128, 64, 0.999, 1e-6, 1e-5)
    assert (convolution.filters, convolution.size, convolution.padding) == (1, 1, 0)
    assert (convolution.activation, convolution.batch_normalize, convolution.groups) == ("logistic", 0, 1)
    assert (shortcut.activation, shortcut.weights_type) == ("linear", "none")
    assert (upsample.stride, upsample.scale, dropout.probability) == (2, 1.0, 0.2)
    assert (pool.size, pool.padding, pool.stride_x, pool.stride_y) == (2, 1, 2, 2)


def test_defaults_of_yolo_are_darknets():
    yolo = layer("[conv]\nfilters=25\n[yolo]\nanchors=8,9\n")
    assert (yolo.classes, yolo.num, yolo.mask, yolo.anchors, yolo.max) == (20, 1, (0,), ((8.0, 9.0),), 200)
    assert (yolo.iou_normalizer, yolo.obj_normalizer, yolo.cls_normalizer) == (0.75, 1.0, 1.0)
    assert (yolo.ignore_thresh, yolo.truth_thresh, yolo.iou_thresh, yolo.jitter) == (0.5, 1.0, 1.0, 0.2)
    assert (yolo.iou_loss, yolo.iou_thresh_kind, yolo.nms_kind, yolo.beta_nms) == ("mse", "iou", "default", 0.6)
    assert (yolo.max_delta, yolo.counters_per_class, yolo.show_details) == (3.4028234663852886e38, None, 1)


@pytest.mark.parametrize(
    ("options", "padding"),
    [("size=3\npad=1\n", 1), ("size=3\npad=1\npadding=5\n", 1), ("size=4\npad=2\n", 2), ("size=3\npadding=5\n", 5)]
    + [("size=1\npad=1\n", 0), ("size=7\npad=0\n", 0)],
)
def test_pad_means_half_the_size(options, padding):
    assert layer(f"[convolutional]\n{options}").padding == padding


def test_derived_values():
    convolution = layer("[convolutional]\nstride=2\nstride_y=3\ndilation=4\ncbn=1\n")
    assert (convolution.stride_x, convolution.stride_y, convolution.dilation) == (2, 3, 1)  # no dilation of one pixel
    assert convolution.batch_normalize == 2
    pool = layer("[maxpool]\nsize=3\nstride=2\nstride_x=1\npadding=0\n")
    assert (pool.stride_x, pool.stride_y, pool.padding) == (1, 2, 0)
    route = layer(CONV * 3 + "[route]\nlayers = -1, 0\n")
    assert route.layers == (2, 0)
    shortcut = layer(CONV * 3 + "[shortcut]\nfrom=-3,1\nweights_type=per_layer\nweights_normalization=avg_relu\n")
    assert (shortcut.from_, shortcut.weights_type, shortcut.weights_normalization) == ((0, 1), "per_feature", "relu")
    assert layer(CONV * 3 + "[sam]\nfrom=-2\n").from_ == 1
    assert layer(CONV * 3 + "[convolutional]\nfilters=18\nshare_index=-2\n").share_index == 1


@pytest.mark.parametrize(
    ("options", "mixup"),
    [("", 0), ("mixup=1", 1), ("mosaic=1", 3), ("cutmix=1", 2), ("mosaic=1\ncutmix=1", 4), ("mixup=1\nmosaic=1", 3)],
)
def test_mosaic_and_cutmix_are_kinds_of_mixup(options, mixup):
    assert parse(f"{NET}{options}\n{CONV}").net.mixup == mixup


def test_lists():
    text = "batch=64\nsubdivisions=8\npolicy=steps\nsteps=400, 450 #,500\nscales=.1,.2,.3\n"
    network = parse(NET + text + CONV + YOLO + "mask = 0, 2 # 1\n")
    assert (network.net.steps, network.net.scales, network.net.mini_batch) == ((400, 450), (0.1, 0.2, 0.3), 8)
    assert network.layers[1].mask == (0, 2)
    assert network.layers[1].anchors == ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))
    assert network.heads == (network.layers[1],)
    assert [note.key for note in network.notes] == ["scales"]  # one more than steps


def test_train_only_bn_holds_for_all_layers_before():
    network = parse(NET + CONV + CONV + "train_only_bn=1\n" + CONV)
    assert [layer.train_only_bn for layer in network.layers] == [1, 1, 0]


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("[convolutional]\nactivation=leeky\n", ("activation", "relu"), "takes relu"),
        (CONV + YOLO + "iou_loss=fiou\n", ("iou_loss", "iou"), "takes iou"),
        (CONV + YOLO + "iou_thresh_kind=mse\n", ("iou_thresh_kind", "iou"), "takes iou"),
        (CONV + YOLO + "nms_kind=cornersnms\n", ("nms_kind", "default"), "takes default"),
        ("[convolutional]\nstride=two\n", ("stride", 1), None),
        ("[convolutional]\nfilters=16.5\n", ("filters", 16), "'16.5' in filters as 16"),
        ("[dropout]\nprobability=,5\n", ("probability", 0.0), "',5' in probability as 0.0"),
        (CONV + "[route]\nlayers=-1,\n", ("layers", (0, 0)), "'' in layers as 0"),
        (
            CONV + YOLO + "beta1=3\n",
            ("beta_nms", 0.6),
            "does not know beta1 here and ignores it; did you mean beta_nms?",
        ),
        (CONV + "[yolo]\nclasses=1\nnum=3\nanchors=1,2, 3\n", ("anchors", ((1, 2), (3, 0.5), (0.5, 0.5))), "takes 0.5"),
        (CONV + YOLO.replace("num=3", "num=2") + "mask=0,1,2\n", ("anchors", ((1, 2), (3, 4), (5, 6))), "Set num"),
    ],
)
def test_what_darknet_silently_changes_is_noted(section, value, says):
    if says is None:  # 0 where a number is needed: no value that Darknet could go on with
        with pytest.raises(CfgError, match="stride is 0; expected 1 to"):
            layer(section)
        return
    section = CONV + section if section.startswith("[dropout]") else section
    assert getattr(layer(section), value[0]) == value[1]
    assert any(says in message for message in messages(NET + section))


@pytest.mark.parametrize("text", ["8#,16", "8;x", "8.0", "8."])
def test_a_comment_after_a_number_is_not_worth_a_note(text):
    network = parse(f"{NET}[convolutional]\nfilters={text}\n")
    assert network.layers[0].filters == 8
    assert not network.notes


def test_an_unknown_policy_is_constant():
    network = parse(NET + "policy=cosine\n" + CONV)
    assert network.net.policy == "constant"
    assert "x.cfg:5: [net] policy=cosine is unknown to Darknet, which takes constant" in str(network.notes[0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "x.cfg: the first section must be [net]"),
        ("[convolutional]\n", "the first section must be [net] or [network]; found [convolutional] in line 1"),
        ("width=3\n[net]\n", "x.cfg:1: 'width=3' comes before any section"),
        ("\ufeff[net]\n", "delete the byte order mark"),
        ("[net]\0\n", "zero bytes"),
        (NET, "x.cfg:1: [net] is not followed by any layer"),
        (NET + NET, "x.cfg:5: [net] may only be the first section"),
        ("[net]\nwidth=64\n" + CONV, "x.cfg:1: [net] needs width, height and channels"),
        (
            NET + "[convolutionel]\n",
            "x.cfg:5: [convolutionel] is no section of Darknet's; did you mean [convolutional]?",
        ),
        (NET + "[convolutional\n", "x.cfg:5: [[convolutional] is no section"),
        (NET + "[lstm]\n", "x.cfg:5: [lstm] is not supported"),
        (NET + "[convolutional]\nfilters=-1\n", "x.cfg:6: [convolutional] filters is -1; expected 1 to"),
        (
            NET + "[convolutional]\nfilters=99999999999\n",
            "x.cfg:6: [convolutional] filters has '99999999999'; expected",
        ),
        (NET + "[convolutional]\nfilters=100000000\n", "filters is 100000000; expected 1 to 16777216"),
        (NET + "learning_rate=nan\n" + CONV, "x.cfg:5: [net] learning_rate has 'nan'; expected a finite float32"),
        (NET + "subdivisions=0\n" + CONV, "subdivisions is 0; expected 1"),
        (NET + "policy=steps\nsteps=1,2\n" + CONV, "x.cfg:5: [net] policy is steps, which needs steps= and scales="),
        (NET + "policy=steps\nsteps=1,2\nscales=1\n" + CONV, "scales has 1 values; expected one for each of the 2"),
        (NET + "contrastive=1\n" + CONV, "contrastive needs a mini-batch"),
        (NET + CONV + "[route]\n", "x.cfg:7: [route] must say layers="),
        (NET + CONV + "[route]\nlayers=1\n", "x.cfg:8: [route] layers names layer 1; layer 1 can take 0 to 0"),
        (NET + CONV + "[route]\nlayers=-2\n", "layers names layer -1"),
        (NET + CONV + "[route]\nlayers=0\ngroups=2\ngroup_id=2\n", "group_id is 2; expected 0 to 1"),
        (NET + CONV + "[shortcut]\n", "must say from="),
        (NET + CONV + "[sam]\n", "must say from="),
        (NET + CONV + "[shortcut]\nfrom=-1\nweights_type=each\n", "weights_type is 'each'; expected one of none"),
        (NET + CONV + "[shortcut]\nfrom=-1\nweights_type=per_layer\n", "weights_normalization must be relu"),
        (NET + "[dropout]\n", "x.cfg:5: [dropout] cannot be the first layer"),
        (NET + "[empty]\n", "cannot be the first layer"),
        (NET + CONV + "[dropout]\nprobability=1\n", "probability is 1.0; expected 0 or more, below 1"),
        (NET + CONV + "[upsample]\nstride=0\n", "stride is 0"),
        (NET + CONV + "groups=5\n", "groups is 5, which does not divide filters=18"),
        (NET + CONV + CONV + "size=3\nshare_index=0\n", "names layer 0, which has size=1 filters=18 groups=1"),
        (NET + CONV + "[maxpool]\n" + CONV + "share_index=1\n", "names layer 1, a [maxpool]"),
        (NET + CONV + CONV + "share_index=0\nbatch_normalize=1\n", "which has no batch_normalize"),
        (NET + "[local]\nsize=5\npad=1\n", "pad is 1; here it is the padding itself"),
        (NET + CONV + YOLO + "mask=3\n", "x.cfg:11: [yolo] mask names anchor 3; expected 0 to 2, as num=3"),
        (NET + CONV + YOLO + "mask=-1\n", "mask names anchor -1"),
        (NET + CONV + YOLO.replace("1,2", "0,2"), "anchors has a side of 0.0"),
        (NET + CONV + YOLO + "counters_per_class=1,2\n", "counters_per_class has 2 values; expected classes=1"),
        (NET + CONV + YOLO.replace("yolo", "Gaussian_yolo").replace("num=3", "num=2"), "has 6 numbers; expected 4"),
        (NET + CONV + "[yolo]\nnum=2000000000\n", "num is 2000000000; expected 1 to 100"),
        (NET + CONV + "[contrastive]\nyolo_layer=-1\n", "names layer 0; expected a [yolo] layer"),
    ],
)
def test_errors_name_the_place_and_what_was_expected(text, says):
    with pytest.raises(CfgError) as error:
        parse(text)
    assert says in str(error.value)
    assert str(error.value).startswith("x.cfg")


def test_files(tmp_path):
    path = tmp_path / "x.cfg"
    path.write_bytes((NET + CONV + "# \xff not UTF-8\n").encode("latin-1"))
    assert read_cfg(str(path)).source == str(path)
    with pytest.raises(CfgError, match=r"none\.cfg: cannot read the cfg"):
        read_cfg(str(tmp_path / "none.cfg"))
    with pytest.raises(CfgError, match=r"cannot read the cfg|no Darknet cfg"):
        read_cfg(str(tmp_path))
    path.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(CfgError, match="is no Darknet cfg"):
        read_cfg(str(path))


def test_published_cfgs(shared):
    """All cfgs of Darknet itself but the recurrent ones are read; what is strange in them is known."""
    folder = shared / "assets/darknet/cfg"
    notes, refused = {}, set()
    for path in sorted(folder.rglob("*.cfg")):
        try:
            found = read_cfg(str(path)).notes
        except CfgError:
            refused.add(path.name)
            continue
        if found:
            notes[path.name] = sorted({note.key for note in found})
    assert refused == {"rnn.cfg", "rnn.train.cfg", "gru.cfg", "lstm.train.cfg"}
    assert notes == {
        "Gaussian_yolov3_BDD.cfg": ["max_epochs"],
        "cspx-p7-mish.cfg": ["anchors", "mask"],  # 20 anchors, of which num=16 are read
        "cspx-p7-mish_hp.cfg": ["anchors"],  # a comma is missing
        "efficientnet-lite3.cfg": ["decay", "momentum"],
        "efficientnet_b0.cfg": ["decay", "momentum"],
        "writing.cfg": ["seen"],
        "yolo9000.cfg": ["batch", "subdivisions"],
        "yolov3-openimages.cfg": ["batch", "subdivisions"],
        "yolov4-sam-mish-csp-reorg-bfm.cfg": ["beta1", "uc_normalizer"],
    }


DAMAGED = NET + (
    "batch=4\npolicy=steps\nsteps=1,2\nscales=.1,.1\n[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\n"
    "pad=1\nactivation=leaky\n[convolutional]\nfilters=8\ngroups=2\n[shortcut]\nfrom=-2\n[maxpool]\nsize=2\nstride=2\n"
    "[route]\nlayers=-1,-2\n[connected]\noutput=4\n[route]\nlayers=0\n[upsample]\n[convolutional]\nfilters=18\n" + YOLO
)
NUMBERS = [
    "-1",
    "0",
    "2147483647",
    "16777216",
    "99999999999",
    "9" * 5000,
    "1e30",
    "nan",
    ",,,",
    "#",
    "0x1p1023",
    "-999",
]


def check_damaged(text: str) -> None:
    """Read, or refused by our own error; and never with much more memory than the text has."""
    tracemalloc.start()
    try:
        network_records(parse(text))
    except UserError as error:
        assert len(str(error)) < 2000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000 + 400 * len(text)


@settings(max_examples=150, deadline=None)
@given(st.text("[]=,#;-.0123456789e\n\t xnetconvolutionalyrp\0", max_size=300))
@example("[net]\n[net]")
@example("[net]\nwidth=1\nheight=1\nchannels=1\n" + "[yolo]\nnum=100\n" * 200)
def test_any_text_is_read_or_refused(text):
    check_damaged(text)
    check_damaged(NET + text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_cfg_is_read_or_refused(data):
    lines = DAMAGED.split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        key = lines[number].partition("=")[0]
        how = data.draw(st.sampled_from(["number", "cut", "repeat", "drop", "bit"]))
        if how == "number":
            lines[number] = f"{key}={data.draw(st.sampled_from(NUMBERS))}"
        elif how == "cut":
            lines[number] = lines[number][: data.draw(st.integers(0, len(lines[number])))]
        elif how == "repeat":
            lines.insert(data.draw(st.integers(0, len(lines))), lines[number])
        elif how == "drop":
            lines[number] = ""
        elif lines[number]:
            place, bit = data.draw(st.integers(0, len(lines[number]) - 1)), data.draw(st.integers(0, 6))
            changed = chr(ord(lines[number][place]) ^ 1 << bit)
            lines[number] = lines[number][:place] + changed + lines[number][place + 1 :]
    check_damaged("\n".join(lines))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7), st.booleans())
def test_a_real_cfg_with_flipped_bits_or_cut_off(shared, place, bit, cut):
    content = bytearray((shared / "assets/darknet/cfg/yolov4-tiny.cfg").read_bytes())
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    check_damaged(content.decode("utf-8", errors="replace"))
