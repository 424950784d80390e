"""The settings of an engine. They are frozen, have their units in their names, and are checked where they are made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import attrs
from attrs import validators

from ..records import settings
from .rbac import RbacConfig

MAX_NUMBER: Final = 2**53
"""The largest count or size. JSON readers and C code hold it exactly."""
MAX_SECONDS: Final = 1_000_000_000
"""The longest time, some 31 years. Clocks and databases hold it in milliseconds and less."""

_at_most: Any = validators.le(MAX_NUMBER)
_positive: Any = validators.and_(validators.gt(0), _at_most)
_at_least_zero: Any = validators.and_(validators.ge(0), _at_most)
_positive_or_none: Any = validators.optional(_positive)
_seconds: Any = validators.and_(validators.gt(0), validators.le(MAX_SECONDS))
_seconds_or_zero: Any = validators.and_(validators.ge(0), validators.le(MAX_SECONDS))
_seconds_or_none: Any = validators.optional(_seconds)


def _secret(give: str) -> dict[str, object]:
    """Return a field's metadata: its value is never shown, and an error says what to give."""
    return {"secret": True, "give": give}


_FILE: Final = _secret("the path of a file")


def _path(path: Any) -> Any:
    """Return the text of a path. Any other value is given back, for the next check."""
    return path.__fspath__() if hasattr(path, "__fspath__") else path


def _where() -> str:
    """Return a field for the place of these settings in a file, which errors begin with (`config.yaml:4`)."""
    return attrs.field(default="", eq=False, repr=False, kw_only=True, metadata={"internal": True})


@settings
class Limits:
    """What one peer, and all together, may take of an engine."""

    message_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_positive)
    """The largest message that is accepted, on worker and channel sockets alike."""
    outbox_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=_positive)
    """What may wait for a slow worker before calls to it are refused. One message of any size may always wait."""
    outbox_reserve_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_at_least_zero)
    """What results and control messages may take beyond that, before the session is cut off."""
    calls_per_session: int = attrs.field(default=65_536, validator=_positive)
    """How many of its calls a worker may have waiting, and how many it may have been given and not answered. Beyond it the
    oldest one is given up: it is most likely one whose caller has lost patience, of which no SDK tells."""
    functions_per_session: int = attrs.field(default=16_384, validator=_positive)
    trigger_types_per_session: int = attrs.field(default=1_024, validator=_positive)
    bindings_per_session: int = attrs.field(default=16_384, validator=_positive)
    event_bindings_per_session: int = attrs.field(default=64, validator=_positive)
    """Bindings of one worker to one event of the engine (`engine::workers-available`, `engine::functions-available`), and
    durable ones of all workers together. Each event is a call for each of them."""
    held_back_registrations: int = attrs.field(default=65_536, validator=_positive)
    """What a worker may register before it says `engine::workers::register`."""
    registration_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_positive)
    """What all that one worker has registered may take (schemas, metadata, configurations), held back or in force."""
    durable_bindings: int = attrs.field(default=16_384, validator=_positive)
    """Bindings that outlive their makers, of all workers together; their bytes have the bound of one worker's."""
    channels_per_session: int = attrs.field(default=16_384, validator=_positive)
    channels: int = attrs.field(default=65_536, validator=_positive)
    """Of all sessions together. The last eighth is kept for sessions that own less than an equal share (clause C1.5)."""
    channel_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_positive)
    """The largest `max_bytes` that a channel may be created with (clause C1.4)."""
    memory_bytes: int = attrs.field(default=512 * 1024 * 1024, validator=_positive)
    """The bytes that all peers together may make the engine hold: incomplete messages, output for slow peers, pipes,
    registrations, payloads of jobs in memory (at most half of it), and the records of all these. From seven eighths on,
    writers of channels wait. Beyond it the peer that holds most loses its connection (close code 1013). The process takes
    some 40 MiB besides, and up to half the budget again for single steps and for the allocator."""
    sessions: int = attrs.field(default=10_000, validator=_positive)
    connections: int = attrs.field(default=100_000, validator=_positive)
    handshake_seconds: float = attrs.field(default=10.0, validator=_seconds)
    """From accepting a connection to the end of its handshake."""
    head_bytes: int = attrs.field(default=16 * 1024, validator=_positive)
    """The largest head of an HTTP request."""


@settings
class ListenerLimits:
    """The limits of one listener. None falls back to `Limits`, which also applies to all listeners combined."""

    connections: int | None = attrs.field(default=None, validator=_positive_or_none)
    sessions: int | None = attrs.field(default=None, validator=_positive_or_none)
    channels_per_session: int | None = attrs.field(default=None, validator=_positive_or_none)
    """Of the sessions that came in here."""
    message_bytes: int | None = attrs.field(default=None, validator=_positive_or_none)
    """Also of channel sockets that come in here."""
    handshake_seconds: float | None = attrs.field(default=None, validator=_seconds_or_none)


@settings
class ChannelDefaults:
    """The bounds of a channel that is created without its own (clauses C1.4 and C2.3)."""

    buffer_size: int = attrs.field(default=64, validator=validators.and_(validators.ge(1), validators.le(1024)))
    """Items that may wait in the pipe."""
    max_bytes: int = attrs.field(default=1024 * 1024, validator=_positive)
    """Bytes that may wait in the pipe; one message more may always pass."""
    expires_after_seconds: float | None = attrs.field(default=300.0, validator=_seconds_or_none)
    """How long one attached end waits for the other without activity; None: for ever."""
    ended_remembered: int = attrs.field(default=1_000, validator=_at_least_zero)
    """How many ended channels are remembered, to tell late comers how they ended (clause C2.1)."""


@settings
class Timeouts:
    """The times that an engine waits for a peer that is late."""

    goodbye_seconds: float = attrs.field(default=5.0, validator=_seconds)
    """For a Close to be answered and the connection to end, before it is dropped (clause C4.1)."""
    stalled_session_seconds: float = attrs.field(default=60.0, validator=_seconds)
    """A worker that takes no byte for so long, with data waiting for it, is cut off."""
    silent_worker_seconds: float | None = attrs.field(default=90.0, validator=_seconds_or_none)
    """A worker's socket from which nothing comes for so long, pings notwithstanding, is cut off; None: never. A worker
    whose event loop is blocked answers no ping: less than 60 s is for those who know their workers."""
    dead_peer_seconds: float = attrs.field(
        default=150.0, validator=validators.and_(validators.ge(1), validators.le(MAX_SECONDS))
    )
    """A peer whose kernel is silent for so long is dead (clause C3.3). Merely slow peers are never cut off by this.
    Kernels look after each other in seconds, so it is 1 at least."""
    registration_grace_seconds: float = attrs.field(default=5.0, validator=_seconds_or_zero)
    """How long registrations wait for `engine::workers::register` to name their namespace."""
    name_challenge_seconds: float = attrs.field(default=5.0, validator=_seconds)
    """How long a worker that holds a name has to show a sign of life, when another one claims the name (promise R7)."""
    access_seconds: float = attrs.field(default=10.0, validator=_seconds)
    """How long the auth function or a hook of a guarded listener may take. The session that waits is refused then."""
    reattach_grace_seconds: float = attrs.field(default=0.0, validator=_seconds_or_zero)
    """How long a lost worker's channels wait for it to come back with its token (clause C4.6)."""


@settings
class Tls:
    """The files of a listener's TLS, in PEM."""

    certificate: str = attrs.field(converter=_path, metadata=_FILE)
    """The certificate, and behind it those that lead to its root."""
    key: str | None = attrs.field(default=None, converter=_path, metadata=_FILE)
    """The private key; None: it is in the certificate's file."""
    clients: str | None = attrs.field(default=None, converter=_path, metadata=_FILE)
    """Certificates of authorities, in PEM. Clients then have to show a certificate that one of these has signed. None: they
    need none."""
    where: str = _where()


def _tuple_of_texts(texts: Iterable[str]) -> tuple[str, ...]:
    # A text is iterable, so each of its characters would become a token.
    if isinstance(texts, str):
        raise TypeError("'tokens' is one text: make it a list")
    return tuple(texts)


@settings
class Auth:
    """The tokens that admit a worker at a listener, sent as `Authorization: Bearer …`. Other workers get HTTP 401.

    Tokens are for worker sockets. A channel's end has its access key.
    """

    tokens: tuple[str, ...] = attrs.field(
        default=(),
        converter=_tuple_of_texts,
        repr=False,
        metadata=_secret("a list of strings (in quotes, if they look otherwise)"),
    )
    token_file: str | None = attrs.field(default=None, converter=_path, metadata=_FILE)
    """A file with further tokens, one a line; lines that begin with `#` are comments."""
    channels: Literal["key", "key_and_token"] = attrs.field(
        default="key",
        validator=validators.in_(("key", "key_and_token")),
        metadata=_secret("`key` or `key_and_token`"),
    )
    """What a channel socket must show. `key_and_token` is for closed systems: own workers and Python 0.25 only, as other
    SDKs send no header there."""
    where: str = _where()

    def __attrs_post_init__(self) -> None:
        if any(not token or token != token.strip() for token in self.tokens):
            raise ValueError("'auth' has a token that is empty, or has spaces around it")
        # An empty list is more often a mistake than a wish to lock every worker out.
        if not self.tokens and self.token_file is None:
            raise ValueError("'auth' has neither tokens nor a token file: nobody could come in")


def _origins(origins: Iterable[str]) -> tuple[str, ...]:
    # A text is iterable, so each of its characters would become an origin.
    if isinstance(origins, str):
        raise TypeError("'origins' is one text: make it a list")
    origins = tuple(origin.rstrip("/") if isinstance(origin, str) else origin for origin in origins)
    for origin in origins:
        if not isinstance(origin, str) or not (origin in ("*", "null") or re.fullmatch(r"[^\s/,]+://[^\s/,]+", origin)):
            raise ValueError(
                f"'origins' has {origin!r}: write each as https://host or https://host:port, or '*' for all"
            )
    return origins


@settings
class Listener:
    """One place to listen at. Port 0 lets the system choose; the bound address is told when it is."""

    host: str = "127.0.0.1"
    port: int = attrs.field(default=49134, validator=validators.and_(validators.ge(0), validators.le(65535)))
    unix: str | None = attrs.field(default=None, converter=_path)
    """The path of a unix socket to listen at instead."""
    tls: Tls | None = None
    """None: in the clear."""
    auth: Auth | None = None
    """None: whoever can connect may come in."""
    limits: ListenerLimits = attrs.field(factory=ListenerLimits)
    origins: tuple[str, ...] = attrs.field(default=(), converter=_origins)
    """Origins of web pages that may connect, such as `https://app.example`, besides those of this machine. `*`: all."""
    mode: int = attrs.field(default=0o600, validator=validators.and_(validators.ge(0), validators.le(0o777)))
    """The file mode of a unix socket, whatever the umask is."""
    metrics: bool | None = None
    """Whether `GET /metrics` is answered here. None: if only this machine can reach the listener."""
    page: bool | None = None
    """Whether browsers get the engine's page here. None: if only this machine can reach the listener."""

    rbac: RbacConfig | None = None
    """The access rules of its sessions. None: they may do everything."""
    middleware_function_id: str | None = None
    """The function that gets the calls of its sessions in place of the functions they name."""

    @property
    def place(self) -> tuple[str, int] | str:
        """Return the place of the listener, without its rules."""
        return (self.host, self.port) if self.unix is None else self.unix


@settings
class RecorderSettings:
    """The flight recorder: the last inputs of the engine's core, kept in memory for `iii-trio record` (docs/recorder.md)."""

    enabled: bool = False
    """Whether inputs are recorded, which takes some CPU of each call. A change needs a restart of the engine."""
    bytes: int = attrs.field(
        default=16 * 1024 * 1024, validator=validators.and_(validators.ge(256 * 1024), validators.le(MAX_NUMBER))
    )
    """What the recorded inputs may take in memory. A change needs a restart of the engine."""
    payloads: bool = False
    """Whether recordings hold the payloads of workers. Otherwise they hold their length and a hash. Keys and tokens are in
    no recording."""
    directory: str | None = attrs.field(default=None, metadata={"give": "the path of a directory"})
    """Where a recording is saved when the engine logs an error of its own. None: nowhere."""
    files: int = attrs.field(default=8, validator=validators.and_(validators.ge(1), validators.le(10_000)))
    """How many such recordings are kept. The oldest ones are removed."""


def _tuple_of_listeners(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    listeners = tuple(listeners)
    for each in listeners:
        if not isinstance(each, Listener):
            raise TypeError(f"`EngineConfig.listeners` has {no_listener(each)}")
    return listeners


def no_listener(value: object) -> str:
    """Return the end of an error about a value that is not a listener, such as an address."""
    shown = repr(value) if isinstance(value, str) else f"a value of type {type(value).__name__}"
    return f'{shown}; give Listener("127.0.0.1", 49134), or another host and port'


def _frozen_mapping(modules: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(modules))


@settings
class EngineConfig:
    """All settings of an engine. `EngineConfig()` listens nowhere before `Engine.listen`."""

    listeners: tuple[Listener, ...] = attrs.field(default=(Listener(),), converter=_tuple_of_listeners)
    """Where `serve_engine` listens."""
    limits: Limits = attrs.field(factory=Limits)
    channels: ChannelDefaults = attrs.field(factory=ChannelDefaults)
    timeouts: Timeouts = attrs.field(factory=Timeouts)
    recorder: RecorderSettings = attrs.field(factory=RecorderSettings)
    name: str = "iii-trio"
    modules: Mapping[str, Any] = attrs.field(factory=dict, converter=_frozen_mapping)
    """The settings of the engine's modules, by name, each an object of the module's settings class: for example
    `{"queue": QueueConfig(directory="/var/lib/shop")}`. None turns a module off. A module that is not named here has its
    default settings."""

    def __attrs_post_init__(self) -> None:
        # A default above the limit would make every plain creation of a channel fail.
        if self.channels.max_bytes > self.limits.channel_bytes:
            raise ValueError(
                f"'channels.max_bytes' ({self.channels.max_bytes}) is more than 'limits.channel_bytes' "
                f"({self.limits.channel_bytes}): raise the limit, or lower the default"
            )
