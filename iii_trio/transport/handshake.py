"""The opening handshake of a WebSocket connection, by trio-websocket (RFC 6455 section 4).

The library works on a stream that ends behind the other side's head. So its task ends with the handshake, and nothing of it
stays in memory. What follows is read by the connection itself (`websocket.py`), and wsproto speaks the control frames
(`control_frames.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import cast, final

import trio
from trio_websocket import ConnectionClosed, wrap_client_stream, wrap_server_stream

from ..errors import PeerError
from .socket import Buffer
from .upgrade import Acceptance, Refusal, read_answer


@final
class HandshakeStream(trio.abc.Stream):
    """A stream that carries one head each way.

    `send` takes what the library writes, without waiting. It raises trio.BrokenResourceError once nothing can be written.
    `read` is called once, with the bytes that were sent before, and returns the head of the other side.
    """

    def __init__(self, read: Callable[[bytes], Awaitable[bytes]], send: Callable[[Buffer], None]) -> None:
        self._read: Callable[[bytes], Awaitable[bytes]] | None = read
        self._send = send
        self._sent = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the whole head, and then the end of the stream. `max_bytes` is ignored."""
        read, self._read = self._read, None
        return b"" if read is None else await read(self._sent)

    async def send_all(self, data: Buffer) -> None:
        """As trio.abc.SendStream. It is not a checkpoint, because the library takes a lock around it, which is one."""
        self._sent += data
        self._send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As trio.abc.SendStream. Sending never blocks."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Do nothing else than a checkpoint, because the connection owns the real stream."""
        await trio.lowlevel.checkpoint()


async def accept_upgrade(
    nursery: trio.Nursery, request: bytes, headers: Sequence[tuple[bytes, bytes]], send: Callable[[Buffer], None]
) -> None:
    """Answer a checked upgrade request by 101 with these headers. Does nothing more once `send` has failed."""

    async def read(_: bytes) -> bytes:
        return request

    proposal = await wrap_server_stream(nursery, HandshakeStream(read, send))
    with contextlib.suppress(ConnectionClosed):
        await proposal.accept(extra_headers=list(headers))


async def request_upgrade(
    nursery: trio.Nursery,
    stream: trio.abc.ReceiveStream,
    host: str,
    target: str,
    headers: Sequence[tuple[bytes, bytes]],
    send: Callable[[Buffer], None],
) -> Acceptance | Refusal:
    """Send an upgrade request, and return the answer, which is read from `stream`.

    Raises PeerError for an answer that is none or does not fit, trio.BrokenResourceError and trio.ClosedResourceError.
    Has no deadline. Once `send` has failed it waits for its cancellation.
    """
    answer: Acceptance | Refusal | None = None
    problem: Exception | None = None

    async def read(request: bytes) -> bytes:
        nonlocal answer, problem
        try:
            answer = await read_answer(stream, request)
        except (PeerError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            problem = error
        if isinstance(answer, Acceptance):
            return answer.head
        scope.cancel()  # the library would wait on
        return b""

    with trio.CancelScope() as scope:
        over = cast("trio.SocketStream", HandshakeStream(read, send))
        await wrap_client_stream(nursery, over, host, target, extra_headers=list(headers))
    if problem is not None:
        try:
            raise problem
        finally:
            problem = None  # its traceback has this frame, and the circle would wait for the cycle collector
    assert answer is not None
    return answer
