"""YAML whose keys know their lines: every complaint about a file names file, line and key, and says how to mend it."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NoReturn, get_args, get_origin

import attrs
import cattrs
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from .errors import ConfigError

OURS: Final = "iii-trio"
"""The key of an entry under which our own settings stand."""
_VARIABLE: Final = re.compile(r"\$\{([^}:]*)(?::([^}]*))?\}")


@attrs.define(eq=False)
class YamlReader:
    """Reads one file; keeps what errors need: the file's name, and where each line of the expanded text came from."""

    file: str
    origins: list[int] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)

    # --- text to a tree whose keys know their lines

    def expand(self, text: str, environ: Mapping[str, str]) -> str:
        """Put in the `${VAR}` and `${VAR:default}` of the raw text, as iii does, before it is YAML."""
        expanded: list[str] = []
        for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
            comment = line.lstrip().startswith("#")

            def value(match: re.Match[str], number: int = number, comment: bool = comment) -> str:
                name = match[1].strip()
                default: str | None = match[2]
                found = environ.get(name, default)
                if found is None and comment:
                    return match[0]
                if found is None:
                    raise ConfigError(
                        f"{self.file}:{number}: environment variable {name} is not set; "
                        f"set it, or give a default: ${{{name}:value}}"
                    )
                return found

            for part in _VARIABLE.sub(value, line).split("\n"):
                expanded.append(part)
                self.origins.append(number)
        return "\n".join(expanded) + "\n"

    def parse(self, text: str) -> Any:
        """The tree of a YAML text."""
        try:
            return YAML(typ="rt", pure=True).load(text)
        except DuplicateKeyError as error:
            key = re.search(r'duplicate key "(.*?)"', error.problem or "")
            shown = f"`{key[1]}` " if key else "a key "
            self.fail(error.problem_mark.line, f"{shown}is given twice; keep one of the two")
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(filter(None, [error.context, error.problem]))
            self.fail(mark.line if mark else 0, f"is not YAML: {what}")
        except (YAMLError, ValueError, RecursionError) as error:
            self.fail(0, f"is not YAML: {' '.join(str(error).split()) or type(error).__name__}")

    def origin(self, line: int) -> int:
        """The line of the file (from 1) behind a line of the expanded text (from 0)."""
        return self.origins[min(line, len(self.origins) - 1)] if self.origins else 1

    # --- settings of a class

    def whole(self, ours: CommentedMap, key: str, cls: type[Any]) -> Any:
        """One of our classes that has required fields."""
        section = self.mapping(ours, key)
        fields = attrs.fields_dict(attrs.resolve_types(cls))
        self.only(section, fields, f"in `{OURS}.{key}`")
        values = {}
        for name, value in section.items():
            try:
                values[name] = STRICT.structure(value, fields[name].type or object)
            except Exception:  # cattrs has no narrower word for a text that is none of the allowed ones
                what = WANTED.get(name, "the path of a file")  # and never the value: it may be a secret
                self.fail(line_of(section, name), f"`{key}.{name}` cannot be used; give {what}")
        for name, field in fields.items():
            if field.default is attrs.NOTHING and name not in values:
                self.fail(line_of(ours, key), f"`{key}` has no `{name}`")
        try:
            return cls(**values)
        except ValueError as error:
            self.fail(line_of(ours, key), f"`{key}` cannot be used: {error}")

    def section(self, ours: CommentedMap, key: str, cls: type[Any]) -> Any:
        """One of our classes whose fields all have defaults."""
        section = self.mapping(ours, key)
        self.only(section, attrs.fields_dict(cls), f"in `{OURS}.{key}`")
        return cls(**self.values(section, cls, key))

    def values(
        self, section: CommentedMap, cls: type[Any], path: str = "", wanted: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """The values of a class's fields (of all, or those `wanted`), one by one, so that what is refused has a line."""
        fields = attrs.fields_dict(attrs.resolve_types(cls))
        values = {}
        for name, value in section.items():
            if wanted is not None and name not in wanted:
                continue
            try:
                values[name] = STRICT.structure(value, fields[name].type or object)
                check = fields[name].validator
                if check is not None:
                    check(None, fields[name], values[name])
            except (ValueError, TypeError) as error:
                self.fail(line_of(section, name), f"`{path}{'.' * bool(path)}{name}` is {shown(value)}; {mend(error)}")
        return values

    # --- small readers

    def mapping(self, parent: CommentedMap, key: str) -> CommentedMap:
        """The keys and values under a key; none where it is not there."""
        value = parent.get(key)
        if value is None:
            return CommentedMap()
        if not isinstance(value, CommentedMap):
            self.fail(line_of(parent, key), f"`{key}` is {kind_of(value)}; make it keys and values")
        return value

    def only(self, mapping: CommentedMap, known: Iterable[str], where: str) -> None:
        """Fail for a key that is not known."""
        known = list(known)
        for key in mapping:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                instead = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
                self.fail(line_of(mapping, key), f"unknown key `{key}` {where}; {instead}")

    def milliseconds(self, line: int, key: str, value: object, least: int = 0) -> float:
        """In seconds."""
        return self.count(line, key, value, least, " of milliseconds") / 1000

    def count(self, line: int, key: str, value: object, least: int, unit: str = "") -> int:
        """A whole number, which may stand in quotes: that of a variable does."""
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.fail(line, f"`{key}` is {shown(value)}; give a whole number{unit}, at least {least}")
        return value

    def text(self, parent: CommentedMap, key: str, wanted: str) -> str | None:
        """The text of a key; None where it is not there. `wanted` says what to give."""
        value = parent.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self.fail(line_of(parent, key), f"`{key}` is {shown(value)}; give {wanted}")
        return str(value)

    def fail(self, line: int, what: str) -> NoReturn:
        raise ConfigError(f"{self.file}:{self.origin(line)}: {what}")

    def warn(self, line: int, what: str) -> None:
        self.warnings.append(f"{self.file}:{self.origin(line)}: {what}")


def line_of(mapping: CommentedMap, key: Any, default: int | None = None) -> int:
    """The line of a key, counted from 0 in the expanded text."""
    try:
        return int(mapping.lc.data[key][0])
    except (KeyError, TypeError, AttributeError):  # absent, or merged in from elsewhere
        return int(mapping.lc.line) if default is None else default


def is_whole(value: object) -> bool:
    """Whether it is a number without a fraction, and not `true`."""
    return isinstance(value, int) and not isinstance(value, bool)


def kind_of(value: object) -> str:
    """What there is instead, for people."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else shown(value)


def shown(value: object) -> str:
    """A value as an error shows it."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


# --- our own settings: strict, so that a text is no number and `true` is not 1


def _whole_number(value: Any, _: Any) -> int:
    if not is_whole(value):
        raise ValueError("give a whole number")
    return int(value)


def _number(value: Any, _: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("give a number")
    return float(value)


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("give a text")
    return str(value)


def _texts(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("give a list of texts")
    return tuple(_text(each, str) for each in value)


def _flag(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("give true or false")
    return value


def _is_literal(wanted: Any) -> bool:
    return get_origin(wanted) is Literal


def _one_of(value: Any, wanted: Any) -> Any:
    if value not in get_args(wanted):
        *others, last = (f"`{each}`" for each in get_args(wanted))
        raise ValueError(f"give {', '.join(others)} or {last}")
    return value


STRICT: Final = cattrs.Converter(detailed_validation=False)
STRICT.register_structure_hook(str, _text)
STRICT.register_structure_hook_func(lambda wanted: wanted == tuple[str, ...], _texts)
STRICT.register_structure_hook_func(_is_literal, _one_of)
STRICT.register_structure_hook(bool, _flag)
STRICT.register_structure_hook(int, _whole_number)
STRICT.register_structure_hook(float, _number)

WANTED: Final = {
    "channels": "`key` or `key_and_token`",
    "tokens": "a list of texts (in quotes, if they look otherwise)",
}
"""What to give, of fields whose values may be secrets; of others, the path of a file."""


def mend(error: Exception) -> str:
    """What to do, out of what an attrs validator ("'port' must be > 0: -1") or a hook of ours says."""
    said = re.search(r"must be ([<>]=? ?[\d.]+)", str(error))
    return f"it must be {said[1]}" if said else str(error)
