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
      - name: iii-queue                     # see `config_file_queue`
        config: { queue_configs: { mail: { concurrency: 4 } } }
      - name: iii-http                      # a worker that iii has built in and we have not: a warning
        config: { port: 3111 }

Our own settings stand beside `config`, where iii's engine tolerates what it does not know: one file serves both.
Everything that cannot be used is a `ConfigError` whose text names file, line and key, and says how to mend it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from .config import Auth, ChannelDefaults, EngineConfig, Limits, Listener, ListenerLimits, Timeouts, Tls
from .config_file_queue import QUEUE, QueueEntry, read_queue
from .config_yaml import OURS, YamlReader, is_whole, kind_of, line_of, shown
from .errors import ConfigError

LISTENER: Final = "iii-worker-manager"
GRACE_KEY: Final = "registration_namespace_grace_ms"
GRACE_VARIABLE: Final = "III_NAMESPACE_GRACE_MS"
TOP_LEVEL: Final = (GRACE_KEY, "workers", "modules")
SECTIONS: Final[Mapping[str, type[Any]]] = {"limits": Limits, "channels": ChannelDefaults, "timeouts": Timeouts}
OF_LISTENER: Final = ("unix", "mode", "origins", "tls", "auth", "listener_limits")
BUILT_IN: Final = frozenset({"configuration", "iii-engine-functions"})
"""Workers of iii that every engine has, ours too: nothing to warn of."""
ACCESS_RULES: Final = frozenset({"rbac", "middleware_function_id"})


@attrs.frozen
class ConfigFile:
    """What a file says, and what in it has no effect here (one sentence each, with file and line)."""

    config: EngineConfig
    warnings: tuple[str, ...] = ()
    jobs_in: str | None = None
    """Where it wants jobs to be kept: `memory`, or a directory; None: it does not say."""


def read_config(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> ConfigFile:
    """Read an iii configuration file; `environ` (default: the process's) gives the values of `${VAR}`.

    Blocks while it reads. Raises ConfigError.
    """
    file = os.fspath(path)
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); name another file with --config") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return parse_config(text, file, environ)


def default_config(environ: Mapping[str, str] | None = None) -> EngineConfig:
    """What an engine gets that has no file: one listener on 127.0.0.1:49134. Raises ConfigError."""
    timeouts = _grace_from_environment(Timeouts(), os.environ if environ is None else environ)
    return EngineConfig(timeouts=timeouts)


def parse_config(text: str, file: str, environ: Mapping[str, str] | None = None) -> ConfigFile:
    """As `read_config`, for text that is already read; `file` is the name that errors show."""
    environ = os.environ if environ is None else environ
    return _Reader(file).read(text, environ)


def _grace_from_environment(timeouts: Timeouts, environ: Mapping[str, str]) -> Timeouts:
    value = environ.get(GRACE_VARIABLE, "").strip()
    if not value:
        return timeouts
    if not (value.isascii() and value.isdigit()):
        raise ConfigError(f"environment variable {GRACE_VARIABLE} is {value!r}; set it to a number of milliseconds")
    return attrs.evolve(timeouts, registration_grace_seconds=int(value) / 1000)


@attrs.define(eq=False)
class _Reader(YamlReader):
    def read(self, text: str, environ: Mapping[str, str]) -> ConfigFile:
        document = self.parse(self.expand(text, environ))
        if document is None:
            document = CommentedMap()
        if not isinstance(document, CommentedMap):
            self.fail(0, f"holds {kind_of(document)}, not keys; start it with `workers:`")
        self.only(document, TOP_LEVEL, "at the top level")
        if document.get("modules"):
            self.warn(
                line_of(document, "modules"),
                "`modules` is iii's old spelling and has no effect here; move its entries to `workers`",
            )
        engine, listeners, queue = self._entries(document)
        if queue is not None:
            engine["queue"] = queue.config
        timeouts: Timeouts = engine.get("timeouts", Timeouts())
        grace = document.get(GRACE_KEY)
        if grace is not None:
            line = line_of(document, GRACE_KEY)
            timeouts = attrs.evolve(timeouts, registration_grace_seconds=self.milliseconds(line, GRACE_KEY, grace))
        engine["timeouts"] = _grace_from_environment(timeouts, environ)
        return ConfigFile(
            EngineConfig(listeners=listeners or (Listener(),), **engine),
            tuple(self.warnings),
            jobs_in=None if queue is None else queue.place,
        )

    # --- entries

    def _entries(self, document: CommentedMap) -> tuple[dict[str, Any], tuple[Listener, ...], QueueEntry | None]:
        """The engine's own settings, the listeners, and the queue, of all `workers` entries."""
        listeners: list[Listener] = []
        taken: dict[tuple[str, int] | str, int] = {}
        engine: dict[str, Any] = {}
        queue: QueueEntry | None = None
        engine_line = queue_line = 0
        entries = document.get("workers")
        if entries is None:
            entries = CommentedSeq()
        if not isinstance(entries, CommentedSeq):
            self.fail(line_of(document, "workers"), f"`workers` is {kind_of(entries)}; make it a list of `- name: …`")
        for index, entry in enumerate(entries):
            line = entries.lc.data[index][0] if entries.lc.data else 0
            if not isinstance(entry, CommentedMap):
                self.fail(line, f"an entry of `workers` is {kind_of(entry)}; write `- name: …`")
            name = entry.get("name")
            if not isinstance(name, str) or not name.strip():
                self.fail(line_of(entry, "name", line), "an entry of `workers` has no name; write `- name: …`")
            if name == LISTENER:
                listener = self._listener(entry, line)
                place = listener.place
                if (listener.unix or listener.port) and place in taken:
                    where = f"{listener.host}:{listener.port}" if listener.unix is None else f"unix:{listener.unix}"
                    self.fail(
                        line,
                        f"listens at {where}, as line "
                        f"{self.origin(taken[place])} does; give each its own {'path' if listener.unix else 'port'}",
                    )
                taken[place] = line
                listeners.append(listener)
                if self.mapping(entry, OURS).keys() - set(OF_LISTENER):
                    if engine_line:
                        self.fail(
                            line_of(entry, OURS),
                            f"`{OURS}` says something of the whole engine here and at line {self.origin(engine_line)}; "
                            "keep one of the two",
                        )
                    engine_line = line_of(entry, OURS)
                    engine = self._ours(entry, engine_line)
            elif name in QUEUE:
                if queue is not None:
                    first = self.origin(queue_line)
                    self.fail(line, f"`{name}` is the queue a second time; put all its settings at line {first}")
                queue, queue_line = read_queue(self, entry), line
            elif name == OURS or OURS in entry:
                self.fail(
                    line_of(entry, OURS, line),
                    f"settings of {OURS} do not stand here; put the key `{OURS}:` into the entry `- name: {LISTENER}`",
                )
            elif name not in BUILT_IN:
                self.warn(
                    line,
                    f"worker `{name}` is not part of this engine and is not started; "
                    "run it by itself, or remove the entry",
                )
        return engine, tuple(listeners), queue

    def _listener(self, entry: CommentedMap, line: int) -> Listener:
        config = self.mapping(entry, "config")
        for key in config:
            if key in ACCESS_RULES:
                self.fail(
                    line_of(config, key),
                    f"`{key}`: this engine has no access rules yet, and a listener without "
                    f"them would let everybody in; remove the key or use iii's engine",
                )
        self.only(config, ("port", "host", "handshake_timeout_ms"), f"in `config` of {LISTENER}")
        settings: dict[str, Any] = {}
        port, handshake = config.get("port"), config.get("handshake_timeout_ms")
        host = self.text(config, "host", "an address such as 127.0.0.1")
        if host is not None:
            settings["host"] = host
        if port is not None:
            if isinstance(port, str) and port.isascii() and port.isdigit():
                port = int(port)  # "${PORT}", quoted so that editors take the file for YAML
            if not is_whole(port) or not 0 <= port <= 65535:
                self.fail(
                    line_of(config, "port"),
                    f"`port` is {shown(port)}; give a number from 0 (the system chooses) to 65535",
                )
            settings["port"] = int(port)
        if handshake is not None:
            seconds = self.milliseconds(line_of(config, "handshake_timeout_ms"), "handshake_timeout_ms", handshake, 1)
            settings["limits"] = ListenerLimits(handshake_seconds=seconds)
        ours = self.mapping(entry, OURS)
        if ours.get("listener_limits") is not None:
            limits = self.section(ours, "listener_limits", ListenerLimits)
            if handshake is not None and limits.handshake_seconds is not None:
                line = line_of(self.mapping(ours, "listener_limits"), "handshake_seconds")
                self.fail(line, "`listener_limits.handshake_seconds` and `handshake_timeout_ms` say the same; keep one")
            settings["limits"] = limits if handshake is None else attrs.evolve(limits, handshake_seconds=seconds)
        settings["unix"] = self.text(ours, "unix", "the path of a socket")
        for key, cls in (("tls", Tls), ("auth", Auth)):
            if ours.get(key) is not None:
                settings[key] = self.whole(ours, key, cls)
        mode = ours.get("mode")
        if mode is not None:
            # YAML readers disagree about 0660, so it has to be a text.
            if not isinstance(mode, str) or not re.fullmatch(r"0?[0-7]{3}", mode):
                self.fail(line_of(ours, "mode"), f'`mode` is {shown(mode)}; give a file mode in quotes, such as "0660"')
            settings["mode"] = int(mode, 8)
        if ours.get("origins") is not None:
            origins = ours["origins"]
            try:
                settings["origins"] = Listener(origins=origins if isinstance(origins, list) else str(origins)).origins
            except (TypeError, ValueError) as error:
                self.fail(line_of(ours, "origins"), f"`origins` cannot be used: {error}")
        return Listener(**settings)

    def _ours(self, entry: CommentedMap, line: int) -> dict[str, Any]:
        """Our own settings, structured into the classes of `config.py`."""
        ours = self.mapping(entry, OURS)
        self.only(ours, (*OF_LISTENER, *SECTIONS, "name"), f"in `{OURS}`")
        engine: dict[str, Any] = {key: self.section(ours, key, cls) for key, cls in SECTIONS.items() if key in ours}
        if "name" in ours:
            if not isinstance(ours["name"], str) or not ours["name"].strip():
                self.fail(line_of(ours, "name"), f"`name` is {shown(ours['name'])}; give a text")
            engine["name"] = str(ours["name"])
        return engine
