"""Admit a new connection as a worker, a channel's end or telemetry. Answer health requests, and refuse all else."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Awaitable
from typing import Final

import msgspec
import trio

from ..core.channels import Refused
from ..core.session import WorkerSession
from ..errors import MessageError
from ..nursery import sort_failure
from ..transport.http1 import BadRequest, Head, HeadParser, answer, read_head
from ..transport.plain_requests import PlainHandler
from ..transport.reading import read_at_once
from ..transport.routes import Passage
from ..transport.socket import Socket, drop, end_writing
from ..transport.tls import TlsStream
from ..wire import PREFIX, Direction, Ref, read_attach_target, to_json
from .metrics import read_metrics, render_metrics
from .passages import pass_through, refused
from .policy import ListenerPolicy
from .serve_channel import serve_reader, serve_writer
from .serve_session import serve_session
from .shell import Shell
from .telemetry import serve_telemetry

_HEALTH: Final = "/healthz"
_METRICS: Final = "/metrics"


class _Plain(msgspec.Struct, frozen=True):
    """A plain request that passed the checks of the page, and the handler that serves it."""

    head: Head
    handler: PlainHandler


class _Admitted(msgspec.Struct, frozen=True):
    """An upgrade that passed all checks, with the token it showed if one is needed."""

    head: Head
    token: str | None


async def handle_connection(shell: Shell, connection: socket.socket, policy: ListenerPolicy) -> None:
    """Serve a connection that a listener accepted, until it is over. Errors are logged, and end this connection only."""
    stream = Socket(connection, dead_peer_seconds=shell.config.timeouts.dead_peer_seconds)
    secure: trio.abc.Stream = stream
    if policy.ssl_context is not None:
        secure = TlsStream(stream, policy.ssl_context, server_side=True)
    try:
        await serve_stream(shell, secure, stream.peer, policy)
    except BaseException as error:  # noqa: ASYNC103
        failure, passing = sort_failure(error)
        if failure is not None:
            text = f"a connection from {stream.peer} ended by an error of ours"
            shell.log_error(text, failure, peer=stream.peer or "")
        if passing is not None:
            raise passing from None  # noqa: ASYNC104
    finally:
        stream.close()


async def serve_stream(
    shell: Shell, stream: trio.abc.Stream, peer: str | None, policy: ListenerPolicy | None = None
) -> None:
    """Serve a connection over any stream, and close the stream. The default policy asks for no token."""
    policy = policy or ListenerPolicy()
    shell.connections += 1
    policy.counts.connections += 1
    try:
        begun = read_at_once(stream, shell.buffer)
        admitted = _admit_at_once(shell, begun, policy) or await _read_and_admit(shell, stream, begun, peer, policy)
        if isinstance(admitted, _Plain):
            await admitted.handler.serve(admitted.head, stream)
        elif admitted is not None:
            connection = await _begin_upgrade(shell, stream, admitted, peer, policy)
            admitted, begun = None, b""  # nothing of them is needed for the connection's life
            if connection is not None:
                await connection
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        # Otherwise the peer went away before its upgrade.
        if isinstance(error.__cause__, ssl.SSLError) and error.__cause__.reason == "HTTP_REQUEST":
            await _answer_in_the_clear(shell, stream, peer)
    finally:
        shell.connections -= 1
        policy.counts.connections -= 1
        await drop(stream)  # noqa: ASYNC102 - it never waits


def _admit_at_once(shell: Shell, begun: bytes, policy: ListenerPolicy) -> _Admitted | None:
    """Admit an upgrade that has arrived whole, without a deadline or a turn of the loop. Return None for all else."""
    try:
        _check_connections(shell, policy)
        head = HeadParser(shell.config.limits.head_bytes).feed(begun)
        return None if head is None or head.path in (_HEALTH, _METRICS) else _admit(shell, head, policy)
    except BadRequest:
        return None


async def _read_and_admit(
    shell: Shell, stream: trio.abc.Stream, begun: bytes, peer: str | None, policy: ListenerPolicy
) -> _Admitted | _Plain | None:
    """Read the head, and admit an upgrade or a request of the page. Answer everything else, and return None."""
    limits = shell.config.limits
    with trio.move_on_after(policy.handshake_seconds(limits)) as scope, shell.stopped_by_close(scope.cancel):
        try:
            _check_connections(shell, policy)
            head = await read_head(stream, limits.head_bytes, begun)
            if head is not None and head.path == _HEALTH:
                policy.check_origin(head)
                await _answer_health(shell, stream, head)
            elif head is not None and head.path == _METRICS and policy.shows_metrics:
                policy.check_origin(head)
                policy.check_token(head)
                await _answer_metrics(shell, stream, head)
            elif head is not None:
                handler = shell.plain_handler
                if handler is not None and policy.shows_page and handler.wants(head):
                    policy.check_page(head)
                    return _Plain(head, handler)
                return _admit(shell, head, policy)
        except BadRequest as problem:
            level = logging.INFO if problem.status in (401, 403, 503) else logging.DEBUG
            text = f"a connection was refused: {problem}"
            shell.log(level, text, peer=peer or "", status=str(problem.status))
            await _answer(stream, problem.status, problem.text, problem.headers)
        return None
    why = "the engine was closed" if shell.closed else "it took too long"
    shell.log(logging.DEBUG, f"a connection was dropped before its upgrade: {why}", peer=peer or "")
    return None


def _check_method(head: Head) -> None:
    if head.method not in ("GET", "HEAD"):
        raise BadRequest(405, "only GET is served here", (("Allow", "GET, HEAD"),))


async def _answer_health(shell: Shell, stream: trio.abc.Stream, head: Head) -> None:
    _check_method(head)
    status = 503 if shell.hub.draining else 200
    body = to_json({"status": "draining" if shell.hub.draining else "ready", **shell.health})
    await _write(stream, answer(status, b"" if head.method == "HEAD" else body, kind="application/json"))


async def _answer_metrics(shell: Shell, stream: trio.abc.Stream, head: Head) -> None:
    _check_method(head)
    page = render_metrics(shell, await read_metrics(shell))
    if page is None:
        raise BadRequest(404, "metrics need prometheus-client: pip install 'iii-trio[metrics]'")
    kind, text = page[0].removesuffix("; charset=utf-8"), page[1]
    await _write(stream, answer(200, b"" if head.method == "HEAD" else text, kind=kind))


def _admit(shell: Shell, head: Head, policy: ListenerPolicy) -> _Admitted:
    """Check an upgrade against all rules. Raises BadRequest."""
    policy.check_origin(head)  # first, so that a web page learns nothing else
    if head.path not in ("/", "/otel") and not head.path.startswith(PREFIX):
        raise BadRequest(404, "nothing is served here: workers connect at /, channel ends below /ws/channels/")
    head.check_upgrade()
    token = policy.check(head)
    _check_room(shell, head, policy)
    return _Admitted(head, token)


def _check_connections(shell: Shell, policy: ListenerPolicy) -> None:
    """Raise BadRequest if there are too many connections."""
    limit = shell.config.limits.connections
    if shell.connections > limit:
        raise BadRequest(503, f"the engine has as many connections as it may ({limit})")
    policy.check_connections()


def _check_room(shell: Shell, head: Head, policy: ListenerPolicy) -> None:
    """Raise BadRequest if the engine, or the listener, has room for no further session."""
    if head.path == "/":
        if shell.hub.draining:
            raise BadRequest(503, "the engine is shutting down")
        limit = shell.config.limits.sessions
        if shell.hub.external_sessions + shell.arriving >= limit:
            raise BadRequest(503, f"the engine has as many sessions as it may ({limit})")
        policy.check_sessions()


async def _begin_upgrade(
    shell: Shell, stream: trio.abc.Stream, admitted: _Admitted, peer: str | None, policy: ListenerPolicy
) -> Awaitable[object] | None:
    """Return the coroutine that serves an upgrade, or None after a refusal.

    It is not awaited here, because each coroutine that waits costs memory of every open connection.
    """
    head = admitted.head
    if head.path == "/":
        return serve_session(shell, stream, head, peer, policy, admitted.token)
    if head.path == "/otel":
        return serve_telemetry(shell, stream, head, peer, policy)
    try:
        ref = read_attach_target(head.path, head.query)
    except MessageError as problem:
        await _answer(stream, 400, str(problem))
        return None
    holder: WorkerSession | None = None
    if "iii-session" in head.headers:
        worker_id, _, secret = head.headers["iii-session"].partition(" ")
        holder = shell.hub.by_secret(worker_id, secret.strip())
        if holder is None:
            await _answer(stream, 403, "Iii-Session names no session, or its secret is another's")
            return None
    attached = shell.attach(ref, holder, head.headers.get("iii-invocation"))
    if isinstance(attached, Refused) and attached.status == 404:
        passage = shell.passages.find(ref.channel_id)
        if passage is not None:
            await _pass_through(shell, stream, head, ref, holder, passage)
            return None
    if isinstance(attached, Refused):
        kind = "application/json" if attached.status == 410 else "text/plain"
        text = f"the {ref.direction} end of channel {ref.channel_id} was refused: {attached.body.decode()}"
        about = {"session": holder.id} if holder is not None else {"peer": peer or ""}
        shell.log(logging.DEBUG, text, channel=ref.channel_id, status=str(attached.status), **about)
        await _write(stream, answer(attached.status, attached.body, kind=kind))
        return None
    if ref.direction is Direction.WRITE:
        return serve_writer(shell, stream, head, attached, holder, policy)
    return serve_reader(shell, stream, head, attached, holder, policy)


async def _pass_through(
    shell: Shell, stream: trio.abc.Stream, head: Head, ref: Ref, holder: WorkerSession | None, passage: Passage
) -> None:
    """Pass an end through to the engine that has its channel."""
    try:
        error = await pass_through(shell.passages, stream, head, ref, holder, passage)
        if error is not None:
            status, body = refused(error)
            about = {"session": holder.id} if holder is not None else {}
            shell.log(logging.INFO, f"the end of channel {ref.channel_id} was refused: {error}", **about)
            if isinstance(body, str):
                await _answer(stream, status, body)
            else:
                await _write(stream, answer(status, to_json(body), kind="application/json"))
    finally:
        shell.perform([])  # a drain may wait for this


async def _answer_in_the_clear(shell: Shell, stream: trio.abc.Stream, peer: str | None) -> None:
    """Answer a plain HTTP request that came to a listener with TLS."""
    if isinstance(stream, TlsStream):
        text = "this listener speaks TLS: use wss:// or https://"
        shell.log(logging.INFO, f"a connection was refused: {text}", peer=peer or "", status="400")
        try:
            await _answer(stream.transport, 400, text)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the peer is gone


async def _answer(stream: trio.abc.Stream, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
    await _write(stream, answer(status, text.encode() + b"\n", headers))


async def _write(stream: trio.abc.Stream, response: bytes) -> None:
    """Write a response, and wait up to 5 seconds for the peer to take it and close, because a reset would discard it."""
    with trio.move_on_after(5):
        await stream.send_all(response)
        if await end_writing(stream):
            while await stream.receive_some():
                pass
