"""What the names of a file stand for, and which tensors an annotation speaks of. Files are parsed, never imported."""

import ast
import functools
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BARE_TENSORS = {
    *("tensorflow.Tensor", "tensorflow.keras.KerasTensor", "keras.KerasTensor", "keras.src.KerasTensor"),
    *("numpy.ndarray", "numpy.array", "numpy.typing.NDArray", "jax.Array", "jax.numpy.ndarray", "jaxtyping.Array"),
    *("torch.Tensor", "torch.FloatTensor", "torch.LongTensor"),
}
_LIBRARIES = {"tensorflow", "keras", "numpy", "jax", "torch", "jaxtyping"}
_OPAQUE = {"Callable", "Literal", "type", "Type"}  # what is inside is not handed over
_OURS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed file."""

    path: Path
    tree: ast.Module
    comments: dict[int, str]  # by line, without the sign
    imports: dict[str, str]  # name here -> dotted name there; of relative imports "folder//dotted name"
    names: dict[str, ast.expr | ast.ClassDef]  # module level: what an alias stands for, classes

    @property
    def uses_arrays(self) -> bool:
        return any(target.split(".")[0] in _LIBRARIES for target in self.imports.values())


class Leaf(NamedTuple):
    """One tensor of an annotation."""

    text: str  # as it is written where it stands
    dtype: str  # jaxtyping's name for it; empty: none is stated
    shape: str | None  # jaxtyping's string; None: none is stated
    via: tuple[str, ...]  # the aliases that led to it


@functools.cache
def parse(path: Path) -> Module:
    """Raises OSError, SyntaxError, ValueError (of undecodable text) or RecursionError."""
    with tokenize.open(path) as file:
        source = file.read()
    tree = ast.parse(source, str(path))
    tokens = tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    imports = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {
                alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
                for alias in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            folder = f"{path.absolute().parents[node.level - 1]}//" if node.level else ""
            origin = folder + (f"{node.module}." if node.module else "")
            imports |= {alias.asname or alias.name: origin + alias.name for alias in node.names}
    return Module(path, tree, comments, imports, dict(_assigned(tree.body)))


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module or class, also under if and try."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            handlers = [one for handler in getattr(node, "handlers", []) for one in handler.body]
            yield from statements([*node.body, *handlers, *node.orelse])


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr | ast.ClassDef]]:
    for node in statements(body):
        if isinstance(node, ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value
        elif type(node).__name__ == "TypeAlias":  # Python 3.12's statement
            yield node.name.id, node.value


def dotted(node: ast.expr, module: Module) -> str:
    """The name that an expression imports by: `tf.Tensor` is tensorflow.Tensor. Empty for what is no name."""
    if isinstance(node, ast.Name):
        return module.imports.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (origin := dotted(node.value, module)):
        return f"{origin}.{node.attr}"
    return ""


def lookup(node: ast.expr, module: Module) -> tuple[ast.expr | ast.ClassDef, Module] | None:
    """What a name stands for, in this file or in one that it is imported from; None where that is not at hand."""
    if isinstance(node, ast.Name) and node.id in module.names:
        return module.names[node.id], module
    folder, _, name = dotted(node, module).rpartition("//")
    origin, _, name = name.rpartition(".")
    if not (origin or folder):
        return None
    for root in [Path(folder)] if folder else [*module.path.absolute().parents, _OURS]:
        file = _file(root.joinpath(*origin.split(".")))
        if file is not None and file != module.path.absolute():
            try:
                return lookup(ast.Name(name), parse(file))
            except (OSError, SyntaxError, ValueError, RecursionError):
                return None  # it has a line of its own where it is among the files to check
    return None


def _file(stem: Path) -> Path | None:
    candidates = (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def leaves(node: ast.expr | None, module: Module, via: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The tensors in an annotation: through aliases, unions and containers, but not of a Callable."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        node = _expression(node.value)
    if isinstance(node, ast.Name | ast.Attribute):
        if dotted(node, module) in BARE_TENSORS:
            yield Leaf(ast.unparse(node), "", None, via)
        elif len(via) < 20 and (found := lookup(node, module)) and not isinstance(found[0], ast.ClassDef):
            yield from leaves(*found, (*via, ast.unparse(node).rpartition(".")[2]))
    elif isinstance(node, ast.Subscript):
        yield from _subscript(node, module, via)
    elif isinstance(node, ast.BinOp):
        yield from (*leaves(node.left, module, via), *leaves(node.right, module, via))
    elif isinstance(node, ast.Tuple | ast.List):
        yield from (leaf for element in node.elts for leaf in leaves(element, module, via))


def _subscript(node: ast.Subscript, module: Module, via: tuple[str, ...]) -> Iterator[Leaf]:
    origin = dotted(node.value, module)
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if origin.startswith("jaxtyping."):
        last = parts[-1] if len(parts) == 2 else None
        shape = last.value if isinstance(last, ast.Constant) and isinstance(last.value, str) else None
        yield Leaf(ast.unparse(node), origin.partition(".")[2], shape, via)
    elif origin in BARE_TENSORS:  # np.ndarray[...], NDArray[np.float32]: a dtype at most
        yield Leaf(ast.unparse(node), "", None, via)
    elif origin.rpartition(".")[2] == "Annotated":
        yield from leaves(parts[0], module, via)
    elif origin.rpartition(".")[2] not in _OPAQUE:
        yield from (leaf for part in parts for leaf in leaves(part, module, via))


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
