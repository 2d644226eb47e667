"""The pickles in PyTorch's files, read as data.

A pickle is a program, and Python's unpickler runs it: what it names is imported, and called with arguments of the
file's choosing. Here nothing is imported, looked up or called on a file's behalf. Only the opcodes that torch.save
writes are known; a name in the file chooses from `_MEANINGS`, whose few functions make dictionaries and descriptions of
tensors, or is refused. No opcode copies what another has made, so memory is at most about a hundred bytes for each of
at most `MOST_OPCODES` opcodes, besides the file's own texts. What was made may be nested without end, and be in itself
a million times: it is neither hashed, compared nor shown unless it is known to be a number or a text.
"""

import contextlib
import io
import math
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from official.core.errors import UserError

MOST_OPCODES = 1_000_000  # a tensor has about 35, and 100 with its optimiser's state
MOST_AXES = 32
_WHOLE_NUMBER_BITS = 80  # the longest number is the one with which files of PyTorch before 1.6 begin

# numpy's codes for the elements of PyTorch's storages; bfloat16 is unknown to numpy, and read as its bits.
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class TorchFileError(UserError):
    """A file of PyTorch's that cannot be used; the message says what it holds instead of a state dict."""


class Storage(NamedTuple):
    """`count` elements from `start` on, of what the file has under `key`; `kind` is one of STORAGES."""

    kind: str
    key: str
    start: int
    count: int


class Tensor(NamedTuple):
    """Where a tensor's elements are: all of them inside its storage. In elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickled(NamedTuple):
    tree: Any  # dictionaries, lists, tuples, numbers, texts, and `Tensor`s
    storages: dict[str, Storage]  # all that are named, whole, by their keys


class _Function(NamedTuple):
    """What a pickle may call. It gets the arguments as one tuple, of whatever the file likes."""

    call: Callable[[tuple], Any]


class _Kind(NamedTuple):
    """The class of a storage, which is only ever named."""

    name: str


def read_pickle(stream: io.BytesIO) -> Pickled:
    """Reads one pickle, and the stream up to its end.

    Raises:
        TorchFileError: it asks for what no state dict needs. pickletools raises ValueErrors where it is damaged.
    """
    machine = _Machine()
    opcodes = _opcodes(stream)
    for name, argument in opcodes:
        if name == "STOP":
            return Pickled(machine.pop(), machine.storages)
        if name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = argument if name == "GLOBAL" else " ".join(map(_text, machine.pop_many(2)))
            if wanted not in _MEANINGS:
                raise TorchFileError(_refusal(wanted, opcodes))
            machine.stack.append(_MEANINGS[wanted])
        else:
            machine.step(name, argument)
    raise TorchFileError("is truncated: a pickle in it has no end")


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if number == MOST_OPCODES:
            raise TorchFileError(f"has a pickle of more than {MOST_OPCODES:,} opcodes; no state dict is so long")
        if type(argument) is int and argument.bit_length() > _WHOLE_NUMBER_BITS:
            raise TorchFileError(f"has a number of {argument.bit_length():,} bits; it is damaged, or made to harm")
        yield opcode.name, argument


class _Machine:
    """The unpickler's stack, its stacks below open marks, and its memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        match name:
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "LONG4" | "BINFLOAT":
                value = argument
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                value = argument
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                value = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name]
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                value = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[name]()
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                value = tuple(self.pop_many(int(name[-1])))
            case "TUPLE":
                value = tuple(self.pop_mark())
            case "BINGET" | "LONG_BINGET":
                value = self.memo[argument]
            case "REDUCE":
                function, arguments = self.pop_many(2)
                value = _of(_Function, function).call(_of(tuple, arguments))
            case "BINPERSID":
                value = self.storage(self.pop())
            case _:
                self.change(name, argument)
                return
        self.stack.append(value)

    def change(self, name: str, argument: Any) -> None:
        """The opcodes that put nothing new on the stack."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "APPEND":
                value = self.pop()
                _of(list, self.stack[-1]).append(value)
            case "APPENDS":
                values = self.pop_mark()
                _of(list, self.stack[-1]).extend(values)
            case "SETITEM":
                pair = self.pop_many(2)
                _set_items(self.stack[-1], pair)
            case "SETITEMS":
                pairs = self.pop_mark()
                _set_items(self.stack[-1], pairs)
            case "BUILD":  # attributes of a dictionary: the versions of the modules
                for value in (self.pop(), self.stack[-1]):
                    _of(dict, value)
            case _:
                what = f" ({_shown(argument)})" if isinstance(argument, str) else ""
                raise TorchFileError(
                    f"asks the unpickler for {name}{what}, which torch.save writes for no state dict; nothing was run"
                )

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_many(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise TorchFileError("is damaged: a pickle in it takes more than it made")
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def pop_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def storage(self, identity: Any) -> Storage:
        """What a persistent id stands for. Files before 1.6 have a sixth part: a part of another storage, or None."""
        match identity:
            case ("storage", _Kind(kind), str(key), str(), int(count), *view) if count >= 0 and len(view) < 2:
                whole = Storage(kind, key, 0, count)
                self.storages.setdefault(key, whole)
            case _:
                raise TorchFileError("is damaged: it has a persistent id that is no storage")
        match view:
            case [] | [None]:
                return whole
            case [(str(), int(start), int(length))] if 0 <= start <= start + length <= count:
                return whole._replace(start=start, count=length)
        raise TorchFileError(f"is damaged: it has a part of storage {_shown(key)} that is not inside it")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TorchFileError(f"is damaged: a pickle in it takes a {type(value).__name__} for a {kind.__name__}")
    return value


def _text(value: Any) -> str:
    return _of(str, value)


def _shown(text: str) -> str:
    """A text of the file's for a message: no control characters, and not long."""
    return repr(text[:100])


def _set_items(target: Any, pairs: list[Any]) -> None:
    _of(dict, target)
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # Hashing a tuple visits all that is in it, and as often as it is in it.
        if type(key) not in (str, int):
            raise TorchFileError(f"has a dictionary with a {type(key).__name__} as key; a state dict has names")
        target[key] = value


def _refusal(name: str, following: Iterator[tuple[str, Any]]) -> str:
    """Why a file that asks for the global `name` is not read; `following` is what comes after it."""
    names = [name]
    with contextlib.suppress(ValueError):  # it may be damaged from here on
        names.extend(argument for opcode, argument in following if opcode == "GLOBAL")
    shown = _shown(name.replace(" ", ".", 1))
    if any(name.startswith("torch.nn.modules.") for name in names):
        return (
            f"holds a whole pickled module (it asks for {shown}), whose code would be run, not a state dict; where that"
            " code is at hand: torch.save(module.state_dict(), FILE)"
        )
    return (
        f"asks for {shown}, which no state dict needs and which may do anything when it is unpickled; nothing was run."
        " If you trust the file, load it with PyTorch and save its state dict alone: torch.save(state_dict, FILE)"
    )


def _ordered_dict(arguments: tuple) -> dict:
    """OrderedDict(), or as Python 2 pickles it, of a list of pairs, which is emptied: it is copied once at most."""
    made: dict = {}
    match arguments:
        case ():
            return made
        case (list() as pairs,) if all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
            _set_items(made, [part for pair in pairs for part in pair])
            pairs.clear()
            return made
    raise TorchFileError("is damaged: it makes an OrderedDict of something else than pairs")


def _size(arguments: tuple) -> tuple:
    """torch.Size(tuple)."""
    (sizes,) = arguments
    return _of(tuple, sizes)


def _parameter(arguments: tuple) -> Tensor:
    """_rebuild_parameter(data, requires_grad, backward_hooks)."""
    return _of(Tensor, arguments[0])


def _tensor(arguments: tuple) -> Tensor:
    """_rebuild_tensor(storage, offset, size, stride), and _v2, which has more that says nothing of the values."""
    match arguments:
        case (Storage() as storage, offset, tuple(shape), tuple(strides), *_):
            numbers = (offset, *shape, *strides)
        case _:
            raise TorchFileError("is damaged: it makes a tensor of something else than a storage, offset and sizes")
    if any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers):
        raise TorchFileError("is damaged: it has a tensor with an offset, size or stride that is no natural number")
    if len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise TorchFileError(f"is damaged: it has a tensor of {len(shape)} sizes and {len(strides)} strides")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.count:
        raise TorchFileError(
            f"is damaged: it has a tensor of shape {shape} that reaches to element {last:,} of a storage of"
            f" {storage.count:,}"
        )
    return Tensor(storage, offset, shape, strides)


_MEANINGS: dict[str, _Function | _Kind] = {
    "collections OrderedDict": _Function(_ordered_dict),
    "torch Size": _Function(_size),
    "torch._utils _rebuild_parameter": _Function(_parameter),
    "torch._utils _rebuild_tensor": _Function(_tensor),
    "torch._utils _rebuild_tensor_v2": _Function(_tensor),
    **{f"{module} {name}": _Kind(name) for module in ("torch", "torch.cuda") for name in STORAGES},
}
