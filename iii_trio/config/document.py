"""A YAML text as plain dicts and lists, with the line of every key and item beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias

import attrs
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from ..errors import ConfigError

Path: TypeAlias = tuple[Any, ...]
"""The keys and indices that lead from the top of the document to a value."""
_VARIABLE: Final = re.compile(r"\$\{([^}:]*)(?::([^}]*))?\}")
_MAX_VALUES: Final = 100_000
"""How many values one file may hold. Aliases of aliases could make a short file endless."""


@attrs.define(eq=False)
class Document:
    """One file with its value, its lines, and the warnings about it."""

    file: str
    value: Any = None
    warnings: list[str] = attrs.field(factory=list)
    _lines: dict[Path, int] = attrs.field(factory=dict)
    """The line of each key or item, counted from 0 in the expanded text."""
    _origins: list[int] = attrs.field(factory=list)
    """The line of the file behind each line of the expanded text."""

    @classmethod
    def parse(cls, text: str, file: str, environ: Mapping[str, str]) -> Document:
        """Put the variables into the text and read it as YAML 1.2. Raises ConfigError."""
        document = cls(file)
        document._load(document._expand(text, environ))
        return document

    def line(self, path: Path) -> int:
        """Return the line, from 1, of the value at `path`, or of the nearest value around it."""
        # A value that is absent has no line, and the one around it is where it would be added.
        while path and path not in self._lines:
            path = path[:-1]
        return self._origin(self._lines.get(path, 0))

    def fail(self, path: Path, problem: str) -> NoReturn:
        """Raise a ConfigError that names the file and the line of `path`."""
        raise ConfigError(f"{self.file}:{self.line(path)}: {problem}")

    def warn(self, path: Path, problem: str) -> None:
        """Add a warning that names the file and the line of `path`."""
        self.warnings.append(f"{self.file}:{self.line(path)}: {problem}")

    def _expand(self, text: str, environ: Mapping[str, str]) -> str:
        """Replace `${VAR}` and `${VAR:default}` in the raw text, as iii does, before the text is YAML."""
        expanded: list[str] = []
        for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
            comment = line.lstrip().startswith("#")

            def value(match: re.Match[str], number: int = number, comment: bool = comment) -> str:
                name = match[1].strip()
                default: str | None = match[2]
                found = environ.get(name, default)
                # A commented-out line has no effect, so its variable need not be set.
                if found is None and comment:
                    return match[0]
                if found is None:
                    raise ConfigError(
                        f"{self.file}:{number}: environment variable {name} is not set; "
                        f"set it, or give a default: ${{{name}:value}}"
                    )
                return found

            # A variable may hold several lines, and errors must still name the file's own line.
            for part in _VARIABLE.sub(value, line).split("\n"):
                expanded.append(part)
                self._origins.append(number)
        return "\n".join(expanded) + "\n"

    def _load(self, text: str) -> None:
        yaml = YAML(typ="rt", pure=True)  # its scanner takes `{ host: ::1 }`, and the one of "safe" does not
        yaml.Constructor = SafeConstructor  # plain dicts and lists
        try:
            root = yaml.compose(text)
            # An empty file is valid and means the defaults.
            if root is not None:
                self.value = yaml.constructor.construct_document(root)
                # After the construction, because it puts merged keys (`<<`) in their places.
                self._find_lines(yaml, root, (), frozenset())
        # The parser's own text names no remedy, and this is a frequent slip of the hand.
        except DuplicateKeyError as error:
            key = re.search(r'duplicate key "(.*?)"', error.problem or "")
            shown = f"`{key[1]}` " if key else "a key "
            self._fail_at(error.problem_mark.line, f"{shown}is given twice; keep one of the two")
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = ", ".join(filter(None, [error.context, error.problem]))
            self._fail_at(mark.line if mark else 0, f"is not YAML: {problem}")
        # Deep nesting and odd dates fail inside the parser, and should not show a traceback.
        except (YAMLError, ValueError, RecursionError) as error:
            self._fail_at(0, f"is not YAML: {' '.join(str(error).split()) or type(error).__name__}")

    def _find_lines(self, yaml: YAML, node: Node, path: Path, around: frozenset[int]) -> None:
        """Note the lines of all keys and items under a node. `around` are the nodes that contain this one."""
        # YAML lets an alias name a node that contains it, which would be followed for ever.
        if id(node) in around:
            self._fail_at(node.start_mark.line, "contains itself; remove the alias")
        around |= {id(node)}
        if isinstance(node, MappingNode):
            children = [(yaml.constructor.construct_object(key, deep=True), key, value) for key, value in node.value]
        elif isinstance(node, SequenceNode):
            children = [(index, item, item) for index, item in enumerate(node.value)]
        else:
            return
        for key, marked, value in children:
            # Aliases of aliases multiply, so a short text could fill the memory.
            if len(self._lines) >= _MAX_VALUES:
                self._fail_at(marked.start_mark.line, f"holds more than {_MAX_VALUES} values; make it smaller")
            self._lines[*path, key] = marked.start_mark.line
            self._find_lines(yaml, value, (*path, key), around)

    def _fail_at(self, line: int, problem: str) -> NoReturn:
        raise ConfigError(f"{self.file}:{self._origin(line)}: {problem}")

    def _origin(self, line: int) -> int:
        """Return the line of the file, from 1, behind a line of the expanded text, from 0."""
        return self._origins[min(line, len(self._origins) - 1)] if self._origins else 1
