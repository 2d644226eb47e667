"""The rules, and what each public function, method and annotated field is asked."""

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tools.tensorlint.names import Leaf, Module, dotted, leaves, lookup, statements
from tools.tensorlint.stated import dtypes_differ, formats_in_name, formats_of, shape_of, shapes_differ, split

RULES = {
    "TL001": "a file cannot be read or parsed",
    "TL002": "an ignore comment gives no reason, or names no rule",
    "TL101": "a tensor's annotation states no dtype and named shape",
    "TL102": "a parameter that is named like a tensor has no annotation",
    "TL103": "a function that takes tensors returns something, but its result has no annotation",
    "TL104": "the shape in an annotation cannot be read",
    "TL201": "a box has no format, in annotation, docstring, comment or name",
    "TL202": "annotation and docstring name different box formats",
    "TL203": "a last dimension of 4 does not say what the four numbers are",
    "TL301": "annotation and docstring state different shapes",
    "TL302": "annotation and docstring state different dtypes",
}
_TENSOR_NAME = re.compile(r"^(images?|boxes|bboxes|logits|heatmaps?|feature_maps?|anchor_boxes|(gt|pred|true)_boxes)$")
_BOX_NAME = re.compile(r"^(.*_)?b?box(es)?$")
_IGNORE = re.compile(r"tensorlint:\s*ignore\[([^\]]*)\]\s*(.*)")
_SIZE = re.compile(r"^[*#?]*(\w+=)?(\.\.\.|_|\d+|[A-Za-z_]\w*|\{.*\}|[\w(){}.][\w+\-*/(){}.,%]*)$")
_EXAMPLE = 'such as Float32[tf.Tensor, "batch boxes yxyx=4"]'
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    path: str
    line: int
    column: int  # 1-based
    rule: str
    message: str


class Subject(NamedTuple):
    """What is asked about: a parameter, a result, or a field."""

    name: str
    label: str  # for messages
    annotation: ast.expr | None
    node: ast.AST  # where it stands
    text: str  # what docstring or comment says of it alone


def check(module: Module) -> list[Finding]:
    """All findings in a file, by line, without those that a comment lets pass."""
    found = [*_body(module.tree.body, module, None), *_bad_ignores(module)]
    return sorted(one for one in found if one.rule not in _ignored(module.comments.get(one.line, "")))


def _ignored(comment: str) -> list[str]:
    match = _IGNORE.search(comment)
    return [rule.strip() for rule in match[1].split(",")] if match and match[2].strip() else []


def _bad_ignores(module: Module) -> Iterator[Finding]:
    for line, comment in module.comments.items():
        if (match := _IGNORE.search(comment)) and not (match[2].strip() and set(_ignored(comment)) <= set(RULES)):
            message = (
                f"{match[0].strip()!r}; expected `tensorlint: ignore[RULE] reason`, RULE one of {', '.join(RULES)}"
            )
            yield Finding(str(module.path), line, 1, "TL002", message)


def _body(body: list[ast.stmt], module: Module, owner: ast.ClassDef | None) -> Iterator[Finding]:
    """Public functions and classes, and the annotated fields of a public class (`owner`)."""
    for node in statements(body):
        if isinstance(node, Function) and (node.name[0] != "_" or node.name in ("__init__", "__call__")):
            yield from _function(node, module, owner)
        elif isinstance(node, ast.ClassDef) and node.name[0] != "_":
            yield from _body(node.body, module, node)
        elif owner and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if name[0] != "_":
                general, own = split(ast.get_docstring(owner) or "", [name])
                text = f"{own.get(name, '')} {module.comments.get(node.end_lineno, '')}".strip()
                yield from _subjects([Subject(name, name, node.annotation, node, text)], general, module)


def _function(node: Function, module: Module, owner: ast.ClassDef | None) -> Iterator[Finding]:
    args = node.args
    given = [*args.posonlyargs, *args.args, *filter(None, [args.vararg]), *args.kwonlyargs, *filter(None, [args.kwarg])]
    of_class = (ast.get_docstring(owner) or "") if owner and node.name in ("__init__", "__call__") else ""
    general, own = split(f"{of_class}\n\n{ast.get_docstring(node) or ''}", [one.arg for one in given])
    subjects = []
    for one in given:
        comment = "" if one.lineno == node.lineno else module.comments.get(one.lineno, "")
        text = f"{own.get(one.arg, '')} {comment}".strip()
        subjects.append(Subject(one.arg, one.arg, one.annotation, one, text))
    result = Subject(node.name, f"the result of {node.name}", node.returns, node.returns or node, own.get("return", ""))
    exempt = node.name == "call" and owner is not None and _is_keras(owner, module)
    if not exempt:
        yield from _unannotated(node, subjects, module)
    for finding in _subjects([*subjects, result], general, module):
        if not (exempt and finding.rule == "TL101"):
            yield finding


def _is_keras(owner: ast.ClassDef, module: Module, depth: int = 10) -> bool:
    for base in owner.bases:
        name = dotted(base, module).rpartition(".")[2]
        found = lookup(base, module) if depth else None
        if name.endswith(("Layer", "Model")) or (
            found and isinstance(found[0], ast.ClassDef) and _is_keras(*found, depth - 1)
        ):
            return True
    return False


def _unannotated(node: Function, subjects: list[Subject], module: Module) -> Iterator[Finding]:
    """TL102, only where arrays are imported, and not of what pytest or a plain default gives; TL103."""
    defaults = [*zip(reversed(node.args.args), reversed(node.args.defaults), strict=False)]
    plain = {arg.arg for arg, value in defaults if isinstance(value, ast.Constant) and value.value is not None}
    tested = module.path.name.startswith(("test_", "conftest")) or node.name.startswith("test_")
    for one in subjects if module.uses_arrays and not tested else []:
        if one.annotation is None and one.name not in plain and _TENSOR_NAME.match(one.name):
            message = f"{one.name} has no annotation; if it is a tensor, write dtype and named shape, {_EXAMPLE}"
            yield _at(one.node, module, "TL102", f"{message}; if not, its type")
    takes = [one.name for one in subjects if any(leaves(one.annotation, module))]
    if takes and node.returns is None and any(_returns(node.body)):
        message = f"{node.name} takes tensors ({', '.join(takes)}), but its result has no annotation"
        yield _at(node, module, "TL103", f"{message}; write what it returns, {_EXAMPLE}")


def _returns(body: list[ast.AST]) -> Iterator[ast.Return]:
    """The returns of a value, of this function alone."""
    for node in body:
        if isinstance(node, ast.Return) and node.value is not None:
            yield node
        elif not isinstance(node, Function | ast.ClassDef | ast.Lambda):
            yield from _returns(list(ast.iter_child_nodes(node)))


def _subjects(subjects: list[Subject], general: str, module: Module) -> Iterator[Finding]:
    """The rules on what is annotated. `general`: the docstring but for what it says of one subject alone."""
    tensors = {one: list(leaves(one.annotation, module)) for one in subjects}
    annotated = {form for found in tensors.values() for leaf in found for form in _formats(leaf)}
    boxes = [one for one, found in tensors.items() if _is_box(one, found)]
    for one, found in tensors.items():
        rules = [*(rule for leaf in found for rule in _leaf(one, leaf)), *_stated(one, found, general, subjects)]
        forms = {form for leaf in found for form in _formats(leaf)}
        stated = formats_of(one.text)
        if not stated and all(forms or any(map(_formats, tensors[box])) for box in boxes):
            stated = formats_of(general) - annotated if len(formats_of(general)) == 1 else set()
        is_open = any((leaf.shape or "").endswith("box=4") for leaf in found)
        if one in boxes and not (is_open or forms or formats_of(f"{one.text}\n{general}") or formats_in_name(one.name)):
            message = f"{one.label} is named as boxes, but nothing names their format; expected yxyx, xyxy, cxcywh or "
            rules.append(("TL201", f"{message}xywh in the docstring, or an alias named so (official/vision/boxes.py)"))
        if len(forms) == len(stated) == 1 and forms != stated:
            message = f"{one.label} is annotated as {forms.pop()} boxes, but its docstring says {stated.pop()}"
            rules.append(("TL202", f"{message}: one of them is wrong"))
        yield from (_at(one.node, module, *rule) for rule in dict.fromkeys(rules))


def _leaf(one: Subject, leaf: Leaf) -> Iterator[tuple[str, str]]:
    through = f" ({' -> '.join(leaf.via)})" if leaf.via else ""
    if not leaf.dtype:
        message = f"{one.label}: {leaf.text}{through} states no dtype and named shape; expected a jaxtyping annotation"
        yield "TL101", f"{message} {_EXAMPLE}, or an alias of one"
    elif leaf.shape is None or not all(map(_SIZE.match, leaf.shape.split())):
        message = f"{one.label}: {leaf.text}{through} has no readable shape; expected names and sizes in one string"
        yield "TL104", f"{message}, {_EXAMPLE}"
    elif leaf.shape.split()[-1:] == ["4"]:
        message = f"{one.label}: {leaf.text}{through} does not say what the four numbers are; for a box write yxyx=4"
        yield "TL203", f"{message}, xyxy=4, cxcywh=4 or xywh=4 in place of 4 (box=4 if its form is open)"


def _stated(one: Subject, found: list[Leaf], general: str, subjects: list[Subject]) -> Iterator[tuple[str, str]]:
    """TL301 and TL302, if neither annotation nor text leaves a choice."""
    stated = shape_of(one.text)
    if len(subjects) == 1 and not one.text:
        stated = shape_of(general)
    found = [leaf for leaf in found if leaf.shape is not None]
    if not (stated and found) or len({leaf.shape for leaf in found}) > 1:
        return
    dtype, sizes = stated
    if shapes_differ(sizes, [size.rpartition("=")[2] for size in found[0].shape.split()]):
        message = f"{one.label} is annotated with shape {found[0].shape!r}, but its docstring says [{', '.join(sizes)}]"
        yield "TL301", f"{message}: one of them is wrong"
    if all(dtypes_differ(dtype, leaf.dtype) for leaf in found):
        yield "TL302", f"{one.label} is annotated as {found[0].dtype}, but its docstring says {dtype}: one is wrong"


def _formats(leaf: Leaf) -> set[str]:
    named = [*leaf.via, *(leaf.shape or "").split()[-1:]]
    return {form for name in named for form in formats_in_name(name)}


def _is_box(one: Subject, found: list[Leaf]) -> bool:
    """Named as boxes, with four numbers each, as far as one can tell."""
    numbers = [
        leaf
        for leaf in found
        if leaf.dtype != "Bool" and (leaf.shape or "...").split()[-1].rpartition("=")[2] in ("4", "...")
    ]
    return bool(_BOX_NAME.match(one.name) and numbers)


def _at(node: ast.AST, module: Module, rule: str, message: str) -> Finding:
    return Finding(str(module.path), node.lineno, node.col_offset + 1, rule, message)
