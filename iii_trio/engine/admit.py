"""A new connection is a worker, a channel's end, telemetry, a question about health, or refused."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from ..core.channels import Refused
from ..core.session import Session
from ..errors import FrameError, MessageError
from ..transport.beneath import end_writing
from ..transport.frames import CloseFrame, RunScanner
from ..transport.http1 import BadRequest, Head, answer, read_head
from ..transport.socket import Socket, drop
from ..transport.websocket import Lost, WebSocket
from ..wire import PREFIX, Close, Direction, read_attach_target, to_json
from .door import Door
from .engine import Shell
from .serve_channel import serve_reader, serve_writer
from .serve_session import serve_session


async def welcome(shell: Shell, connection: socket.socket, door: Door) -> None:
    """Serve a connection that a listener accepted, until it is over.

    One connection's bug ends this connection, and is logged; the engine goes on.
    """
    stream = Socket(connection, dead_peer_seconds=shell.config.patience.dead_peer_seconds)
    secure: trio.abc.Stream = stream
    if door.ssl_context is not None:
        secure = trio.SSLStream(stream, door.ssl_context, server_side=True, https_compatible=True)
    try:
        await serve_stream(shell, secure, stream.peer, door)
    except Exception:
        shell.tell(logging.ERROR, f"a connection from {stream.peer} ended by an error of ours")
        logging.getLogger("iii_trio.engine").debug("the error", exc_info=True)
    finally:
        stream.close()


async def serve_stream(shell: Shell, stream: trio.abc.Stream, peer: str | None, door: Door | None = None) -> None:
    """Serve a connection over any stream, and close the stream. Without a door, everybody may come in."""
    door = door or Door()
    shell.connections += 1
    door.crowd.connections += 1
    try:
        head: Head | None = None
        token = None
        limits = shell.config.limits
        with trio.move_on_after(door.handshake_seconds(limits)) as patience, _stopped(shell, patience.cancel):
            try:
                if shell.connections > limits.connections:
                    raise BadRequest(503, f"the engine has as many connections as it may ({limits.connections})")
                door.check_connections()
                head = await read_head(stream, limits.head_bytes)
                if head is None or not await _routed(shell, stream, head):
                    return
                token = door.check(head)
                _check_room(shell, head, door)
            except BadRequest as problem:
                if problem.status in (401, 503):
                    shell.tell(
                        logging.INFO,
                        f"a connection was refused: {problem}",
                        peer=peer or "",
                        status=str(problem.status),
                    )
                await _answer(stream, problem.status, problem.text, problem.headers)
                return
        if head is not None:
            await _serve_upgrade(shell, stream, head, peer, door, token)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the peer went away while we were at its head
    finally:
        shell.connections -= 1
        door.crowd.connections -= 1
        await drop(stream)  # noqa: ASYNC102 - it never waits


async def _routed(shell: Shell, stream: trio.abc.Stream, head: Head) -> bool:
    """Answer what is no upgrade; say whether this is a valid one. Raises BadRequest."""
    if head.path == "/healthz":
        if head.method not in ("GET", "HEAD"):
            raise BadRequest(405, "only GET is served here", (("Allow", "GET, HEAD"),))
        status = 503 if shell.hub.draining else 200
        body = to_json({"status": "draining" if shell.hub.draining else "ready"})
        await _write(stream, answer(status, b"" if head.method == "HEAD" else body, kind="application/json"))
        return False
    if head.path not in ("/", "/otel") and not head.path.startswith(PREFIX):
        raise BadRequest(404, "nothing is served here: workers connect at /, channel ends below /ws/channels/")
    head.check_upgrade()
    return True


def _check_room(shell: Shell, head: Head, door: Door) -> None:
    """Raise BadRequest for a worker that there is no room for."""
    if head.path == "/":
        if shell.hub.draining:
            raise BadRequest(503, "the engine is shutting down")
        most = shell.config.limits.sessions
        if len(shell.hub.sessions) + shell.arriving >= most:
            raise BadRequest(503, f"the engine has as many sessions as it may ({most})")
        door.check_sessions()


async def _serve_upgrade(
    shell: Shell, stream: trio.abc.Stream, head: Head, peer: str | None, door: Door, token: str | None
) -> None:
    if head.path == "/":
        await serve_session(shell, stream, head, peer, door, token)
        return
    if head.path == "/otel":
        websocket = WebSocket(stream, _Telemetry(door.message_bytes(shell.config.limits)), buffer=shell.buffer)
        with _stopped(shell, lambda: websocket.close(Close.RESTARTING, "the engine was closed")):
            await websocket.serve(head)
        return
    try:
        ref = read_attach_target(head.path, head.query)
    except MessageError as problem:
        await _answer(stream, 400, str(problem))
        return
    holder: Session | None = None
    if "iii-session" in head.headers:
        worker_id, _, secret = head.headers["iii-session"].partition(" ")
        holder = shell.hub.by_secret(worker_id, secret.strip())
        if holder is None:
            await _answer(stream, 403, "Iii-Session names no session, or its secret is another's")
            return
    flow = shell.attach(ref, holder, head.headers.get("iii-invocation"))
    if isinstance(flow, Refused):
        kind = "application/json" if flow.status == 410 else "text/plain"
        await _write(stream, answer(flow.status, flow.body, kind=kind))
    elif ref.direction is Direction.WRITE:
        await serve_writer(shell, stream, head, flow, holder, door)
    else:
        await serve_reader(shell, stream, head, flow, holder, door)


@contextmanager
def _stopped(shell: Shell, stop: Callable[[], object]) -> Iterator[None]:
    """Have this stopped if the engine closes meanwhile."""
    key = object()
    shell.at_close[key] = stop
    try:
        yield
    finally:
        del shell.at_close[key]


async def _answer(stream: trio.abc.Stream, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
    await _write(stream, answer(status, text.encode() + b"\n", headers))


async def _write(stream: trio.abc.Stream, response: bytes) -> None:
    """Write a response, and wait a little for the peer to take it and go: a reset would throw it away."""
    with trio.move_on_after(5):
        await stream.send_all(response)
        if await end_writing(stream):
            while await stream.receive_some():
                pass


class _Telemetry:
    """`/otel`: read and thrown away, pings answered. SDKs would try again for ever if it were refused."""

    def __init__(self, max_message: int) -> None:
        self._scanner = RunScanner(max_message)

    def opened(self, websocket: WebSocket) -> None:
        pass

    @property
    def tail(self) -> bytes:
        return self._scanner.tail

    def scan(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        _, controls = self._scanner.scan(data)
        return controls, self._scanner.error or self._scanner.closed

    async def settle(self) -> None:
        pass

    def done(self, how: CloseFrame | FrameError | Lost) -> None:
        pass
