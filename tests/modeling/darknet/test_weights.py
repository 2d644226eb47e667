"""Weights files: both headers, Darknet's order, partial files, errors by layer and floats, other classes, damage."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.darknet.cfg import parse_cfg, read_cfg
from modeling.darknet.shapes import count
from modeling.darknet.weights import (
    Header,
    Record,
    WeightsError,
    cut_weights,
    network_records,
    read_weights,
    write_weights,
)
from official.core.errors import UserError

NET = "[net]\nwidth=12\nheight=10\nchannels=2\n"
CFG = NET + (
    "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=3\npad=1\n"  # 0: 4 * 4 + 72 = 88
    "[maxpool]\nsize=2\nstride=2\n"
    "[convolutional]\nfilters=4\nsize=1\n"  # 2: 4 + 16 = 20
    "[convolutional]\nfilters=4\nsize=1\nshare_index=2\n"
    "[shortcut]\nfrom=-2\nweights_type=per_channel\nweights_normalization=relu\n"  # 4: 8
    "[batchnorm]\n"  # 5: 16
    "[local]\nfilters=3\nsize=3\npad=1\n"  # 6: 3 * 30 + 3 * 36 * 30 = 3330
    "[connected]\noutput=5\nbatch_normalize=1\n"  # 7: 20 + 450 = 470
)
FLOATS = {0: 88, 2: 20, 4: 8, 5: 16, 6: 3330, 7: 470}


def records_of(text):
    return network_records(parse_cfg(text, "x.cfg"))


def header_bytes(version=(0, 2, 5), seen=64, wide=True):
    return struct.pack("<iiiQ" if wide else "<iiiI", *version, seen)


@pytest.fixture
def write(tmp_path):
    """`write(floats or a count, header=..., name=...)` -> path of a file; a count stands for 0, 1, 2, ..."""

    def make(floats, header=None, name="x.weights"):
        numbers = np.arange(floats, dtype="<f4") if isinstance(floats, int) else np.asarray(floats, "<f4")
        path = tmp_path / name
        path.write_bytes((header_bytes() if header is None else header) + numbers.tobytes())
        return str(path)

    return make


def error_of(path, records, upto=None):
    with pytest.raises(WeightsError) as error:
        read_weights(path, records, upto)
    assert str(error.value).startswith(path)
    return str(error.value)


def test_the_order_is_darknets(write):
    records = records_of(CFG)
    assert {record.index: sum(map(count, record.parameters.values())) for record in records} == FLOATS
    found = read_weights(write(sum(FLOATS.values())), records).values
    first = found["L000_convolutional"]
    assert list(first) == ["biases", "scales", "rolling_mean", "rolling_variance", "weights"]
    assert [first[name][0] for name in list(first)[:4]] == [0, 4, 8, 12]
    assert first["weights"].shape == (4, 2, 3, 3)
    np.testing.assert_array_equal(first["weights"], np.arange(16, 88).reshape(4, 2, 3, 3))
    connected = found["L007_connected"]
    start = sum(FLOATS.values()) - FLOATS[7]
    assert [connected[name].flat[0] - start for name in ("biases", "weights", "scales")] == [0, 5, 5 + 450]
    assert connected["weights"].shape == (5, 90)
    assert found["L006_local"]["weights"].shape == (5, 6, 3, 4, 3, 3)


@pytest.mark.parametrize(
    ("version", "wide"), [((0, 1, 0), False), ((0, 2, 0), True), ((0, 2, 5), True), ((1, 0, 0), True)]
)
def test_both_headers_are_read_and_written_as_they_were(write, tmp_path, version, wide):
    seen = 32013312 + (1 << 40) * wide
    path = write(sum(FLOATS.values()), header_bytes(version, seen, wide))
    records = records_of(CFG)
    weights = read_weights(path, records)
    assert weights.header == Header(*version, seen)
    write_weights(str(tmp_path / "copy.weights"), weights, records)
    assert (tmp_path / "copy.weights").read_bytes() == (tmp_path / "x.weights").read_bytes()


def test_transposed_and_flipped_weights(write, tmp_path):
    cfg = NET + "[convolutional]\nfilters=3\nflipped=1\n[connected]\noutput=5\n"
    records = records_of(cfg)
    path = write(9 + 5 + 5 * 360, header_bytes((0, 1001, 0)))
    weights = read_weights(path, records)
    np.testing.assert_array_equal(weights.values["L000_convolutional"]["weights"][:, :, 0, 0], [[3, 6], [4, 7], [5, 8]])
    connected = weights.values["L001_connected"]["weights"]
    assert connected.shape == (5, 360)
    np.testing.assert_array_equal(connected[:, 0], np.arange(14, 19))  # input by input
    write_weights(str(tmp_path / "copy.weights"), weights, records)
    assert (tmp_path / "copy.weights").read_bytes() == (tmp_path / "x.weights").read_bytes()
    straight = read_weights(write(9 + 5 + 5 * 360), records).values["L001_connected"]["weights"]
    np.testing.assert_array_equal(straight[0, :3], [14, 15, 16])


def test_layers_that_a_file_lacks(write, tmp_path):
    convolution = "[convolutional]\nbatch_normalize=1\nfilters=2\n"
    records = records_of(NET + convolution + "dontload=1\n" + convolution + "dontloadscales=1\n")
    path = write(2 + 4)
    weights = read_weights(path, records)
    assert weights.values["L000_convolutional"] == {}
    assert list(weights.values["L001_convolutional"]) == ["biases", "weights"]
    write_weights(str(tmp_path / "copy.weights"), weights, records)
    assert (tmp_path / "copy.weights").read_bytes() == (tmp_path / "x.weights").read_bytes()


@pytest.mark.parametrize(
    ("floats", "says"),
    [
        (
            3931,
            "is too short: it ends at L007_connected, whose rolling_variance (5,) lack 1 floats (1 are missing in all)",
        ),
        (87, "it ends at L000_convolutional, whose weights (4, 2, 3, 3) lack 1 floats (3,845 are missing in all)"),
        (0, "it ends at L000_convolutional, whose biases (4,) lack 4 floats (3,932 are missing in all)"),
        (100, "it ends at L002_convolutional, whose weights (4, 4, 1, 1) lack 8 floats (3,832 are missing in all)"),
        (3935, "is too long: 3 floats follow L007_connected, the last that is expected"),
        (116, "; it has the size of the first 5 layers: if that is what it holds, name it *.conv.5"),
    ],
)
def test_a_file_of_another_length_says_where_and_by_how_much(write, floats, says):
    assert sum(FLOATS.values()) == 3932
    assert says in error_of(write(floats), records_of(CFG))


def test_bytes_that_are_no_float(write, tmp_path):
    path = write(3932)
    with open(path, "ab") as file:
        file.write(b"\0")
    assert "1 bytes follow its last float" in error_of(path, records_of(CFG))


@pytest.mark.parametrize(("layers", "floats", "last"), [(1, 88, 0), (2, 88, 0), (4, 108, 2), (5, 116, 4), (8, 3932, 7)])
def test_partial_files_hold_the_layers_their_name_says(write, layers, floats, last):
    records = records_of(CFG)
    weights = read_weights(write(floats, name=f"x.conv.{layers}"), records)
    assert list(weights.values) == [record.name for record in records if record.index <= last]


def test_a_partial_file_whose_name_is_wrong(write):
    records = records_of(CFG)
    says = error_of(write(108, name="x.conv.7"), records)
    assert "it ends at L004_shortcut, whose weights (2, 4) lack 8 floats (3,354 are missing in all)" in says
    assert says.endswith("it has the size of the first 3 layers: if that is what it holds, name it *.conv.3")
    says = error_of(write(116, name="x.conv.3"), records)
    assert "too long: 8 floats follow L002_convolutional" in says


def test_a_cutoff_leaves_the_rest_unread(write):
    records = records_of(CFG)
    path = write(3932)
    assert list(read_weights(path, records, upto=4).values) == ["L000_convolutional", "L002_convolutional"]
    assert read_weights(path, records, upto=0).values == {}
    assert "too short" in error_of(write(80), records, upto=4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has 0 bytes; a .weights file begins with a header of 16 or 20"),
        (b"version https://git-lfs", "is no .weights file of Darknet's: its first bytes are b'version http'"),
        (struct.pack("<iiiI", 0, 2, 5, 0), "has 16 bytes; its header alone has 20"),
        (struct.pack("<iiiI", -1, 2, 5, 0), "is no .weights file"),
    ],
)
def test_what_is_no_weights_file(tmp_path, content, says):
    path = tmp_path / "x.weights"
    path.write_bytes(content)
    assert says in error_of(str(path), records_of(CFG))
    assert "cannot read the weights" in error_of(str(tmp_path / "none.weights"), records_of(CFG))


def test_writing_checks_shapes_and_header(write, tmp_path):
    records = records_of(CFG)
    weights = read_weights(write(3932), records)
    target = str(tmp_path / "y.weights")
    with pytest.raises(WeightsError, match="does not fit into the header"):
        write_weights(target, weights._replace(header=Header(seen=-1)), records)
    with pytest.raises(WeightsError, match="does not fit into the header"):
        write_weights(target, weights._replace(header=Header(0, 1, 0, 1 << 32)), records)
    values = weights.values | {"L005_batchnorm": {"biases": np.zeros(3, np.float32)}}
    with pytest.raises(WeightsError, match=r"biases of L005_batchnorm has shape \(3,\); expected \(4,\)"):
        write_weights(target, weights._replace(values=values), records)
    assert not (tmp_path / "y.weights").exists()


def detector(classes):
    filters = 2 * (5 + classes)
    head = f"[convolutional]\nfilters={filters}\n[yolo]\nclasses={classes}\nnum=4\nanchors=1,2,3,4,5,6,7,8\n"
    body = "[convolutional]\nfilters=6\nsize=3\npad=1\nbatch_normalize=1\n"
    return NET + body + head + "mask=2,3\n[route]\nlayers=0\n" + body + head + "mask=0,1\n"


def test_another_class_count_is_recognised(write, tmp_path):
    theirs, ours = records_of(detector(80)), records_of(detector(3))
    path = write(sum(count(shape) for record in theirs for shape in record.parameters.values()))
    says = error_of(path, ours)
    assert "it fits a network of 80 classes: L001_convolutional has 170 filters in the file, here 16." in says
    assert f"python -m tools.convert --cfg CFG --from {path} --to FILE.conv.1 --partial 1" in says
    assert "fits a network of 3 classes" in error_of(
        write(sum(count(shape) for record in ours for shape in record.parameters.values())), theirs
    )
    (tmp_path / "x.cfg").write_text(detector(3))
    cut_weights(str(tmp_path / "x.cfg"), path, str(tmp_path / "y.conv.1"), 1)
    cut = read_weights(str(tmp_path / "y.conv.1"), ours)
    assert cut.header == Header(0, 2, 5, seen=0)
    assert list(cut.values) == ["L000_convolutional"]
    assert cut.values["L000_convolutional"]["weights"].flat[0] == 24


def test_cutting_out_the_first_layers(write, tmp_path):
    (tmp_path / "x.cfg").write_text(CFG)
    path = write(3932)
    assert "3 layers with weights, of the first 5" in cut_weights(
        str(tmp_path / "x.cfg"), path, str(tmp_path / "x.conv.5"), 5
    )
    assert (tmp_path / "x.conv.5").stat().st_size == 20 + 4 * 116
    for layers in (0, 9):
        with pytest.raises(WeightsError, match=rf"x\.cfg: has 8 layers; cannot cut out the first {layers}"):
            cut_weights(str(tmp_path / "x.cfg"), path, str(tmp_path / "x.conv.9"), layers)
    with pytest.raises(WeightsError, match=r"name it \*\.conv\.5"):
        cut_weights(str(tmp_path / "x.cfg"), path, str(tmp_path / "backbone.weights"), 5)


REAL = ["yolov3-tiny/yolov3-tiny", "yolov4-tiny/yolov4-tiny"]
REAL += ["yolo-fastest-1.1/yolo-fastest-1.1", "yolo-fastest-1.1/yolo-fastest-1.1-xl"]


@pytest.mark.parametrize("name", REAL)
def test_published_files_are_written_as_they_were_read(shared, tmp_path, name):
    path = shared / "assets/darknet" / f"{name}.weights"
    records = network_records(read_cfg(str(path.with_suffix(".cfg"))))
    write_weights(str(tmp_path / "copy.weights"), read_weights(str(path), records), records)
    assert (tmp_path / "copy.weights").read_bytes() == path.read_bytes()


def test_a_published_file_for_another_class_count(shared):
    cfg = (shared / "assets/darknet/cfg/yolov3-tiny.cfg").read_text()
    mine = cfg.replace("filters=255", "filters=75").replace("classes=80", "classes=20")
    says = error_of(str(shared / "assets/darknet/yolov3-tiny/yolov3-tiny.weights"), records_of(mine))
    assert "80 classes: L015_convolutional has 255 filters in the file, here 75." in says
    assert "--to FILE.conv.15 --partial 15" in says


def check_damaged(path, records: list[Record], upto=None) -> None:
    """Read, or refused by our own error; with no more memory than the file's size."""
    tracemalloc.start()
    try:
        read_weights(str(path), records, upto)
    except UserError as error:
        assert len(str(error)) < 1000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100_000 + 1.1 * path.stat().st_size


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=500), st.sampled_from(["x.weights", "x.conv.3", "x.conv.99"]), st.sampled_from([None, 0, 3, -1])
)
def test_any_bytes_are_read_or_refused(scratch, content, name, upto):
    records = records_of(CFG)
    for start in (b"", header_bytes()):
        (scratch / name).write_bytes(start + content)
        check_damaged(scratch / name, records, upto)


@pytest.fixture(scope="module")
def real(shared):
    path = shared / "assets/darknet/yolo-fastest-1.1/yolo-fastest-1.1.weights"
    return path.read_bytes(), network_records(read_cfg(str(path.with_suffix(".cfg"))))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_real_file_with_flipped_bits_or_cut_off(real, scratch, data):
    content, records = bytearray(real[0]), real[1]
    how = data.draw(st.sampled_from(["header", "anywhere", "cut", "longer"]))
    if how == "cut":
        del content[data.draw(st.integers(0, len(content))) :]
    elif how == "longer":
        content += bytes(data.draw(st.integers(1, 5000)))
    else:
        place = data.draw(st.integers(0, 19 if how == "header" else len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    (scratch / "x.weights").write_bytes(content)
    check_damaged(scratch / "x.weights", records)
