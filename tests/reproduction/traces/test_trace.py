import io
import json
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproduction.traces.trace import Layout, Source, TraceError, read_trace, relayout, write_trace

ARRAYS = {
    "X": np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5),
    "train/L004_cost": np.float32(1.5),
    "double": np.linspace(0, 1, 7),
    "half": np.array([[1, 2]], np.float16),
    "ids": np.array([-3, 2**40]),
    "levels": np.arange(256, dtype=np.uint8),
    "mask": np.array([True, False]),
    "none": np.zeros((0, 4), np.float32),
    "meta/cfg": "[net]\nwidth=64 # Größe\n",
}
SOURCE = Source(program="Darknet", repository="AlexeyAB/darknet", commit="59596d78")
LAYOUTS = {"X": Layout(layout="NCHW", axes=("image", "channel", "row", "column"))}


@pytest.fixture
def path(tmp_path):
    write_trace(tmp_path / "case.npz", ARRAYS, SOURCE, LAYOUTS)
    return tmp_path / "case.npz"


def rewrite(path, **members: bytes | None):
    """The zip with members replaced, added or (None) left out; the manifest goes."""
    with zipfile.ZipFile(path) as archive:
        kept = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (kept | members).items():
            if data is not None:
                archive.writestr(name, data)
    path.with_suffix(".json").unlink(missing_ok=True)


def npy(values, **how) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, **how)
    return file.getvalue()


@pytest.mark.parametrize("with_manifest", [True, False])
def test_what_is_written_is_read(path, with_manifest):
    if not with_manifest:
        path.with_suffix(".json").unlink()
    trace = read_trace(path)
    assert list(trace) == list(ARRAYS) and len(trace) == len(ARRAYS)
    for name, values in ARRAYS.items():
        read = trace[name]
        assert read.dtype == np.asarray(values).dtype and read.shape == np.shape(values)
        np.testing.assert_array_equal(read, values)
    assert trace.text("meta/cfg") == ARRAYS["meta/cfg"]
    assert trace.number("train/L004_cost") == 1.5
    assert trace.layout("X") == ("NCHW" if with_manifest else "")
    assert trace.source == (SOURCE if with_manifest else Source())


def test_numpy_reads_it_and_the_manifest_is_plain_json(path):
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == set(ARRAYS)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["format"] == "detector trace" and manifest["source"]["commit"] == "59596d78"
    entry = manifest["arrays"]["X"]
    assert entry["shape"] == [2, 3, 4, 5] and entry["dtype"] == "float32" and entry["layout"] == "NCHW"
    assert entry["axes"][1] == "channel" and len(entry["sha256"]) == 64
    assert manifest["arrays"]["meta/cfg"]["dtype"] == "text"


def test_same_arrays_same_bytes_and_nothing_else_is_left(path, tmp_path):
    first = path.read_bytes()
    write_trace(path, ARRAYS, SOURCE, LAYOUTS)
    assert path.read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["case.json", "case.npz"]


def test_foreign_writers_may_store_big_endian_fortran_and_bytes(path):
    rewrite(
        path,
        **{"big.npy": npy(np.array([1.5, 2], ">f8")), "fortran.npy": npy(np.asfortranarray(ARRAYS["X"]))},
        **{"cfg.npy": npy(np.array("höh".encode()))},
    )
    trace = read_trace(path)
    assert trace["big"].dtype == np.float64 and trace["big"].tolist() == [1.5, 2]
    np.testing.assert_array_equal(trace["fortran"], ARRAYS["X"])
    assert trace.text("cfg") == "höh"


def test_a_manifest_without_hashes_is_enough(path):
    manifest = json.loads(path.with_suffix(".json").read_text())
    for entry in manifest["arrays"].values():
        del entry["sha256"], entry["axes"], entry["layout"]
    path.with_suffix(".json").write_text(json.dumps(manifest))
    assert read_trace(path)["X"].shape == (2, 3, 4, 5)


class TestTypedAccess:
    def test_shape_and_dtype(self, path):
        trace = read_trace(path)
        assert trace.array("X", (2, "channels", 4, "columns"), np.floating).shape == (2, 3, 4, 5)
        with pytest.raises(
            TraceError, match=r"case.npz: expected array 'X' of shape \(2, 4, 5, 3\), found \(2, 3, 4, 5\)"
        ):
            trace.array("X", (2, 4, 5, 3))
        with pytest.raises(TraceError, match=r"of shape \(images, 3\), found"):
            trace.array("X", ("images", 3))
        with pytest.raises(TraceError, match="expected array 'X' of integer, found float32"):
            trace.array("X", dtype=np.integer)

    def test_missing_names_the_nearest(self, path):
        with pytest.raises(TraceError, match="no array 'train/L004_costs'; the nearest of its names: train/L004_cost"):
            read_trace(path).number("train/L004_costs")
        with pytest.raises(TraceError, match="no array 'zzz'; it has 9 others"):
            read_trace(path)["zzz"]

    def test_number_and_text(self, path):
        trace = read_trace(path)
        with pytest.raises(TraceError, match=r"expected array 'ids' of shape \(\), found \(2,\)"):
            trace.number("ids")
        with pytest.raises(TraceError, match="expected array 'train/L004_cost' of character, found float32"):
            trace.text("train/L004_cost")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(TraceError, match=r"case.npz: not a whole .npz file"):
        read_trace(path)


def test_absent_file_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (npy(np.array([{}], object), allow_pickle=True), "its dtype is object"),
        (npy(np.zeros(2, complex)), "its dtype is complex128"),
        (npy(np.zeros(2, [("a", "f4")])), "its dtype is"),
        (npy(np.zeros(2, "M8[s]")), "its dtype is"),
        (npy(np.zeros(3))[:-4], r"shape \(3,\) and dtype float64 do not agree with its 148 bytes"),
        (npy(np.zeros(3)) + b"\0" * 8, "do not agree"),
        (npy(np.zeros(3)).replace(b"(3,)", b"(9,)"), "do not agree"),
        (npy(np.zeros((2, 3))).replace(b"(2, 3), ", b"(-2,-3),"), "do not agree"),
        (npy(np.zeros(3)).replace(b"(3,)", b"(((("), "cannot be read"),
        (npy(np.zeros(3)).replace(b"(3,), }      ", b"(10**30,), } "), "cannot be read"),
        (npy(np.zeros(3), version=(3, 0)), r"its .npy version is \(3, 0\)"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100, "cannot be read"),
        (b"", "cannot be read"),
        (b"<html>", "cannot be read"),
    ],
)
def test_damaged_member_is_one_error_and_the_others_are_read(path, header, message):
    rewrite(path, **{"X.npy": header})
    trace = read_trace(path)
    with pytest.raises(TraceError, match=r"case\.npz: array 'X' cannot be read: ") as error:
        trace["X"]
    error.match(message)
    assert trace["double"].shape == (7,)


def test_changed_arrays_are_found_by_the_manifest(path):
    manifest = path.with_suffix(".json").read_text()
    changed = ARRAYS["X"].copy()
    changed[1, 2, 3, 4] += 1e-4
    rewrite(path, **{"X.npy": npy(changed)})
    path.with_suffix(".json").write_text(manifest)
    with pytest.raises(TraceError, match="array 'X' was changed: its SHA-256"):
        read_trace(path)["X"]
    rewrite(path, **{"X.npy": npy(changed.swapaxes(2, 3))})
    path.with_suffix(".json").write_text(manifest)
    with pytest.raises(TraceError, match=r"the manifest says shape and dtype \(\(2, 3, 4, 5\), 'float32'\), found"):
        read_trace(path)["X"]
    rewrite(path, **{"X.npy": None})
    path.with_suffix(".json").write_text(manifest)
    with pytest.raises(TraceError, match="array 'X' is in the manifest alone"):
        read_trace(path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "other"}', '{"format": "detector trace", "version": 2}'])
def test_a_file_that_is_no_manifest(path, text):
    path.with_suffix(".json").write_text(text)
    with pytest.raises(TraceError, match=r"case\.json: not a manifest of a trace"):
        read_trace(path)


def test_bombs_take_no_memory(tmp_path):
    bomb = tmp_path / "bomb.npz"
    header = npy(np.zeros(1, np.uint8)).replace(b"(1,)            ", b"(400000000,)    ")[:-1]
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(header)
        for _ in range(400):
            member.write(b"\0" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(TraceError, match="claims to hold 400,000,128 bytes of arrays, too much for a file of"):
        read_trace(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    # The same with a table of contents that denies it: no more is read than it admits.
    data = bomb.read_bytes().replace((400_000_128).to_bytes(4, "little"), (1_000_128).to_bytes(4, "little"))
    bomb.write_bytes(data)
    with pytest.raises(TraceError):
        read_trace(bomb)["x"]
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(1, 255), cut=st.booleans())
def test_flipped_bytes_give_the_array_or_our_error(path, at, byte, cut):
    good = path.read_bytes()
    bad = bytearray(good)
    bad[at % len(bad)] ^= byte
    if cut:
        del bad[-(at % 200) :]
    file = path.with_name("bad.npz")
    file.write_bytes(bytes(bad))
    try:
        trace = read_trace(file)
    except TraceError:
        return
    for name in trace:
        try:
            np.testing.assert_array_equal(trace[name], ARRAYS.get(name, trace[name]))
        except TraceError as error:
            assert str(file) in str(error)


class TestWriting:
    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": np.array([{}])}, "array 'x' has dtype object"),
            ({"x": np.zeros(2, complex)}, "array 'x' has dtype complex128"),
            ({"": np.zeros(2)}, "is no name for an array"),
            ({"../x": np.zeros(2)}, "is no name for an array"),
            ({"/x": np.zeros(2)}, "is no name for an array"),
        ],
    )
    def test_what_no_trace_can_hold(self, tmp_path, arrays, message):
        with pytest.raises(TraceError, match=message):
            write_trace(tmp_path / "x.npz", arrays)
        assert not (tmp_path / "x.npz").exists()

    def test_layouts_that_do_not_fit(self, tmp_path):
        for layout in (Layout(layout="NHWC"), Layout(axes=("row",))):
            with pytest.raises(TraceError, match="array 'x' has 2 axes, its layout says"):
                write_trace(tmp_path / "x.npz", {"x": np.zeros((2, 3))}, layouts={"x": layout})
        with pytest.raises(TraceError, match="a layout is given for 'y'"):
            write_trace(tmp_path / "x.npz", {"x": np.zeros(2)}, layouts={"y": Layout()})

    def test_another_ending(self, tmp_path):
        with pytest.raises(TraceError, match=r"ends in \.npz"):
            write_trace(tmp_path / "x.json", {"x": np.zeros(2)})


def test_relayout():
    assert relayout(ARRAYS["X"], "NCHW", "NHWC").shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(relayout(relayout(ARRAYS["X"], "NCHW", "HWCN"), "HWCN", "NCHW"), ARRAYS["X"])
    for given_, wanted in (("NCHW", "NHW"), ("NCHH", "NHHC"), ("NC", "CN"), ("NCHW", "OIHW")):
        with pytest.raises(TraceError, match="cannot turn an array of shape"):
            relayout(ARRAYS["X"], given_, wanted)
