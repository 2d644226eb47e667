"""PyTorch's files: as PyTorch wrote them, put together by hand, damaged, and made to harm."""

import builtins
import contextlib
import io
import os
import pickle
import shutil
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch_pickles as ops
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.weights import torch_pickle
from modeling.weights.torch_file import read_state_dict, write_state_dict
from modeling.weights.torch_pickle import TorchFileError

"".encode("cp437")  # zipfile decodes names by it, and imports it when it first does
MADE_BY_TORCH = Path(__file__).parents[2] / "golden/torch"
FILES = ("tensors_zip", "tensors_legacy", "tensors_legacy_protocol4", "checkpoint_zip", "checkpoint_legacy")
TENSOR = ops.tensor(shape=(2, 3), strides=(3, 1))
VALUES = np.arange(6, dtype="<f4").tobytes()


def save(path: Path, tree: bytes, storages=(("0", VALUES),), legacy: bool = False) -> str:
    """A file with this object and these storages, of float32."""
    path.write_bytes(ops.legacy_file(tree, storages) if legacy else ops.zip_file(tree, storages))
    return str(path)


@pytest.mark.parametrize("name", FILES)
def test_files_of_torch_s(name):
    expected = np.load(MADE_BY_TORCH / f"{name.partition('_')[0]}.npz")
    arrays = read_state_dict(str(MADE_BY_TORCH / f"{name}.pth"))
    assert list(arrays) == expected.files
    for key, array in arrays.items():
        assert array.dtype == expected[key].dtype and array.flags.c_contiguous and not array.flags.writeable, key
        np.testing.assert_array_equal(array, expected[key], err_msg=key)


def test_written_files_are_read_and_written_the_same(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {
        "a.weight": draw.normal(size=(4, 3, 5, 2)).astype("f4"),
        "transposed": draw.normal(size=(3, 7)).astype("f4").T,
        "größe": np.array(1.5, "f4"),
        "counter": np.array(2**40, "i8"),
        "empty": np.zeros((0, 3), "f4"),
        "one": np.full((1, 1, 1), np.nan, "f4"),
    }
    one, other = str(tmp_path / "one.pth"), str(tmp_path / "other.pth")
    write_state_dict(one, arrays)
    again = read_state_dict(one)
    for (name, array), (name_again, array_again) in zip(arrays.items(), again.items(), strict=True):
        assert name == name_again and array.dtype == array_again.dtype
        np.testing.assert_array_equal(array, array_again)
    write_state_dict(other, again)
    assert Path(one).read_bytes() == Path(other).read_bytes()
    with pytest.raises(TorchFileError, match=r"other\.pth: x is float64; expected float32 or int64"):
        write_state_dict(other, {"x": np.zeros(2)})


def test_python_s_unpickler_reads_what_is_written(tmp_path):
    """By a second reader, and with the classes that PyTorch asks for."""
    write_state_dict(str(tmp_path / "x.pth"), {"w": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(7)})

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            return dict if name == "OrderedDict" else (lambda *arguments: (name, arguments)) if "_" in name else name

        def persistent_load(self, identity):
            return identity

    with open(tmp_path / "x.pth", "rb") as file:
        magic, version, facts, saved, keys = (Unpickler(file).load() for _ in range(5))
        rest = file.read()
    assert (magic, version, facts["little_endian"], keys) == (0x1950A86A20F9469CFC6C, 1001, True, ["0", "1"])
    storage = ("storage", "FloatStorage", "0", "cpu", 6, None)
    assert saved["epoch"] == 0
    assert saved["state_dict"]["w"] == ("_rebuild_tensor_v2", (storage, 0, (2, 3), (3, 1), False, {}))
    assert saved["state_dict"]["n"][1][2:4] == ((), ())
    assert rest == struct.pack("<q6fqq", 6, *range(6), 1, 7)


@pytest.mark.parametrize("legacy", [False, True])
def test_files_by_hand(tmp_path, legacy):
    tree = ops.dictionary(
        {"epoch": ops.number(3), "state_dict": ops.dictionary({"module.w": TENSOR, "b.module.": TENSOR})}
    )
    arrays = read_state_dict(save(tmp_path / "x.pth.tar", tree, legacy=legacy))
    assert list(arrays) == ["w", "b.module."]
    np.testing.assert_array_equal(arrays["w"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["w"] is arrays["b.module."]


def test_a_file_of_python_2(tmp_path):
    """Which pickles an OrderedDict with a list of pairs, and texts as bytes."""
    pair = b"](" + ops.bytes_text("w") + TENSOR + b"e"  # EMPTY_LIST, MARK ... APPENDS
    tree = b"ccollections\nOrderedDict\n](" + pair + b"e\x85R"  # TUPLE1, REDUCE
    assert read_state_dict(save(tmp_path / "x.pth", tree, legacy=True))["w"][1, 2] == 5


def test_storages_that_are_parts_of_others(tmp_path):
    part = ops.storage(6, view=b"(" + ops.text("part") + ops.number(2) + ops.number(4) + b"t")
    tree = ops.dictionary({"w": ops.tensor((3,), (1,), offset=1, of=part)})
    np.testing.assert_array_equal(read_state_dict(save(tmp_path / "x.pth", tree, legacy=True))["w"], [3, 4, 5])


def test_a_file_of_a_big_endian_machine(tmp_path):
    content = ops.zip_file(ops.dictionary({"w": TENSOR}), [("0", np.arange(6, dtype=">f4").tobytes())], order=b"big")
    (tmp_path / "x.pth").write_bytes(content)
    np.testing.assert_array_equal(read_state_dict(str(tmp_path / "x.pth"))["w"], [[0, 1, 2], [3, 4, 5]])


NESTED = b")" + b"2\x86".replace(b"2", b"q\x00h\x00") * 60  # a tuple of itself twice, 60 levels deep: 2^60 leaves
OTHER_OBJECTS = {
    "a tensor": (TENSOR, "holds a Tensor; expected a state dict, or a dictionary with one as state_dict"),
    "nothing": (ops.dictionary({}), "holds a dict; expected a state dict"),
    "a list": (b"]", "holds a list"),
    "other keys": (
        ops.dictionary({"epoch": ops.number(1), "model": ops.dictionary({"w": TENSOR})}),
        "holds no state dict: its 'epoch' is a int; expected tensors with names",
    ),
    "numbered": (b"}" + ops.number(1) + TENSOR + b"s", "its '1' is a Tensor; expected tensors with names"),
    "same names": (ops.dictionary({"w": TENSOR, "module.w": TENSOR}), "names are the same without 'module.'"),
    "negative size": (ops.dictionary({"w": ops.tensor((-1,), (1,))}), "no natural number"),
    "negative stride": (ops.dictionary({"w": ops.tensor((2,), (-1,))}), "no natural number"),
    "negative offset": (ops.dictionary({"w": ops.tensor((2,), (1,), offset=-1)}), "no natural number"),
    "beyond": (ops.dictionary({"w": ops.tensor((2, 3), (4, 1))}), r"shape \(2, 3\) that reaches to element 6 "),
    "beyond by offset": (ops.dictionary({"w": ops.tensor((6,), (1,), offset=1)}), "reaches to element 6"),
    "more than the file has": (
        ops.dictionary({"w": ops.tensor((2**40,), (1,), of=ops.storage(2**40))}),
        "would take 4,398,046,511,104 bytes|ends after the end",
    ),
    "more than the storage has": (
        ops.dictionary({"w": ops.tensor((7,), (1,), of=ops.storage(7))}),
        "storage '0' lacks elements",
    ),
    "other strides": (ops.dictionary({"w": ops.tensor((2, 3), (1,))}), "2 sizes and 1 strides"),
    "many axes": (ops.dictionary({"w": ops.tensor((1,) * 33, (1,) * 33)}), "33 sizes and 33 strides"),
    "expanded": (
        ops.dictionary({"w": ops.tensor((1000, 1000, 1000), (0, 0, 0))}),
        "made to harm: its tensors would take 4,000,000,000 bytes",
    ),
    "many": (
        ops.dictionary({str(rows): ops.tensor((rows, 40), (0, 0)) for rows in range(60)}),
        "made to harm: its tensors would take 283,200 bytes",
    ),
    "key of tuples": (b"}" + NESTED + b"NsN0", "a dictionary with a tuple as key"),
    "storage key of tuples": (
        ops.dictionary({"w": ops.tensor((2,), (1,), of=b"(" + ops.text("storage") + ops.FLOAT + NESTED + b"NK\x06tQ")}),
        "a persistent id that is no storage",
    ),
    "long number": (b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000, "has a number of 39,999 bits"),
    "memo": (b"}r\xff\xff\xff\xff", "holds a dict"),
    "memo of nothing": (b"h\x07", "is damaged or truncated: 7"),
    "text past the end": (b"X\xff\xff\xff\x7fabc", "is damaged or truncated: expected 2147483647 bytes"),
    "long text past the end": (b"\x8d" + b"\xff" * 7 + b"\x7fabc", "is damaged or truncated: expected"),
    "no end": (b"}(((", "is damaged or truncated"),
    "call of data": (ops.text("os.system") + b")R", "takes a str for a _Function"),
    "call of a storage": (ops.FLOAT + b")R", "takes a _Kind for a _Function"),
    "call with too little": (b"ctorch._utils\n_rebuild_tensor_v2\n)R", "makes a tensor of something else"),
    "call with too much": (b"ccollections\nOrderedDict\n" + ops.number(2) + b"\x85R", "makes an OrderedDict"),
    "build of a tensor": (TENSOR + b"}b", "takes a Tensor for a dict"),
    "append to a text": (ops.text("x") + b"Na", "takes a str for a list"),
    "empty stack": (b"\x87", "takes more than it made"),
    "mark that is not there": (b"t", "is damaged or truncated"),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("tree", "says"), OTHER_OBJECTS.values(), ids=OTHER_OBJECTS)
def test_other_objects(tmp_path, tree, says, legacy):
    path = save(tmp_path / "x.pth", tree, [("0", VALUES)] if ops.FLOAT in tree else [], legacy)
    tracemalloc.start()
    try:
        with pytest.raises(TorchFileError, match=rf"x\.pth: .*({says})"):
            read_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_more_opcodes_than_a_state_dict_has(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_pickle, "MOST_OPCODES", 1000)
    with pytest.raises(TorchFileError, match="has a pickle of more than 1,000 opcodes"):
        read_state_dict(save(tmp_path / "x.pth", b"}" * 1001))


def test_a_list_of_pairs_is_copied_once(tmp_path):
    """Python 2's OrderedDict of one list again and again would be a small file that takes much memory."""
    pairs = b"](" + b"".join(b"](" + ops.number(n) + b"Ne" for n in range(300)) + b"eq\x01"
    calls = b"".join(b"ccollections\nOrderedDict\nh\x01\x85R" for _ in range(300))
    path = save(tmp_path / "x.pth", pairs + calls)
    tracemalloc.start()
    with pytest.raises(TorchFileError, match="holds a dict"):
        read_state_dict(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("position", "pickle", "says"),
    [
        (1, ops.number(1002), "has no other version than 1001"),
        (1, NESTED, "has no other version than 1001"),
        (4, b"](" + NESTED + b"e", "names one that no tensor is in"),
        (4, b"](" + ops.text("1") + b"e", "names one that no tensor is in"),
        (4, b"]", "24 bytes follow its last storage|32 bytes follow its last storage"),
        (4, b"K\x01", "is damaged or truncated: 'int' object is not iterable"),
    ],
)
def test_damaged_parts_of_the_old_format(tmp_path, position, pickle, says):
    content = ops.legacy_file(ops.dictionary({"w": TENSOR}), [("0", VALUES)], {position: pickle})
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(TorchFileError, match=says):
        read_state_dict(str(tmp_path / "x.pth"))


def test_other_files(tmp_path):
    tree = ops.dictionary({"w": TENSOR})
    whole, whole_zip = ops.legacy_file(tree, [("0", VALUES)]), ops.zip_file(tree, [("0", VALUES)])
    packed, torch_script, keras = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + tree + b".")
        archive.writestr("x/data/0", bytes(24))
    with zipfile.ZipFile(torch_script, "w") as archive:
        for name in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"):
            archive.writestr(name, b"\x80\x02}.")
    with tarfile.open(fileobj=(tar := io.BytesIO()), mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with zipfile.ZipFile(keras, "w") as archive:
        archive.writestr("model.weights.h5", b"")
    for content, says in [
        (b"", "is no file that torch.save has written: it is empty"),
        (b"\x89HDF\r\n\x1a\n", r"is no file that torch.save has written: its first bytes are b'\\x89HDF"),
        (tar.getvalue(), "is a tar archive, as the first versions of PyTorch wrote them"),
        (pickle.dumps({"w": 1}), "is no file that torch.save has written"),
        (keras.getvalue(), "is a zip archive, but none that torch.save has written: it lacks NAME/data.pkl"),
        (torch_script.getvalue(), "is a TorchScript archive, which holds a program, not a state dict"),
        (packed.getvalue(), "is compressed"),
        (whole[:-1], "is truncated or damaged: storage '0' ends after the end of the file"),
        (whole[:100], "is damaged or truncated"),
        (whole + b"\0", "1 bytes follow its last storage"),
        (whole_zip[:-30], "is damaged or truncated"),
        (whole_zip.replace(VALUES, VALUES[:-1] + b"\1"), "'x/data/0' has not the size or checksum it should have"),
        (ops.zip_file(tree, []), "is damaged: it lacks data/0"),
        (ops.zip_file(tree, [("0", VALUES)], order=b"middle"), "its byte order is b'middle'"),
        (ops.legacy_file(tree, []), "is damaged: it lacks storage '0'"),
    ]:
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(TorchFileError, match=rf"x\.pth: .*{says}"):
            read_state_dict(str(tmp_path / "x.pth"))
    with pytest.raises(TorchFileError, match=r"none\.pth: cannot read this file: .*[Nn]o such file"):
        read_state_dict(str(tmp_path / "none.pth"))


def test_a_zip_archive_whose_entries_are_one_another(tmp_path):
    """Each entry as large as the file, and all at one place: as many bytes as one likes."""
    content = bytearray(ops.zip_file(ops.dictionary({"w": TENSOR}), [(str(n), VALUES * 9) for n in range(9)]))
    first = content.index(b"PK\x01\x02")
    at = 0
    while (at := content.find(b"PK\x01\x02", max(at + 1, first))) > 0:
        content[at + 20 : at + 28] = struct.pack("<II", first, first)  # sizes, packed and not
        content[at + 42 : at + 46] = struct.pack("<I", 0)  # where it begins
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(TorchFileError, match="is damaged, or made to harm: what is in it overlaps"):
        read_state_dict(str(tmp_path / "x.pth"))


def test_a_whole_module():
    with pytest.raises(TorchFileError, match=r"holds a whole pickled module \(it asks for 'torch\.nn\.modules\."):
        read_state_dict(str(MADE_BY_TORCH / "module.pth"))


class Call:
    """Pickled as a call, which happens when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(path: Path) -> Call:
    return Call(os.system, f"touch {path}")


BOMBS = {
    "os.system": (lambda path: touch(path), "posix.system"),
    "eval": (lambda path: Call(eval, f"open({str(path)!r}, 'w')"), "builtin.*eval"),
    "exec": (lambda path: Call(exec, f"open({str(path)!r}, 'w')"), "builtin.*exec"),
    "open": (lambda path: Call(open, str(path), "w"), "io.open"),
    "numpy.load": (lambda path: Call(np.lib.npyio.NpzFile, str(path)), "numpy.*NpzFile"),
    "getattr": (lambda path: Call(getattr, Call(__import__, "os"), "system"), "builtin.*(getattr|import)"),
    "rmtree": (lambda path: Call(shutil.rmtree, str(path), True), "shutil.rmtree"),
    "later": (lambda path: {"state_dict": {"w": 1}, "x": [touch(path)]}, "posix.system"),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", BOMBS)
def test_calls_are_refused(tmp_path, name, protocol):
    bomb, says = BOMBS[name]
    marker = tmp_path / "marker"
    whole = pickle.dumps(bomb(marker), protocol)
    pickled = whole[2:-1]
    if name in ("os.system", "later", "eval", "exec", "open"):  # that these would do something
        pickle.loads(whole)
        assert marker.exists()
        marker.unlink()
    for legacy in (False, True):
        with pytest.raises(TorchFileError, match=rf"asks for '[^']*{says}[^']*', which no state dict needs"):
            read_state_dict(save(tmp_path / "x.pth", pickled, legacy=legacy))
    content = ops.legacy_file(ops.dictionary({"w": TENSOR}), [("0", VALUES)], {2: pickled})
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(TorchFileError, match=says):
        read_state_dict(str(tmp_path / "x.pth"))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("opcodes", "says"),
    [
        (b"ctorch\nload\n" + ops.text("y.pth") + b"\x85R", "asks for 'torch.load'"),
        (b"ctorch.storage\n_load_from_bytes\n", "asks for 'torch.storage._load_from_bytes'"),
        (b"ccollections\nOrderedDict.fromkeys\n", "asks for 'collections.OrderedDict.fromkeys'"),
        (b"ctorch\n__builtins__.eval\n", "asks for 'torch.__builtins__.eval'"),
        (b"ctorch \nFloatStorage\n", "asks for 'torch. FloatStorage'"),
        (b"ctorch._utils\n__class__\n", "asks for 'torch._utils.__class__'"),
        (b"cos\nsystem\n" + b"\xff" * 9, "asks for 'os.system'"),  # damaged after that
        (ops.text("os") + ops.text("system") + b"\x93", "asks for 'os.system'"),
        (b"N" + ops.text("system") + b"\x93", "takes a NoneType for a str"),
        (b"(S'x'\nios\nsystem\n", r"asks the unpickler for STRING"),
        (b"(K\x01ios\nsystem\n", r"asks the unpickler for INST \('os system'\)"),
        (b"(ccollections\nOrderedDict\no", "asks the unpickler for OBJ"),
        (b"ccollections\nOrderedDict\n)\x81", "asks the unpickler for NEWOBJ"),
        (b"\x82\x01", "asks the unpickler for EXT1"),
        (b"Pos\n", r"asks the unpickler for PERSID \('os'\)"),
    ],
)
def test_names_and_opcodes_are_refused(tmp_path, opcodes, says):
    for legacy in (False, True):
        with pytest.raises(TorchFileError, match=says):
            read_state_dict(save(tmp_path / "x.pth", opcodes, legacy=legacy))


def read_or_refuse(path: Path) -> None:
    """Nothing but our error, and no module, file or built-in name more than before."""
    before = set(sys.modules), set(os.listdir(path.parent)), set(vars(builtins))
    with contextlib.suppress(TorchFileError):
        for array in read_state_dict(str(path)).values():
            array.sum()
    assert (set(sys.modules), set(os.listdir(path.parent)), set(vars(builtins))) == before


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(FILES), st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits(folder, name, flips):
    content = bytearray((MADE_BY_TORCH / f"{name}.pth").read_bytes())
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    (folder / "x.pth").write_bytes(content)
    read_or_refuse(folder / "x.pth")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FILES), st.integers(0, 1 << 16))
def test_truncated(folder, name, length):
    content = (MADE_BY_TORCH / f"{name}.pth").read_bytes()
    (folder / "x.pth").write_bytes(content[: length % len(content)])
    with pytest.raises(TorchFileError):
        read_state_dict(str(folder / "x.pth"))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(ops.PIECES) | st.binary(min_size=1, max_size=3), max_size=30), st.booleans())
def test_opcodes_in_any_order(folder, pieces, legacy):
    read_or_refuse(Path(save(folder / "x.pth", ops.dictionary({"w": b"".join(pieces)}), legacy=legacy)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("files")
    (made / "x.pth").write_bytes(b"")
    return made
