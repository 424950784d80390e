"""YAML 1.2 as plain dicts and lists, and the line of every key and item."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Lines: TypeAlias = dict[tuple[Any, ...], int]
Fail: TypeAlias = Callable[[int, str], NoReturn]
"""Raises a ConfigError, given a line (from 0) and the problem."""
_MAX_VALUES: Final = 100_000
"""How many values one file may hold. Aliases of aliases could make a short file endless."""


def read_yaml(text: str, fail: Fail) -> tuple[Any, Lines]:
    """Return the value of a YAML text (None: it is empty), and the lines of its keys and items, counted from 0."""
    yaml = YAML(typ="rt", pure=True)  # its scanner takes `{ host: ::1 }`, and the one of "safe" does not
    yaml.Constructor = SafeConstructor  # plain dicts and lists
    value: Any = None
    lines: Lines = {}
    try:
        root = yaml.compose(text)
        # An empty file is valid and means the defaults.
        if root is not None:
            value = yaml.constructor.construct_document(root)
            # After the construction, because it puts merged keys (`<<`) in their places.
            _find_lines(yaml, root, (), frozenset(), lines, fail)
    # The parser's own text names no remedy, and this is a frequent slip of the hand.
    except DuplicateKeyError as error:
        key = re.search(r'duplicate key "(.*?)"', error.problem or "")
        shown = f"`{key[1]}` " if key else "a key "
        fail(error.problem_mark.line, f"{shown}is given twice; keep one of the two")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(filter(None, [error.context, error.problem]))
        fail(mark.line if mark else 0, f"is not YAML: {problem}")
    # Deep nesting and odd dates fail inside the parser, and should not show a traceback.
    except (YAMLError, ValueError, RecursionError) as error:
        fail(0, f"is not YAML: {' '.join(str(error).split()) or type(error).__name__}")
    return value, lines


def _find_lines(
    yaml: YAML, node: Node, path: tuple[Any, ...], around: frozenset[int], lines: Lines, fail: Fail
) -> None:
    """Note the lines of all keys and items under a node. `around` are the nodes that contain this one."""
    # YAML lets an alias name a node that contains it, which would be followed for ever.
    if id(node) in around:
        fail(node.start_mark.line, "contains itself; remove the alias")
    around |= {id(node)}
    if isinstance(node, MappingNode):
        children = [(yaml.constructor.construct_object(key, deep=True), key, value) for key, value in node.value]
    elif isinstance(node, SequenceNode):
        children = [(index, item, item) for index, item in enumerate(node.value)]
    else:
        # Neither files nor hosts have such names, and Python's own errors do not say where it stands.
        if "\0" in str(node.value):
            fail(node.start_mark.line, "holds a NUL character; remove it")
        return
    for key, marked, value in children:
        if not isinstance(marked, ScalarNode) and isinstance(node, MappingNode):
            fail(marked.start_mark.line, "has a list or an object as a key; write a plain name")
        # Aliases of aliases multiply, so a short text could fill the memory.
        if len(lines) >= _MAX_VALUES:
            fail(marked.start_mark.line, f"holds more than {_MAX_VALUES} values; make it smaller")
        lines[*path, key] = marked.start_mark.line
        _find_lines(yaml, value, (*path, key), around, lines, fail)
