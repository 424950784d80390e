"""iii's YAML configuration, read into an `EngineConfig`. It is only ever read, never rewritten.

    registration_namespace_grace_ms: 5000
    workers:
      - name: iii-worker-manager            # a listener; several entries are several listeners
        config: { host: 127.0.0.1, port: "${PORT:49134}" }
        iii-trio:                           # ours: the listener's, and whole-engine settings on at most one entry
          tls: { certificate: /etc/engine/cert.pem, key: /etc/engine/key.pem }    # this listener's own; so are
          auth: { token_file: /etc/engine/tokens, channels: key }                 # `auth`, `unix: /path` and
          listener_limits: { sessions: 100 }                                      # `listener_limits`
          limits: { message_bytes: 67108864 }
          patience: { reattach_grace_seconds: 10 }
      - name: iii-http                      # a worker that iii has built in and we have not: a warning
        config: { port: 3111 }

Our own settings stand beside `config`, where iii's engine tolerates what it does not know: one file serves both.
Everything that cannot be used is a `ConfigError` whose text names file, line and key, and says how to mend it.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs
import cattrs
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from .config import Auth, ChannelDefaults, EngineConfig, Limits, Listener, ListenerLimits, Patience, Tls
from .errors import ConfigError

LISTENER: Final = "iii-worker-manager"
OURS: Final = "iii-trio"
GRACE_KEY: Final = "registration_namespace_grace_ms"
GRACE_VARIABLE: Final = "III_NAMESPACE_GRACE_MS"
TOP_LEVEL: Final = (GRACE_KEY, "workers", "modules")
SECTIONS: Final[Mapping[str, type[Any]]] = {"limits": Limits, "channels": ChannelDefaults, "patience": Patience}
OF_LISTENER: Final = ("unix", "tls", "auth", "listener_limits")
BUILT_IN: Final = frozenset({"configuration", "iii-engine-functions"})
"""Workers of iii that every engine has, ours too: nothing to warn of."""
ACCESS_RULES: Final = frozenset({"rbac", "middleware_function_id"})

_VARIABLE: Final = re.compile(r"\$\{([^}:]*)(?::([^}]*))?\}")


@attrs.frozen
class ConfigFile:
    """What a file says, and what in it has no effect here (one sentence each, with file and line)."""

    config: EngineConfig
    warnings: tuple[str, ...] = ()


def read_config(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> ConfigFile:
    """Read an iii configuration file; `environ` (default: the process's) gives the values of `${VAR}`.

    Blocks while it reads. Raises ConfigError.
    """
    shown = os.fspath(path)
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read ({error.strerror}); name another file with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return parse_config(text, shown, environ)


def default_config(environ: Mapping[str, str] | None = None) -> EngineConfig:
    """What an engine gets that has no file: one listener on 127.0.0.1:49134. Raises ConfigError."""
    patience = _grace_from_environment(Patience(), os.environ if environ is None else environ)
    return EngineConfig(patience=patience)


def parse_config(text: str, file: str, environ: Mapping[str, str] | None = None) -> ConfigFile:
    """As `read_config`, for text that is already read; `file` is the name that errors show."""
    environ = os.environ if environ is None else environ
    return _Reader(file).read(text, environ)


def _grace_from_environment(patience: Patience, environ: Mapping[str, str]) -> Patience:
    value = environ.get(GRACE_VARIABLE, "").strip()
    if not value:
        return patience
    if not (value.isascii() and value.isdigit()):
        raise ConfigError(f"environment variable {GRACE_VARIABLE} is {value!r}; set it to a number of milliseconds")
    return attrs.evolve(patience, registration_grace_seconds=int(value) / 1000)


@attrs.define(eq=False)
class _Reader:
    """Reads one file; keeps what errors need: the file's name, and where each line of the expanded text came from."""

    file: str
    origins: list[int] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)

    def read(self, text: str, environ: Mapping[str, str]) -> ConfigFile:
        document = self._parse(self._expand(text, environ))
        if document is None:
            document = CommentedMap()
        if not isinstance(document, CommentedMap):
            self._fail(0, f"holds {_kind(document)}, not keys; start it with `workers:`")
        self._only(document, TOP_LEVEL, "at the top level")
        if document.get("modules"):
            self._warn(
                _line(document, "modules"),
                "`modules` is iii's old spelling and has no effect here; move its entries to `workers`",
            )
        engine, listeners = self._entries(document)
        patience: Patience = engine.get("patience", Patience())
        grace = document.get(GRACE_KEY)
        if grace is not None:
            line = _line(document, GRACE_KEY)
            patience = attrs.evolve(patience, registration_grace_seconds=self._milliseconds(line, GRACE_KEY, grace))
        engine["patience"] = _grace_from_environment(patience, environ)
        return ConfigFile(EngineConfig(listeners=listeners or (Listener(),), **engine), tuple(self.warnings))

    # --- text to a tree whose keys know their lines

    def _expand(self, text: str, environ: Mapping[str, str]) -> str:
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

    def _parse(self, text: str) -> Any:
        try:
            return YAML(typ="rt", pure=True).load(text)
        except DuplicateKeyError as error:
            key = re.search(r'duplicate key "(.*?)"', error.problem or "")
            shown = f"`{key[1]}` " if key else "a key "
            self._fail(error.problem_mark.line, f"{shown}is given twice; keep one of the two")
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(filter(None, [error.context, error.problem]))
            self._fail(mark.line if mark else 0, f"is not YAML: {what}")
        except (YAMLError, ValueError, RecursionError) as error:
            self._fail(0, f"is not YAML: {' '.join(str(error).split()) or type(error).__name__}")

    def _origin(self, line: int) -> int:
        """The line of the file (from 1) behind a line of the expanded text (from 0)."""
        return self.origins[min(line, len(self.origins) - 1)] if self.origins else 1

    # --- entries

    def _entries(self, document: CommentedMap) -> tuple[dict[str, Any], tuple[Listener, ...]]:
        """The engine's own settings, and the listeners, of all `workers` entries."""
        listeners: list[Listener] = []
        taken: dict[tuple[str, int] | str, int] = {}
        engine: dict[str, Any] = {}
        engine_line = 0
        entries = document.get("workers")
        if entries is None:
            entries = CommentedSeq()
        if not isinstance(entries, CommentedSeq):
            self._fail(_line(document, "workers"), f"`workers` is {_kind(entries)}; make it a list of `- name: …`")
        for index, entry in enumerate(entries):
            line = entries.lc.data[index][0] if entries.lc.data else 0
            if not isinstance(entry, CommentedMap):
                self._fail(line, f"an entry of `workers` is {_kind(entry)}; write `- name: …`")
            name = entry.get("name")
            if not isinstance(name, str) or not name.strip():
                self._fail(_line(entry, "name", line), "an entry of `workers` has no name; write `- name: …`")
            if name == LISTENER:
                listener = self._listener(entry, line)
                place = listener.place
                if (listener.unix or listener.port) and place in taken:
                    shown = f"{listener.host}:{listener.port}" if listener.unix is None else f"unix:{listener.unix}"
                    self._fail(
                        line,
                        f"listens at {shown}, as line "
                        f"{self._origin(taken[place])} does; give each its own {'path' if listener.unix else 'port'}",
                    )
                taken[place] = line
                listeners.append(listener)
                if self._mapping(entry, OURS).keys() - set(OF_LISTENER):
                    if engine_line:
                        self._fail(
                            _line(entry, OURS),
                            f"`{OURS}` says something of the whole engine here and at line {self._origin(engine_line)}; "
                            "keep one of the two",
                        )
                    engine_line = _line(entry, OURS)
                    engine = self._ours(entry, engine_line)
            elif name == OURS or OURS in entry:
                self._fail(
                    _line(entry, OURS, line),
                    f"settings of {OURS} do not stand here; put the key `{OURS}:` into the entry `- name: {LISTENER}`",
                )
            elif name not in BUILT_IN:
                self._warn(
                    line,
                    f"worker `{name}` is not part of this engine and is not started; "
                    "run it by itself, or remove the entry",
                )
        return engine, tuple(listeners)

    def _listener(self, entry: CommentedMap, line: int) -> Listener:
        config = self._mapping(entry, "config")
        for key in config:
            if key in ACCESS_RULES:
                self._fail(
                    _line(config, key),
                    f"`{key}`: this engine has no access rules yet, and a listener without "
                    f"them would let everybody in; remove the key or use iii's engine",
                )
        self._only(config, ("port", "host", "handshake_timeout_ms"), f"in `config` of {LISTENER}")
        settings: dict[str, Any] = {}
        host, port, handshake = (config.get(key) for key in ("host", "port", "handshake_timeout_ms"))
        if host is not None:
            if not isinstance(host, str) or not host.strip():
                self._fail(_line(config, "host"), f"`host` is {_shown(host)}; give an address such as 127.0.0.1")
            settings["host"] = str(host)
        if port is not None:
            if isinstance(port, str) and port.isascii() and port.isdigit():
                port = int(port)  # "${PORT}", quoted so that editors take the file for YAML
            if not _is_whole(port) or not 0 <= port <= 65535:
                self._fail(
                    _line(config, "port"),
                    f"`port` is {_shown(port)}; give a number from 0 (the system chooses) to 65535",
                )
            settings["port"] = int(port)
        if handshake is not None:
            seconds = self._milliseconds(_line(config, "handshake_timeout_ms"), "handshake_timeout_ms", handshake, 1)
            settings["limits"] = ListenerLimits(handshake_seconds=seconds)
        ours = self._mapping(entry, OURS)
        if ours.get("listener_limits") is not None:
            limits = self._section(ours, "listener_limits", ListenerLimits)
            if handshake is not None and limits.handshake_seconds is not None:
                line = _line(self._mapping(ours, "listener_limits"), "handshake_seconds")
                self._fail(
                    line, "`listener_limits.handshake_seconds` and `handshake_timeout_ms` say the same; keep one"
                )
            settings["limits"] = limits if handshake is None else attrs.evolve(limits, handshake_seconds=seconds)
        if ours.get("unix") is not None:
            if not isinstance(ours["unix"], str) or not ours["unix"].strip():
                self._fail(_line(ours, "unix"), f"`unix` is {_shown(ours['unix'])}; give the path of a socket")
            settings["unix"] = str(ours["unix"])
        for key, cls in (("tls", Tls), ("auth", Auth)):
            if ours.get(key) is not None:
                settings[key] = self._whole(ours, key, cls)
        return Listener(**settings)

    def _whole(self, ours: CommentedMap, key: str, cls: type[Any]) -> Any:
        """One of our classes that has required fields."""
        section = self._mapping(ours, key)
        fields = attrs.fields_dict(attrs.resolve_types(cls))
        self._only(section, fields, f"in `{OURS}.{key}`")
        values = {}
        for name, value in section.items():
            try:
                values[name] = _strict.structure(value, fields[name].type or object)
            except Exception:  # cattrs has no narrower word for a text that is none of the allowed ones
                what = _WANTED.get(name, "the path of a file")  # and never the value: it may be a secret
                self._fail(_line(section, name), f"`{key}.{name}` cannot be used; give {what}")
        for name, field in fields.items():
            if field.default is attrs.NOTHING and name not in values:
                self._fail(_line(ours, key), f"`{key}` has no `{name}`")
        try:
            return cls(**values)
        except ValueError as error:
            self._fail(_line(ours, key), f"`{key}` cannot be used: {error}")

    def _ours(self, entry: CommentedMap, line: int) -> dict[str, Any]:
        """Our own settings, structured into the classes of `config.py`."""
        ours = self._mapping(entry, OURS)
        self._only(ours, (*OF_LISTENER, *SECTIONS, "name"), f"in `{OURS}`")
        engine: dict[str, Any] = {key: self._section(ours, key, cls) for key, cls in SECTIONS.items() if key in ours}
        if "name" in ours:
            if not isinstance(ours["name"], str) or not ours["name"].strip():
                self._fail(_line(ours, "name"), f"`name` is {_shown(ours['name'])}; give a text")
            engine["name"] = str(ours["name"])
        return engine

    def _section(self, ours: CommentedMap, key: str, cls: type[Any]) -> Any:
        section, settings = self._mapping(ours, key), cls()
        fields = attrs.fields_dict(attrs.resolve_types(cls))
        self._only(section, fields, f"in `{OURS}.{key}`")
        for name, value in section.items():
            try:  # one by one, so that what is refused has a line
                settings = attrs.evolve(settings, **{name: _strict.structure(value, fields[name].type or object)})
            except (ValueError, TypeError) as error:
                self._fail(_line(section, name), f"`{key}.{name}` is {_shown(value)}; {_mend(error)}")
        return settings

    # --- small readers

    def _mapping(self, parent: CommentedMap, key: str) -> CommentedMap:
        value = parent.get(key)
        if value is None:
            return CommentedMap()
        if not isinstance(value, CommentedMap):
            self._fail(_line(parent, key), f"`{key}` is {_kind(value)}; make it keys and values")
        return value

    def _only(self, mapping: CommentedMap, known: Iterable[str], where: str) -> None:
        known = list(known)
        for key in mapping:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                mend = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
                self._fail(_line(mapping, key), f"unknown key `{key}` {where}; {mend}")

    def _milliseconds(self, line: int, key: str, value: object, least: int = 0) -> float:
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self._fail(line, f"`{key}` is {_shown(value)}; give a whole number of milliseconds, at least {least}")
        return value / 1000

    def _fail(self, line: int, what: str) -> NoReturn:
        raise ConfigError(f"{self.file}:{self._origin(line)}: {what}")

    def _warn(self, line: int, what: str) -> None:
        self.warnings.append(f"{self.file}:{self._origin(line)}: {what}")


def _line(mapping: CommentedMap, key: Any, default: int | None = None) -> int:
    """The line of a key, counted from 0 in the expanded text."""
    try:
        return int(mapping.lc.data[key][0])
    except (KeyError, TypeError, AttributeError):  # absent, or merged in from elsewhere
        return int(mapping.lc.line) if default is None else default


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    return "empty" if value is None else _shown(value)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


# --- our own settings: strict, so that a text is no number and `true` is not 1


def _whole_number(value: Any, _: Any) -> int:
    if not _is_whole(value):
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


_strict = cattrs.Converter(detailed_validation=False)
_strict.register_structure_hook(str, _text)
_strict.register_structure_hook_func(lambda wanted: wanted == tuple[str, ...], _texts)
_strict.register_structure_hook(int, _whole_number)
_strict.register_structure_hook(float, _number)


_WANTED: Final = {
    "channels": "`key` or `key_and_token`",
    "tokens": "a list of texts (in quotes, if they look otherwise)",
}


def _mend(error: Exception) -> str:
    """What to do, out of what an attrs validator ("'port' must be > 0: -1") or a hook of ours says."""
    said = re.search(r"must be ([<>]=? ?[\d.]+)", str(error))
    return f"it must be {said[1]}" if said else str(error)
