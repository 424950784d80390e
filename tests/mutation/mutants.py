"""The mutants of a source file: each is the file with one change by an operator of cosmic-ray."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Final

import attrs
import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

NO_EFFECT: Final = frozenset({"override", "overload", "final", "abstractmethod"})
"""Decorators that are for readers and type checkers. Their removal is no mutant."""
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
    def key(self) -> tuple[str, str, str]:
        """Name the mutant in the list of survivors, whatever its line number."""
        return self.file, self.was, self.becomes


def mutants_of(top: Path, file: str) -> list[Mutant]:
    """Return the mutants of a file in a fixed order, without those that change only annotations or nothing."""
    source = (top / file).read_text()
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
        if was.startswith("@") and was[1:] in NO_EFFECT:
            continue
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
        within = changed_functions(one, other)
        if within is None:
            return None
        pairs += within
    return pairs


def _changes(source: str) -> Iterator[tuple[str, str]]:
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator_class = cosmic_ray.plugins.get_operator(name)
        if operator_class.arguments() or name.endswith("/NoOp"):
            continue
        operator = operator_class()
        positions = sum(len(list(operator.mutation_positions(node))) for node in ast_nodes(get_ast(source)))
        for occurrence in range(positions):
            try:
                text = mutate_code(source, operator, occurrence)
            except AttributeError:
                continue  # cosmic-ray cannot replace a dotted name of an exception
            if text is not None:
                yield name.removeprefix("core/"), text


def _comparable(source: str) -> str:
    """Return a text that is the same for two sources which differ in annotations only."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Name("object", ast.Load())
    return ast.dump(tree)


def _changed_line(source: str, text: str) -> tuple[int, str, str]:
    """Return the number of the first line that differs, and its two versions."""
    old, new = source.splitlines(), text.splitlines()
    for index, (one, other) in enumerate(zip(old, new, strict=False)):
        if one != other:
            # A removed decorator leaves an empty line. What it decorated says which one it was.
            decorated = f" {old[index + 1].strip()}" if not one.strip() or one.strip().startswith("@") else ""
            return index + 1, one.strip() + decorated, other.strip() + decorated
    return len(new), old[-1].strip(), ""


def _codes(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def _own(code: CodeType) -> tuple[object, ...]:
    consts = tuple(repr(const) for const in code.co_consts if not isinstance(const, CodeType))
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts
