"""A YAML text as plain dicts and lists, with the line of every key and item beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from ..errors import ConfigError

Path: TypeAlias = tuple[Any, ...]
"""The keys and indices that lead from the top of the document to a value."""
_VARIABLE: Final = r"\$\{([^}:]*)(?::([^}]*))?\}"


class Document(msgspec.Struct, eq=False):
    """One file with its value, its lines, and the warnings about it."""

    file: str
    value: Any = None
    warnings: list[str] = msgspec.field(default_factory=list)
    _lines: dict[Path, int] = msgspec.field(default_factory=dict)
    """The line of each key or item, counted from 0 in the expanded text."""
    _origins: list[int] = msgspec.field(default_factory=list)
    """The line of the file behind each line of the expanded text."""

    @classmethod
    def parse(cls, text: str, file: str, environ: Mapping[str, str]) -> Document:
        """Put the variables into the text and read it as YAML 1.2. Raises ConfigError."""
        document = cls(file)
        from .yaml_reader import read_yaml  # here, so that an engine without a file starts without a YAML parser

        document.value, document._lines = read_yaml(document._expand(text, environ), document._fail_at)
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
            for part in re.sub(_VARIABLE, value, line).split("\n"):
                expanded.append(part)
                self._origins.append(number)
        return "\n".join(expanded) + "\n"

    def _fail_at(self, line: int, problem: str) -> NoReturn:
        raise ConfigError(f"{self.file}:{self._origin(line)}: {problem}")

    def _origin(self, line: int) -> int:
        """Return the line of the file, from 1, behind a line of the expanded text, from 0."""
        return self._origins[min(line, len(self._origins) - 1)] if self._origins else 1
