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
          timeouts: { reattach_grace_seconds: 10 }
      - name: iii-queue                     # a module: it reads its entry itself
        config: { queue_configs: { mail: { concurrency: 4 } } }
      - name: iii-http                      # a worker that iii has built in and we have not: a warning
        config: { port: 3111 }

Our own settings stand beside `config`, because iii's engine tolerates unknown keys there. One file serves both engines.
A setting that cannot be used is a `ConfigError`. Its text names the file, the line, the key and the remedy.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
import msgspec

from ..errors import ConfigError
from .default import grace_from_environment
from .document import Document
from .rbac_entry import read_access_rules
from .section import OURS, Entry, ModuleEntry, Section, is_whole, kind_of, shown
from .settings import (
    Auth,
    ChannelDefaults,
    EngineConfig,
    Limits,
    Listener,
    ListenerLimits,
    RecorderSettings,
    Timeouts,
    Tls,
)
from .text_file import read_text_file, why_unreadable

LISTENER: Final = "iii-worker-manager"
GRACE_KEY: Final = "registration_namespace_grace_ms"
TOP_LEVEL: Final = (GRACE_KEY, "workers", "modules")
SECTIONS: Final[Mapping[str, type[Any]]] = {
    "limits": Limits,
    "channels": ChannelDefaults,
    "timeouts": Timeouts,
    "recorder": RecorderSettings,
}
OF_LISTENER: Final = ("unix", "mode", "origins", "tls", "auth", "listener_limits", "metrics", "page")
BUILT_IN: Final = frozenset({"configuration", "iii-engine-functions"})
"""Workers of iii that every engine has, ours too. They need no warning."""
_NEAR: Final = 0.8  # of one letter more, less or other; `iii-cron` is not near `iii-http`
ACCESS_RULES: Final = ("rbac", "middleware_function_id")


class ReadsEntry(Protocol):
    """A module, as far as the file is concerned."""

    @property
    def name(self) -> str:
        """Return the module's name in `EngineConfig.modules`."""

    @property
    def entries(self) -> Collection[str]:
        """The names of its entry."""

    def read_entry(self, entry: Entry) -> ModuleEntry:
        """Read its entry. Raises ConfigError."""


class ConfigFile(msgspec.Struct, frozen=True):
    """What a file says, and what in it has no effect here (one sentence each, with file and line)."""

    config: EngineConfig
    warnings: tuple[str, ...] = ()
    data: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Where modules are to keep their data, by name: `memory`, or a directory. A module that is not here is not told."""
    empty: bool = False
    """Whether the file holds nothing: no key at all."""
    names_listeners: bool = False
    """Whether the file says where to listen. The listener is the default one otherwise."""


def read_config(
    path: str | os.PathLike[str], environ: Mapping[str, str] | None = None, *, modules: Iterable[ReadsEntry] = ()
) -> ConfigFile:
    """Read an iii configuration file.

    `environ` (default: the process's) gives the values of `${VAR}`. The entries of `modules` are read.
    Blocks while it reads. Raises ConfigError.
    """
    file = os.fspath(path)
    try:
        text = read_text_file(file)
    # The user gave this path, so the error should say what to do rather than show a traceback.
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({why_unreadable(error)}); name another file with --config"
        ) from None
    return parse_config(text, file, environ, modules=modules)


def parse_config(
    text: str, file: str, environ: Mapping[str, str] | None = None, *, modules: Iterable[ReadsEntry] = ()
) -> ConfigFile:
    """As `read_config`, for text that is already read; `file` is the name that errors show."""
    document = Document.parse(text, file, os.environ if environ is None else environ)
    return _Reader(document, tuple(modules)).read(os.environ if environ is None else environ)


class _Reader(msgspec.Struct, eq=False):
    document: Document
    modules: tuple[ReadsEntry, ...]
    engine: dict[str, Any] = msgspec.field(default_factory=dict)
    """The settings of the whole engine, by field of `EngineConfig`."""
    listeners: list[Listener] = msgspec.field(default_factory=list)
    found: dict[str, ModuleEntry] = msgspec.field(default_factory=dict)
    """What the entries of modules say, by the module's name."""
    _lines: dict[object, int] = msgspec.field(default_factory=dict)
    """The line of each place to listen at, of each module, and of the whole engine's settings."""

    def read(self, environ: Mapping[str, str]) -> ConfigFile:
        value = self.document.value
        if value is not None and not isinstance(value, dict):
            self.document.fail((), f"holds {kind_of(value)}, not keys; start it with `workers:`")
        top = Section(self.document, (), value or {})
        top.only(TOP_LEVEL, "at the top level")
        # Old files of iii still have it, and must go on to start the engine.
        if top.get("modules"):
            top.warn("modules", "`modules` is iii's old spelling and has no effect here; move its entries to `workers`")
        entries = top.get("workers") if top.get("workers") is not None else []
        if not isinstance(entries, list):
            top.fail("workers", f"`workers` is {kind_of(entries)}; make it a list of `- name: …`")
        for index in range(len(entries)):
            self._read_entry(entries[index], ("workers", index))
        timeouts: Timeouts = self.engine.pop("timeouts", Timeouts())
        # This is iii's key, so it means the same in both engines, whatever ours beside it says.
        if top.get(GRACE_KEY) is not None:
            timeouts = attrs.evolve(timeouts, registration_grace_seconds=top.milliseconds(GRACE_KEY))
        return ConfigFile(
            EngineConfig(
                listeners=self.listeners or (Listener(),),
                timeouts=grace_from_environment(timeouts, environ),
                modules={name: entry.settings for name, entry in self.found.items()},
                **self.engine,
            ),
            tuple(self.document.warnings),
            {name: entry.data for name, entry in self.found.items() if entry.data is not None},
            empty=not top.values,
            names_listeners=bool(self.listeners),
        )

    # --- entries

    def _read_entry(self, value: Any, path: tuple[Any, ...]) -> None:
        document = self.document
        if not isinstance(value, dict):
            document.fail(path, f"an entry of `workers` is {kind_of(value)}; write `- name: …`")
        name = value.get("name")
        if not isinstance(name, str) or not name.strip():
            document.fail((*path, "name"), "an entry of `workers` has no name; write `- name: …`")
        entry = Entry(document, path, value)
        module = next((module for module in self.modules if name in module.entries), None)
        if name == LISTENER:
            self._add_listener(entry)
        elif module is not None:
            # A second entry would silently replace the settings of the first.
            if module.name in self._lines:
                first = self._lines[module.name]
                entry.fail(None, f"`{name}` is the {module.name} a second time; put all its settings at line {first}")
            self._lines[module.name] = entry.line()
            self.found[module.name] = module.read_entry(entry)
        # Settings under a wrong entry would have no effect, which could leave a listener unguarded.
        elif name == OURS or OURS in entry:
            if near := self._near(name):
                entry.fail(None, f"worker `{name}` is not part of this engine; did you mean `{near}`?")
            entry.fail(
                OURS if OURS in entry else None,
                f"settings of {OURS} do not stand here; put the key `{OURS}:` into the entry `- name: {LISTENER}`",
            )
        # iii starts such workers itself, so a file for it may name many that are none of ours.
        elif name not in BUILT_IN:
            near = self._near(name)
            mend = f"did you mean `{near}`?" if near else "run it by itself, or remove the entry"
            entry.warn(None, f"worker `{name}` is not part of this engine and is not started; {mend}")

    def _near(self, name: str) -> str | None:
        """Return the name of an entry that this engine knows and that is nearly the same."""
        known = [LISTENER, *(each for module in self.modules for each in module.entries)]
        return next(iter(difflib.get_close_matches(name, known, 1, _NEAR)), None)

    def _add_listener(self, entry: Entry) -> None:
        listener = self._listener(entry)
        place = listener.place
        # Port 0 is a free port each time, so two of those do not collide.
        if (listener.unix or listener.port) and place in self._lines:
            where = f"{listener.host}:{listener.port}" if listener.unix is None else f"unix:{listener.unix}"
            entry.fail(
                None,
                f"listens at {where}, as line {self._lines[place]} does; "
                f"give each its own {'path' if listener.unix else 'port'}",
            )
        self._lines[place] = entry.line()
        self.listeners.append(listener)
        if set(entry.section(OURS)) - set(OF_LISTENER):
            # Two entries that set the whole engine would depend on their order.
            if EngineConfig in self._lines:
                first = self._lines[EngineConfig]
                entry.fail(
                    OURS,
                    f"`{OURS}` says something of the whole engine here and at line {first}; keep one of the two",
                )
            self._lines[EngineConfig] = entry.line(OURS)
            self.engine = self._whole_engine(entry.section(OURS))

    def _listener(self, entry: Entry) -> Listener:
        config, ours = entry.section("config"), entry.section(OURS)
        config.only(("port", "host", "handshake_timeout_ms", *ACCESS_RULES), f"in `config` of {LISTENER}")
        settings: dict[str, Any] = read_access_rules(config)
        host = config.text("host", "an address such as 127.0.0.1")
        if host is not None:
            settings["host"] = host
        if config.get("port") is not None:
            settings["port"] = self._port(config)
        limits = ListenerLimits()
        if ours.get("listener_limits") is not None:
            limits = ours.section("listener_limits").structure(ListenerLimits)
        if config.get("handshake_timeout_ms") is not None:
            seconds = config.milliseconds("handshake_timeout_ms", 1)
            if limits.handshake_seconds is not None:
                ours.section("listener_limits").fail(
                    "handshake_seconds",
                    "`listener_limits.handshake_seconds` and `handshake_timeout_ms` say the same; keep one",
                )
            limits = attrs.evolve(limits, handshake_seconds=seconds)
        settings["unix"] = ours.socket_path("unix")
        for key, cls in (("tls", Tls), ("auth", Auth)):
            if key in ours:
                section = ours.section(key)
                value: Any = section.structure(cls)
                settings[key] = attrs.evolve(value, where=f"{self.document.file}:{section.line()}")
        mode = ours.file_mode("mode")
        if mode is not None:
            settings["mode"] = mode
        origins = ours.get("origins")
        if origins is not None:
            try:
                settings["origins"] = Listener(origins=origins if isinstance(origins, list) else str(origins)).origins
            except (TypeError, ValueError) as error:
                ours.fail("origins", f"`origins` cannot be used: {error}")
        for name in ("metrics", "page"):
            value = ours.get(name)
            if value is None:
                continue
            if not isinstance(value, bool):
                ours.fail(name, f"`{name}` is {shown(value)}; give true or false")
            settings[name] = value
        return Listener(limits=limits, **settings)

    def _port(self, config: Section) -> int:
        port = config.get("port")
        if isinstance(port, str) and port.isascii() and port.isdigit():
            port = int(port)  # "${PORT}", quoted so that editors take the file for YAML
        if not is_whole(port) or not 0 <= port <= 65535:
            config.fail("port", f"`port` is {shown(port)}; give a number from 0 (the system chooses) to 65535")
        return int(port)

    def _whole_engine(self, ours: Section) -> dict[str, Any]:
        """Read the settings that hold for the whole engine."""
        ours.only((*OF_LISTENER, *SECTIONS, "name"), f"in `{OURS}`")
        engine: dict[str, Any] = {key: ours.section(key).structure(cls) for key, cls in SECTIONS.items() if key in ours}
        if "name" in ours:
            name = ours.get("name")
            if not isinstance(name, str) or not name.strip():
                ours.fail("name", f"`name` is {shown(name)}; give a string")
            engine["name"] = name
        return engine
