"""The mutants of a source file: each is the file with one change by an operator of cosmic-ray."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Final

import attrs
import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from parso.tree import NodeOrLeaf

NO_EFFECT: Final = frozenset({"override", "overload", "final", "abstractmethod"})
"""Decorators that are for readers and type checkers. Their removal is not a mutant."""
_BY_IDENTITY: Final = re.compile("_(Eq|NotEq|Lt|LtE|Gt|GtE)_Is(Not)?$|_Is(Not)?_(Eq|NotEq|Lt|LtE|Gt|GtE)$")
"""Operators that put identity in the place of equality or order, or the reverse.

The same comparison is changed to `==` or `!=` besides, and which numbers are one object is CPython's choice.
"""
_COMPREHENSIONS: Final = frozenset({"<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>"})
CO_OPTIMIZED: Final = 0x1
"""Flag of code that is a function's, not a module's or a class's."""


@attrs.frozen
class Mutant:
    """One change of a source file."""

    file: str
    """Relative to the top of the project, like `iii_trio/core/call.py`."""
    operator: str
    line: int
    was: str
    """The changed line before, without indentation."""
    becomes: str
    text: str = attrs.field(repr=False)
    """The whole changed file."""

    @property
    def digest(self) -> str:
        """Name this version of the file."""
        return hashlib.sha256(f"{self.file}\n{self.text}".encode()).hexdigest()[:20]

    @property
    def key(self) -> tuple[str, str, str]:
        """Name the mutant in the list of survivors, whatever its line number."""
        return self.file, self.was, self.becomes


def mutants_of(top: Path, file: str) -> list[Mutant]:
    """Return the mutants of a file in a fixed order, without those that change only annotations or nothing.

    They are kept in a cache, because making them takes seconds.
    """
    source = (top / file).read_text()
    digest = hashlib.sha256((source + file).encode() + Path(__file__).read_bytes()).hexdigest()[:24]
    saved = top / ".mutation" / f"mutants-{digest}.json"
    if saved.exists():
        return [Mutant(**row) for row in json.loads(saved.read_text())]
    mutants = _make_mutants(file, source)
    saved.parent.mkdir(exist_ok=True)
    saved.write_text(json.dumps([attrs.asdict(mutant) for mutant in mutants]))
    return mutants


def _make_mutants(file: str, source: str) -> list[Mutant]:
    original = _comparable(source)
    found: dict[str, Mutant] = {}
    for operator, text in _changes(source):
        try:
            changed = _comparable(text)
        except SyntaxError:
            continue  # what Python itself refuses says nothing about the tests
        if changed == original or text in found:
            continue
        line, was, becomes = _changed_line(source, text)
        found[text] = Mutant(file, operator, line, was, becomes, text)
    return list(found.values())


def sample(mutants: list[Mutant], number: int | None, seed: int) -> list[Mutant]:
    """Return `number` random mutants in their order, or all."""
    if number is None or number >= len(mutants):
        return mutants
    chosen = random.Random(seed).sample(range(len(mutants)), number)
    return [mutants[index] for index in sorted(chosen)]


def changed_functions(old: CodeType, new: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """Return the pairs of functions in which two versions of a module differ, or None if more than functions differs.

    Functions within a changed function are among the pairs, because a decorator may have called it already.
    """
    if old == new:
        return []
    pairs = [] if not old.co_flags & CO_OPTIMIZED else [(old, new)]
    inner, inner_new = _codes(old), _codes(new)
    if len(inner) != len(inner_new):
        return pairs or None
    if not pairs and _own(old) != _own(new):
        return None
    for one, other in zip(inner, inner_new, strict=True):
        # A comprehension of a module or a class has run at its import, and is gone.
        if not pairs and one != other and one.co_name in _COMPREHENSIONS:
            return None
        within = changed_functions(one, other)
        if within is None:
            return None
        pairs += within
    return pairs


def _changes(source: str) -> Iterator[tuple[str, str]]:
    """Yield the name of an operator and the changed file, for each place of each operator.

    The file is parsed once. Each change is made in the tree, written out and taken back.
    """
    root = get_ast(source)
    parents: dict[int, NodeOrLeaf] = {}
    nodes = list(ast_nodes(root))
    for node in nodes:
        for child in getattr(node, "children", ()):
            parents[id(child)] = node
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator_class = cosmic_ray.plugins.get_operator(name)
        if operator_class.arguments() or name.endswith("/NoOp") or _BY_IDENTITY.search(name):
            continue
        operator = operator_class()
        for node in nodes:
            for index in range(len(list(operator.mutation_positions(node)))):
                undo = _snapshot(node, 3)
                siblings = parents[id(node)].children if id(node) in parents else []
                before = list(siblings)
                try:
                    changed = operator.mutate(node, index)
                    siblings[:] = [changed if one is node else one for one in before if one is not node or changed]
                    yield name.removeprefix("core/"), root.get_code()
                except AttributeError:
                    pass  # cosmic-ray cannot replace a dotted name of an exception
                siblings[:] = before
                undo()


def _snapshot(node: NodeOrLeaf, depth: int) -> Callable[[], None]:
    """Return a function that puts a node and its descendants back as they are now."""
    children = getattr(node, "children", None)
    if children is None:
        value = node.value

        def put_value() -> None:
            node.value = value

        return put_value
    kept = list(children)
    inner = [_snapshot(child, depth - 1) for child in kept] if depth else []

    def put_children() -> None:
        node.children = kept
        for undo in inner:
            undo()

    return put_children


def _comparable(source: str) -> str:
    """Return a text that is the same for two sources that differ only in annotations, type aliases or kinds of parameters.

    cosmic-ray takes the `*` among the parameters of a function for an operator.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", SyntaxWarning)
        tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.decorator_list = [each for each in node.decorator_list if ast.unparse(each) not in NO_EFFECT]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arguments):
            node.args = node.posonlyargs + node.args + node.kwonlyargs
            node.defaults += [default for default in node.kw_defaults if default is not None]
            node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            if isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias":
                node.value = None
            node.annotation = ast.Name("object", ast.Load())
    return ast.dump(tree)


def _changed_line(source: str, text: str) -> tuple[int, str, str]:
    """Return the number of the first line that differs, and its two versions."""
    old, new = source.splitlines(), text.splitlines()
    for index, (one, other) in enumerate(zip(old, new, strict=False)):
        if one != other:
            at = index
            while not old[at].strip():  # a removed decorator takes the empty lines before it along
                at += 1
            if not old[at].strip().startswith("@"):
                return index + 1, one.strip(), other.strip()
            # What is decorated says which decorator it is.
            decorated = f" {old[at + 1].strip()}"
            return at + 1, old[at].strip() + decorated, (other.strip() if at == index else "") + decorated
    return len(new), old[-1].strip(), ""


def _codes(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def _own(code: CodeType) -> tuple[object, ...]:
    consts = tuple(repr(const) for const in code.co_consts if not isinstance(const, CodeType))
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts
