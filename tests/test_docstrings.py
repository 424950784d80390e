"""The language of docstrings and comments is measured: plain words, one statement a sentence, reasons where code branches.

The limits are those that the docstrings of Trio itself keep, per 1,000 words.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs
import pytest

PACKAGE = Path(__file__).parent.parent / "iii_trio"
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef

LIMITS = {
    "relative pronouns without a noun": (
        re.compile(r"\b(who|whoever|whom|whose|whatever|nobody|somebody|anybody|everybody)\b", re.IGNORECASE), 1.5,
    ),
    "what-clauses": (re.compile(r"\bwhat (it|is|was|are|were|they|has|had|he)\b", re.IGNORECASE), 0.5),
    "semicolons": (re.compile(r";"), 4.5),
    "clauses after a colon": (re.compile(r"(?<!If cancelled):\s+[a-z]"), 6.0),
}  # fmt: skip
"""Each pattern, and how often it may be found in 1,000 words."""
FORBIDDEN_OPENING = re.compile(r"(What|Who|Whose|Whoever|It|Its|They|Those|Nobody|Somebody|None)\b")
MIN_COMMENT_LINES = 0.03
MIN_DOCUMENTED = 0.8
DIRECTIVE = re.compile(r"#\s*(noqa|type:|fmt|pragma)")


@attrs.frozen
class Docstring:
    """One docstring, and where it is."""

    where: str
    text: str
    of_function: bool


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def documented(tree: ast.Module) -> Iterator[Documented]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Documented))


@cache
def docstrings() -> list[Docstring]:
    return [
        Docstring(
            f"{path.relative_to(PACKAGE.parent)}:{node.body[0].lineno}",
            text,
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef),
        )
        for path, tree in trees().items()
        for node in documented(tree)
        if (text := ast.get_docstring(node)) is not None
    ]


@pytest.mark.parametrize("kind", LIMITS)
def test_docstrings_use_plain_words(kind: str) -> None:
    pattern, limit = LIMITS[kind]
    words = sum(len(docstring.text.split()) for docstring in docstrings())
    found = [docstring.where for docstring in docstrings() for _ in pattern.finditer(docstring.text)]
    assert 1000 * len(found) / words <= limit, f"{kind}: {found}"


def test_no_function_opens_with_a_pronoun() -> None:
    """The first line is an imperative. A pronoun there has no noun that it could stand for."""
    assert [d.where for d in docstrings() if d.of_function and FORBIDDEN_OPENING.match(d.text)] == []


def test_comments_say_why() -> None:
    lines = comments = 0
    for path in trees():
        text = path.read_text()
        lines += text.count("\n")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        comments += sum(token.type == tokenize.COMMENT and not DIRECTIVE.match(token.string) for token in tokens)
    assert comments / lines >= MIN_COMMENT_LINES, f"{comments} comments in {lines} lines"


def test_public_functions_are_documented() -> None:
    functions = [
        node
        for tree in trees().values()
        for node in documented(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    described = sum(ast.get_docstring(node) is not None for node in functions)
    assert described / len(functions) >= MIN_DOCUMENTED, f"{described} of {len(functions)}"
