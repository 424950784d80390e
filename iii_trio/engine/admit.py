"""A new connection is a worker, a channel's end, telemetry, a question about health, or refused."""

from __future__ import annotations

import logging
import socket
from typing import Final

import attrs
import trio

from ..core.channels import Refused
from ..core.session import Session
from ..errors import MessageError
from ..transport.beneath import end_writing, read_at_once
from ..transport.http1 import BadRequest, Head, answer, parse_head, read_head
from ..transport.socket import Socket, drop
from ..wire import PREFIX, Direction, read_attach_target, to_json
from .door import Door
from .engine import Shell
from .serve_channel import serve_reader, serve_writer
from .serve_session import serve_session
from .telemetry import serve_telemetry

_HEALTH: Final = "/healthz"


@attrs.frozen
class _CameIn:
    """A request for an upgrade that may come in, by this token if one is needed."""

    head: Head
    token: str | None


async def welcome(shell: Shell, connection: socket.socket, door: Door) -> None:
    """Serve a connection that a listener accepted, until it is over.

    One connection's bug ends this connection, and is logged; the engine goes on.
    """
    stream = Socket(connection, dead_peer_seconds=shell.config.timeouts.dead_peer_seconds)
    secure: trio.abc.Stream = stream
    if door.ssl_context is not None:
        secure = trio.SSLStream(stream, door.ssl_context, server_side=True, https_compatible=True)
    try:
        await serve_stream(shell, secure, stream.peer, door)
    except Exception as error:
        text = f"a connection from {stream.peer} ended by an error of ours"
        shell.log_error(text, error, peer=stream.peer or "")
    finally:
        stream.close()


async def serve_stream(shell: Shell, stream: trio.abc.Stream, peer: str | None, door: Door | None = None) -> None:
    """Serve a connection over any stream, and close the stream. Without a door, everybody may come in."""
    door = door or Door()
    shell.connections += 1
    door.crowd.connections += 1
    try:
        begun = read_at_once(stream, shell.buffer)
        came_in = _come_in_at_once(shell, begun, door) or await _come_in(shell, stream, begun, peer, door)
        if came_in is not None:
            await _serve_upgrade(shell, stream, came_in, peer, door)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the peer went away while we were at its head
    finally:
        shell.connections -= 1
        door.crowd.connections -= 1
        await drop(stream)  # noqa: ASYNC102 - it never waits


def _come_in_at_once(shell: Shell, begun: bytes, door: Door) -> _CameIn | None:
    """Whoever has said all by now, and may come in, needs no deadline and no turn of the loop. None: look again."""
    try:
        _check_connections(shell, door)
        head = parse_head(begun, shell.config.limits.head_bytes)
        return None if head is None or head.path == _HEALTH else _let_in(shell, head, door)
    except BadRequest:
        return None


async def _come_in(shell: Shell, stream: trio.abc.Stream, begun: bytes, peer: str | None, door: Door) -> _CameIn | None:
    """Read the head, and answer whoever may not come in or wants something else than an upgrade: then None."""
    limits = shell.config.limits
    with trio.move_on_after(door.handshake_seconds(limits)) as scope, shell.stopped_by_close(scope.cancel):
        try:
            _check_connections(shell, door)
            head = await read_head(stream, limits.head_bytes, begun)
            if head is not None and head.path == _HEALTH:
                await _tell_health(shell, stream, head)
            elif head is not None:
                return _let_in(shell, head, door)
        except BadRequest as problem:
            level = logging.INFO if problem.status in (401, 503) else logging.DEBUG
            text = f"a connection was refused: {problem}"
            shell.log(level, text, peer=peer or "", status=str(problem.status))
            await _answer(stream, problem.status, problem.text, problem.headers)
        return None
    why = "the engine was closed" if shell.closed else "it took too long"
    shell.log(logging.DEBUG, f"a connection was dropped before its upgrade: {why}", peer=peer or "")
    return None


async def _tell_health(shell: Shell, stream: trio.abc.Stream, head: Head) -> None:
    if head.method not in ("GET", "HEAD"):
        raise BadRequest(405, "only GET is served here", (("Allow", "GET, HEAD"),))
    status = 503 if shell.hub.draining else 200
    body = to_json({"status": "draining" if shell.hub.draining else "ready"})
    await _write(stream, answer(status, b"" if head.method == "HEAD" else body, kind="application/json"))


def _let_in(shell: Shell, head: Head, door: Door) -> _CameIn:
    """Let in whoever may come in. Raises BadRequest."""
    if head.path not in ("/", "/otel") and not head.path.startswith(PREFIX):
        raise BadRequest(404, "nothing is served here: workers connect at /, channel ends below /ws/channels/")
    head.check_upgrade()
    token = door.check(head)
    _check_room(shell, head, door)
    return _CameIn(head, token)


def _check_connections(shell: Shell, door: Door) -> None:
    """Raise BadRequest if there are too many."""
    most = shell.config.limits.connections
    if shell.connections > most:
        raise BadRequest(503, f"the engine has as many connections as it may ({most})")
    door.check_connections()


def _check_room(shell: Shell, head: Head, door: Door) -> None:
    """Raise BadRequest for a worker that there is no room for."""
    if head.path == "/":
        if shell.hub.draining:
            raise BadRequest(503, "the engine is shutting down")
        most = shell.config.limits.sessions
        if shell.hub.guests + shell.arriving >= most:
            raise BadRequest(503, f"the engine has as many sessions as it may ({most})")
        door.check_sessions()


async def _serve_upgrade(shell: Shell, stream: trio.abc.Stream, came_in: _CameIn, peer: str | None, door: Door) -> None:
    head = came_in.head
    if head.path == "/":
        await serve_session(shell, stream, head, peer, door, came_in.token)
        return
    if head.path == "/otel":
        await serve_telemetry(shell, stream, head, peer, door)
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
        text = f"the {ref.direction} end of channel {ref.channel_id} was refused: {flow.body.decode()}"
        about = {"session": holder.id} if holder is not None else {"peer": peer or ""}
        shell.log(logging.DEBUG, text, channel=ref.channel_id, status=str(flow.status), **about)
        await _write(stream, answer(flow.status, flow.body, kind=kind))
    elif ref.direction is Direction.WRITE:
        await serve_writer(shell, stream, head, flow, holder, door)
    else:
        await serve_reader(shell, stream, head, flow, holder, door)


async def _answer(stream: trio.abc.Stream, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
    await _write(stream, answer(status, text.encode() + b"\n", headers))


async def _write(stream: trio.abc.Stream, response: bytes) -> None:
    """Write a response, and wait a little for the peer to take it and go: a reset would throw it away."""
    with trio.move_on_after(5):
        await stream.send_all(response)
        if await end_writing(stream):
            while await stream.receive_some():
                pass
