"""An engine behind a socket: one attempt to connect and upgrade, as a worker or as a channel's end."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import trio

from ..errors import ConnectionFailed, MisuseError
from ..wire import Ref, attach_target
from .engine_url import parse_url
from .link import Identity, Link, ReadingEnd, WritingEnd
from .refusal import refusal_of
from .remote_ends import RemoteReader, RemoteWriter
from .remote_link import RemoteLink
from .socket import Socket
from .websocket import FrameHandler, ReadBuffer, WebSocket

CONNECT_SECONDS: Final = 10.0
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED: Final = {
    "host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "iii-session",
    "iii-invocation",
}
_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")


@final
class _Masks:
    """Masking keys from the system's randomness (RFC 6455 section 5.3), many at a time: asking costs more than masking."""

    def __init__(self) -> None:
        self._random = b""
        self._at = 0

    def __call__(self) -> bytes:
        at = self._at
        if at == len(self._random):
            self._random, at = os.urandom(1024), 0
        self._at = at + 4
        return self._random[at : at + 4]


@final
class SocketAddress:
    """An `Address`: the engine at a `ws://` or `wss://` URL, or at `unix:/path`.

    `headers` are said with every upgrade, of worker and channel sockets alike (`Authorization`, say). `ssl_context` is for
    `wss`, where the default trusts what the system trusts.
    `dial` opens the byte stream in a way of your own (memory, a unix socket); the URL then only names the engine. It
    raises OSError if it cannot. Masking keys come from `new_mask`, for simulations that must repeat.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        dial: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
        new_mask: Callable[[], bytes] | None = None,
    ) -> None:
        self._url = parse_url(url)
        self._ssl = ssl_context or (ssl.create_default_context() if self._url.secure else None)
        self._connect_seconds = connect_seconds
        self._said_always = _as_bytes(headers or {})
        self._open_stream = dial or (self._open_tcp if self._url.unix is None else self._open_unix)
        self._new_mask = new_mask or _Masks()
        self._buffer = ReadBuffer()

    def __str__(self) -> str:
        return str(self._url)

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        """As `Address.connect`."""
        link = RemoteLink(self._new_mask)
        await self._connect(link, self._url.target, None, lambda: task_status.started(link), ConnectionFailed)

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        """As `Address.attach_writer`."""
        end = RemoteWriter(self._new_mask)
        await self._connect(end, attach_target(ref, self._url.target), identity, lambda: task_status.started(end))

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        """As `Address.attach_reader`."""
        end = RemoteReader(knows_our_codes=identity is not None)
        await self._connect(end, attach_target(ref, self._url.target), identity, lambda: task_status.started(end))

    async def _connect(
        self,
        handler: FrameHandler,
        target: str,
        identity: Identity | None,
        opened: Callable[[], None],
        refused: type[ConnectionFailed] | None = None,
    ) -> None:
        stream = await self._dial()
        websocket = WebSocket(stream, handler, buffer=self._buffer, handshake_seconds=self._connect_seconds)
        headers = [*self._said_always, *_headers(identity)]
        try:
            refusal = await websocket.connect(self._url.authority, target, headers, opened)
        except ConnectionFailed as error:
            raise ConnectionFailed(f"no engine at {self}: {error}") from None
        if refusal is not None and refused is not None:
            said = refusal.body.decode(errors="replace")[:200].strip()
            raise refused(f"the engine at {self} refused with HTTP {refusal.status}" + (f": {said}" if said else ""))
        if refusal is not None:
            raise refusal_of(refusal.status, refusal.body)

    async def _dial(self) -> trio.abc.Stream:
        try:
            with trio.fail_after(self._connect_seconds):
                stream = await self._open_stream()
                if self._ssl is None:
                    return stream
                secure = trio.SSLStream(stream, self._ssl, server_hostname=self._url.host, https_compatible=True)
                try:
                    await secure.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
                return secure
        except trio.TooSlowError:
            raise ConnectionFailed(f"no engine at {self}: no connection within {self._connect_seconds:g} s") from None
        except (OSError, trio.BrokenResourceError) as error:
            cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) and error.__cause__ else error
            raise ConnectionFailed(f"no engine at {self}: {_said(cause)}") from None

    async def _open_tcp(self) -> trio.abc.Stream:
        connected = await trio.open_tcp_stream(self._url.host, self._url.port)
        return Socket(socket.socket(fileno=connected.socket.detach()))

    async def _open_unix(self) -> trio.abc.Stream:
        assert self._url.unix is not None
        connected = await trio.open_unix_socket(self._url.unix)
        return Socket(socket.socket(fileno=connected.socket.detach()))


def _as_bytes(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    lines = []
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MisuseError(
                f"the header {name!r} cannot be sent: a name or value has characters that no header may have"
            )
        if name.lower() in _RESERVED or name.lower().startswith("sec-websocket-"):
            raise MisuseError(f"the header {name!r} cannot be given: the handshake sets it itself (RFC 6455, 4.1)")
        lines.append((name.encode(), value.strip().encode("latin-1")))
    return lines


def _said(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):  # whose errno is no errno
        return f"no TLS: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, BaseExceptionGroup):
        return _said(error.exceptions[0])
    inner = error.__cause__
    return _said(inner) if isinstance(inner, OSError | BaseExceptionGroup) else str(error)


def _headers(identity: Identity | None) -> list[tuple[bytes, bytes]]:
    if identity is None:
        return []
    headers = [(b"Iii-Session", f"{identity.worker_id} {identity.channel_secret}".encode())]
    if identity.invocation_id is not None:
        headers.append((b"Iii-Invocation", identity.invocation_id.encode()))
    return headers
