"""The requests of the page: the page itself, its events, and the calls that it makes."""

from __future__ import annotations

import functools
import hashlib
import re
from base64 import b64encode
from importlib.resources import files
from typing import Annotated, Any, Final, final

import msgspec
import trio

from ...errors import CallError, ConnectionFailed
from ...nursery import open_service_nursery
from ...transport.http1 import BadRequest, Head, answer
from ...transport.socket import end_writing
from .settings import PageConfig
from .watch import Watch

EVENTS: Final = "/page/events"
CALL: Final = "/page/call"
_CALL_BYTES: Final = 1024 * 1024
_BODY_SECONDS: Final = 10.0
_STALLED_SECONDS: Final = 30.0
_LINGER_SECONDS: Final = 5.0
_SAFE: Final = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class _Call(msgspec.Struct):
    """The body of `POST /page/call`."""

    function_id: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    payload: Any = None
    namespace: str | None = None


@final
class PageRequests:
    """Serves the requests of the page, each on a connection of its own."""

    def __init__(self, watch: Watch, config: PageConfig) -> None:
        self._watch = watch
        self._config = config

    def wants(self, head: Head) -> bool:
        """Return whether this is a browser's request for the page, or a request of the page."""
        # Workers connect at `/`, too, and a program without a browser is told so as before.
        if head.path == "/":
            return not head.wants_upgrade and "text/html" in head.headers.get("accept", "").lower()
        return head.path.startswith("/page/")

    async def serve(self, head: Head, stream: trio.abc.Stream) -> None:
        """Answer a request. The caller closes the stream. If cancelled: the client is cut off."""
        try:
            # Only a call has a body, so only a call may be a POST.
            if head.path == CALL:
                await self._call(head, stream)
                return
            if head.method not in ("GET", "HEAD"):
                raise BadRequest(405, "only GET is served here", (("Allow", "GET, HEAD"),))
            if head.path == EVENTS:
                # The events have no end, so that only their head could be told.
                if head.method == "HEAD":
                    raise BadRequest(405, "only GET is served here", (("Allow", "GET"),))
                await self._stream_events(stream)
            elif head.path == "/":
                text, policy = _page()
                headers = (*_SAFE, ("Content-Security-Policy", policy))
                await _write(stream, answer(200, b"" if head.method == "HEAD" else text, headers, kind="text/html"))
            else:
                raise BadRequest(404, "the page has no such part")
        except BadRequest as problem:
            body = b"" if head.method == "HEAD" else problem.text.encode() + b"\n"
            await _write(stream, answer(problem.status, body, problem.headers))

    async def _stream_events(self, stream: trio.abc.Stream) -> None:
        """Send the page's data as server-sent events until the client leaves or the page closes."""
        # Each viewer costs a connection and its buffers, and the engine has other work.
        if self._watch.viewers >= self._config.viewers:
            raise BadRequest(503, f"{self._watch.viewers} browsers watch already, and no more may (`viewers`)")
        headers = "".join(f"{name}: {value}\r\n" for name, value in _SAFE)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n{headers}\r\nretry: 1000\n\n"
        )
        async with open_service_nursery() as nursery:
            nursery.start_soon(_until_left, stream, nursery.cancel_scope)
            with self._watch.viewing() as viewer:
                await _send(stream, head.encode())
                while (event := await viewer.next_event()) is not None:
                    await _send(stream, event)
            nursery.cancel_scope.cancel(reason="the page closes")

    async def _call(self, head: Head, stream: trio.abc.Stream) -> None:
        """Call a function for the page. A client that leaves cancels the call."""
        call = await _read_call(head, stream)
        async with open_service_nursery() as nursery:
            nursery.start_soon(_until_left, stream, nursery.cancel_scope)
            reply: dict[str, Any]
            try:
                async with self._watch.worker() as worker:
                    value = await worker.trigger(call.function_id, call.payload, namespace=call.namespace)
                reply = {"value": value}
            # An error of the function is an answer to the page, which shows it.
            except CallError as error:
                reply = {"error": {"code": error.code, "message": error.message}}
            except ConnectionFailed as error:
                reply = {"error": {"code": "connection_failed", "message": str(error)}}
            await _send(stream, answer(200, msgspec.json.encode(reply), _SAFE, kind="application/json"))
            nursery.cancel_scope.cancel(reason="the call was answered")


@functools.cache
def _page() -> tuple[bytes, str]:
    """Return the page, and its Content-Security-Policy. It runs its own script only, and speaks to its own engine only."""
    text = files("iii_trio.triggers.page").joinpath("page.html").read_text("utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text.encode(), policy


async def _read_call(head: Head, stream: trio.abc.Stream) -> _Call:
    """Read the body of a call. Raises BadRequest.

    A form or a script of another site cannot send its content type without asking first (Fetch standard, section 3.3).
    """
    if head.method != "POST":
        raise BadRequest(405, "only POST is served here", (("Allow", "POST"),))
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest(415, "send the body as application/json")
    length = head.headers.get("content-length", "")
    if "transfer-encoding" in head.headers or re.fullmatch("[0-9]{1,15}", length) is None:
        raise BadRequest(411, "send a Content-Length, and no Transfer-Encoding")
    size = int(length)
    # The whole body is kept in memory until it is decoded.
    if size > _CALL_BYTES:
        raise BadRequest(413, f"the body has {size} bytes, and {_CALL_BYTES} are the most")
    body = bytearray(head.rest)
    # Such a client sends its body only when it is told so, and some wait a second before they send it anyway.
    if head.wants_continue and len(body) < size:
        await _send(stream, b"HTTP/1.1 100 Continue\r\n\r\n")
    with trio.move_on_after(_BODY_SECONDS) as scope:
        while len(body) < size:
            data = await stream.receive_some()
            if not data:
                raise BadRequest(400, "the request ended within its body")
            body += data
    # A client that sends half a body must not keep its connection for ever.
    if scope.cancelled_caught:
        raise BadRequest(408, f"the body did not come within {_BODY_SECONDS:g} s")
    try:
        call = msgspec.json.decode(body[:size], type=_Call)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(400, f"the body is not a call: {error}") from None
    # It would give the page's own worker another name.
    if call.function_id == "engine::workers::register":
        raise BadRequest(
            400, "engine::workers::register describes the worker that calls it, and the page's is described"
        )
    return call


async def _until_left(stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
    """Cancel `scope` once the client has left. Bytes that it sends meanwhile mean nothing."""
    try:
        while await stream.receive_some():
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel(reason="the browser left")


async def _send(stream: trio.abc.Stream, data: bytes) -> None:
    """Write. Raises trio.BrokenResourceError also if the client takes nothing for long."""
    with trio.move_on_after(_STALLED_SECONDS) as scope:
        await stream.send_all(data)
    if scope.cancelled_caught:
        raise trio.BrokenResourceError(f"the browser took nothing for {_STALLED_SECONDS:g} s")


async def _write(stream: trio.abc.Stream, response: bytes) -> None:
    """Write a response, and let the client take it, because closing with unread input would reset the connection."""
    with trio.move_on_after(_LINGER_SECONDS):
        await stream.send_all(response)
        if await end_writing(stream):
            while await stream.receive_some():
                pass
