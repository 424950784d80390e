"""Connect to an engine behind a socket, as a worker or as a channel's end. One attempt each."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, cast, final

import trio

from ..errors import ConnectionFailed, MisuseError
from ..wire import Ref, attach_target
from .engine_url import encode_headers, parse_url
from .link import Identity, Link, ReadingEnd, WritingEnd
from .refusal import refusal_of
from .remote_ends import RemoteReader, RemoteWriter
from .remote_link import RemoteLink
from .socket import Socket, drop
from .tls import TlsStream, explain_alert
from .upgrade import Refusal
from .websocket import FrameHandler, ReadBuffer, WebSocket

CONNECT_SECONDS: Final = 10.0
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""What OpenSSL reports when the other side answers in the clear."""


@final
class _Masks:
    """Masking keys from the system's randomness (RFC 6455 section 5.3), fetched many at a time."""

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
    """The `Address` of an engine at a `ws://` or `wss://` URL, or at `unix:/path`.

    `headers` are sent with every upgrade, of worker and channel sockets alike (`Authorization`, for example).
    `ssl_context` is for `wss`. The default trusts the system's certificates.
    `dial` replaces the way to open the byte stream (memory, a proxy). The URL then only names the engine. It raises
    OSError on failure. `new_mask` replaces the source of masking keys, for simulations that must repeat.
    With `channel_ping_seconds`, the ends of channels send a ping that often while they write nothing else, so that no
    proxy between takes an open channel for an idle connection. The worker's own socket does, too, because its channels
    end with it. Engines answer pings, and never see a difference.

    Raises MisuseError for an address or a header that cannot be used.
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
        channel_ping_seconds: float | None = None,
    ) -> None:
        if channel_ping_seconds is not None and not channel_ping_seconds > 0:
            raise MisuseError(f"channel_ping_seconds is {channel_ping_seconds!r}: give a positive number, or None")
        self._url = parse_url(url)
        self._ssl = ssl_context or (ssl.create_default_context() if self._url.secure else None)
        self._connect_seconds = connect_seconds
        self._channel_ping_seconds = channel_ping_seconds
        self._headers = encode_headers(headers or {})
        self._open_stream = dial or (self._open_tcp if self._url.unix is None else self._open_unix)
        self._new_mask = new_mask or _Masks()
        self._buffer = ReadBuffer()

    def __str__(self) -> str:
        return str(self._url)

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        """As `Address.connect`."""
        link = RemoteLink(self._new_mask)
        # A proxy that cut the idle session would end its channels, too.
        refusal = await self._connect(link, self._url.target, None, lambda: task_status.started(link))
        if refusal is not None:
            text = refusal.body.decode(errors="replace")[:200].strip()
            what = f"the engine at {self} refused with HTTP {refusal.status}"
            raise ConnectionFailed(what + (f": {text}" if text else ""))

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        """As `Address.attach_writer`."""
        end = RemoteWriter(self._new_mask)
        await self._attach(end, ref, identity, lambda: task_status.started(end))

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        """As `Address.attach_reader`."""
        end = RemoteReader(knows_our_codes=identity is not None)
        await self._attach(end, ref, identity, lambda: task_status.started(end))

    async def open_end(
        self, ref: Ref, identity: Identity | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> trio.abc.Stream:
        """Connect, and send the upgrade of an end with further headers. The caller reads the answer, and owns the stream.

        The headers have the `Sec-WebSocket-Key`. Raises ConnectionFailed. If cancelled: there is no stream.
        """
        stream = await self._dial()
        lines = [
            f"GET {attach_target(ref, self._url.target)} HTTP/1.1".encode(),
            f"Host: {self._url.authority}".encode(),
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13",
            *(name + b": " + value for name, value in (*self._headers, *_identity_headers(identity), *headers)),
        ]
        try:
            await stream.send_all(b"\r\n".join(lines) + b"\r\n\r\n")
        except BaseException as error:
            await drop(stream)  # noqa: ASYNC102 - it never waits
            if isinstance(error, trio.BrokenResourceError):
                raise ConnectionFailed(f"no engine at {self}: {_explain(error)}") from None  # noqa: ASYNC104
            raise
        return stream

    async def _attach(self, end: FrameHandler, ref: Ref, identity: Identity | None, opened: Callable[[], None]) -> None:
        target = attach_target(ref, self._url.target)
        refusal = await self._connect(end, target, identity, opened)
        if refusal is not None:
            raise refusal_of(refusal.status, refusal.body)

    async def _connect(
        self,
        handler: FrameHandler,
        target: str,
        identity: Identity | None,
        opened: Callable[[], None],
    ) -> Refusal | None:
        """Dial, and keep the connection until it ends. Return the engine's refusal of the upgrade, if it refused."""
        stream = await self._dial()
        websocket = WebSocket(
            stream,
            handler,
            buffer=self._buffer,
            handshake_seconds=self._connect_seconds,
            ping_seconds=self._channel_ping_seconds,
        )
        headers = [*self._headers, *_identity_headers(identity)]
        try:
            return await websocket.connect(self._url.authority, target, headers, opened)
        except ConnectionFailed as error:
            raise ConnectionFailed(f"no engine at {self}: {error}") from None

    async def _dial(self) -> trio.abc.Stream:
        try:
            with trio.fail_after(self._connect_seconds):
                stream = await self._open_stream()
                if self._ssl is None:
                    return stream
                secure = TlsStream(cast(Socket, stream), self._ssl, server_hostname=self._url.host)
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
            raise ConnectionFailed(f"no engine at {self}: {_explain(cause)}") from None

    async def _open_tcp(self) -> trio.abc.Stream:
        connected = await trio.open_tcp_stream(self._url.host, self._url.port)
        return Socket(socket.socket(fileno=connected.socket.detach()))

    async def _open_unix(self) -> trio.abc.Stream:
        assert self._url.unix is not None
        connected = await trio.open_unix_socket(self._url.unix)
        return Socket(socket.socket(fileno=connected.socket.detach()))


def _explain(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "it speaks no TLS there; write ws:// if that is meant"
    if isinstance(error, ssl.SSLError):  # whose errno is not an errno
        return f"no TLS: {explain_alert(error)}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, BaseExceptionGroup):
        return _explain(error.exceptions[0])
    inner = error.__cause__
    return _explain(inner) if isinstance(inner, OSError | BaseExceptionGroup) else str(error)


def _identity_headers(identity: Identity | None) -> list[tuple[bytes, bytes]]:
    if identity is None:
        return []
    headers = [(b"Iii-Session", f"{identity.worker_id} {identity.channel_secret}".encode())]
    if identity.invocation_id is not None:
        headers.append((b"Iii-Invocation", identity.invocation_id.encode()))
    return headers
