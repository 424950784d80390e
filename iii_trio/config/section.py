"""Some keys and values of a configuration file, and how they become settings.

Values are structured by the project's converter (`structure.py`), one key at a time. So every complaint has the line of
its key, and the first one in the file is the one that is reported.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn, TypeVar, cast, get_origin

import attrs
import msgspec

from ..structure import WrongType, convert, first_error
from .document import Document, Path
from .settings import MAX_NUMBER, MAX_SECONDS

T = TypeVar("T")
OURS: Final = "iii-trio"
"""The key of an entry under which the settings of this engine stand."""


class Section(msgspec.Struct, frozen=True):
    """The keys and values at one place of a document."""

    document: Document
    path: Path
    values: Mapping[Any, Any]

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the plain value of a key."""
        return self.values.get(key, default)

    def line(self, key: Any = None) -> int:
        """Return the line of a key, or of the section itself."""
        return self.document.line(self.path if key is None else (*self.path, key))

    def fail(self, key: Any, problem: str) -> NoReturn:
        """Raise a ConfigError with the line of a key, or of the section if `key` is None."""
        self.document.fail(self.path if key is None else (*self.path, key), problem)

    def warn(self, key: Any, problem: str) -> None:
        """Add a warning with the line of a key, or of the section if `key` is None."""
        self.document.warn(self.path if key is None else (*self.path, key), problem)

    # --- parts

    def section(self, key: Any) -> Section:
        """Return the keys and values under a key. They are empty where the key is absent or has no value."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            self.fail(key, f"`{key}` is {kind_of(value)}; make it keys and values")
        return Section(self.document, (*self.path, key), value or {})

    def only(self, known: Iterable[str], where: str) -> None:
        """Fail for a key that is not known. `where` says in which part of the file, for the error."""
        known = list(known)
        for key in self.values:
            # A misspelt key would otherwise be ignored, and the default would hold unnoticed.
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                instead = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
                self.fail(key, f"unknown key `{key}` {where}; {instead}")

    # --- settings

    def structure(self, cls: type[T], where: str | None = None) -> T:
        """Make an attrs class of the whole section. `where` names the section in errors about unknown keys."""
        label = self._label
        name = f"`{label}`" if label else "this entry"
        known = [field.name for field in attrs.fields(cls) if not field.metadata.get("internal")]  # type: ignore[arg-type]
        self.only(known, where or (f"in `{OURS}.{label}`" if label else f"in `{OURS}`"))
        values = self.settings(cls)
        for field in attrs.fields(cls):  # type: ignore[arg-type]
            if field.default is attrs.NOTHING and field.name not in values:
                self.fail(None, f"{name} has no `{field.name}`")
        try:
            return cls(**values)
        except (ValueError, TypeError) as error:  # what several fields together must not be
            self.fail(None, f"{name} cannot be used: {error}")

    def settings(self, cls: type[Any], names: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the checked values of an attrs class's fields (of all, or of those in `names`) that stand here."""
        fields = attrs.fields_dict(attrs.resolve_types(cls))
        wanted = set(fields if names is None else names)
        values = {}
        for name, value in self.values.items():
            if name not in wanted:
                continue
            field = fields[name]
            # Its value may be commented out, and what it guards would be open.
            if value is None and field.metadata.get("secret"):
                label = ".".join(filter(None, [self._label, name]))
                self.fail(name, f"`{label}` is empty; give {field.metadata['give']}, or remove the key")
            try:
                values[name] = _structured(value, field.type or object)
                if field.validator is not None:
                    field.validator(None, field, values[name])
            except Exception as error:  # cattrs has no narrower class for a value that fits no branch of a union
                self._refuse(field, value, error)
        return values

    def _refuse(self, field: attrs.Attribute[Any], value: Any, error: Exception) -> NoReturn:
        inner, cause = first_error(error)
        label = ".".join(map(str, filter(None, [self._label, field.name, *inner])))
        give = field.metadata.get("give")
        path = (*self.path, field.name, *inner)
        if field.metadata.get("secret"):
            self.document.fail(path, f"`{label}` cannot be used; give {give}")
        for key in inner:
            value = cast(Any, value)[key]
        self.document.fail(path, f"`{label}` is {shown(value)}; {f'give {give}' if give else mend(cause)}")

    @property
    def _label(self) -> str:
        """The keys from our own settings to this section: `limits`, or `queues.mail`."""
        if OURS not in self.path:
            return ""
        return ".".join(map(str, self.path[self.path.index(OURS) + 1 :]))

    # --- single values

    def text(self, key: str, give: str) -> str | None:
        """Return the text of a key, or None where it is absent. `give` says in an error what to give instead."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self.fail(key, f"`{key}` is {shown(value)}; give {give}")
        return value

    def count(self, key: str, minimum: int, unit: str = "", maximum: int = MAX_NUMBER) -> int:
        """Return a whole number. It may stand in quotes, as the value of a variable often does."""
        value: Any = self.values.get(key)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 100:
            value = int(value)
        if not is_whole(value) or value < minimum:
            self.fail(key, f"`{key}` is {shown(value)}; give a whole number{unit}, at least {minimum}")
        if value > maximum:
            self.fail(key, f"`{key}` is {shown(value)}; give a whole number{unit}, at most {maximum}")
        return int(value)

    def file_mode(self, key: str) -> int | None:
        """Return a file mode, or None where the key is absent."""
        value = self.values.get(key)
        if value is None:
            return None
        # YAML readers disagree about 0660, so it has to be a text.
        if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
            self.fail(key, f'`{key}` is {shown(value)}; give a file mode in quotes, such as "0660"')
        return int(value, 8)

    def socket_path(self, key: str) -> str | None:
        """Return the path of a socket, or None where the key is absent. An empty value fails, as in `Entry.section`."""
        if key in self and self.get(key) is None:
            self.fail(key, f"`{key}` is empty; give the path of a socket, or remove the key")
        return self.text(key, "the path of a socket")

    def milliseconds(self, key: str, minimum: int = 0) -> float:
        """Return a whole number of milliseconds, in seconds."""
        return self.count(key, minimum, " of milliseconds", MAX_SECONDS * 1000) / 1000


class Entry(Section, frozen=True):
    """One entry of `workers` with its name and the keys beside it."""

    @property
    def name(self) -> str:
        """The entry's `name`."""
        return str(self.values["name"])

    def section(self, key: Any) -> Section:
        """Return the keys and values under a key. Our own settings fail where they are empty."""
        # A key without a value is not an absent key. Its child line may be commented out, and a listener would be open.
        if key == OURS and key in self and self.get(key) is None:
            self.fail(key, f"`{OURS}` is empty; give its settings, or remove the key")
        return super().section(key)


class ModuleEntry(msgspec.Struct, frozen=True):
    """What a module's entry in the file says."""

    settings: Any
    """An object of the module's settings class; None turns the module off."""
    data: str | None = None
    """Where the module's data is to be kept: `memory`, or a directory. None: the file does not say."""


def is_whole(value: object) -> bool:
    """Return whether this is a number without a fraction, and not `true`."""
    return isinstance(value, int) and not isinstance(value, bool)


def kind_of(value: object) -> str:
    """Name a value that stands in the place of another one."""
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else shown(value)


def shown(value: object) -> str:
    """Return a value as an error shows it."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def mend(error: BaseException) -> str:
    """Say what to do, out of what the converter or an attrs validator ("'port' must be > 0: -1") says."""
    if isinstance(error, WrongType):
        return f"give {'a whole number' if error.wanted == 'an integer' else error.wanted}"
    bound = re.search(r"must be ([<>]=? ?[\d.]+)", str(error))
    return f"it must be {bound[1]}" if bound else str(error)


def _structured(value: Any, kind: Any) -> Any:
    """Structure one value. YAML can say more than JSON, so some values are refused first."""
    if get_origin(kind) is tuple and not isinstance(value, list):  # a text would become a tuple of its letters
        raise WrongType("a list", value)
    result = convert(value, kind)
    if isinstance(result, float) and not math.isfinite(result):  # .nan, .inf
        raise WrongType("a number", value)
    return result
