"""The dialling side: wherever an engine stops, ends or resets in a handshake, nothing is left and the error says where."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Final, Literal

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.errors import ConnectionFailed
from iii_trio.transport.dial import SocketAddress
from iii_trio.transport.link import Identity
from iii_trio.wire import Ref
from tests.helpers.bare import within

Clock = trio.testing.MockClock
How = Literal["stops", "ends", "resets", "breaks"]
HOWS: Final = ("stops", "ends", "resets", "breaks")
URL: Final = "ws://engine.example:1"
REF: Final = Ref("channel-1", "key", "write")
IDENTITY: Final = Identity("worker-1", "secret")


def accepts(request: bytes) -> bytes:
    """Return the 101 for an upgrade."""
    key = request.lower().partition(b"sec-websocket-key: ")[0]
    key = request[len(key) :].partition(b": ")[2].partition(b"\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


def refuses(request: bytes) -> bytes:
    return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 14\r\n\r\nit is draining"


@attrs.define(eq=False)
class CutStream(trio.abc.Stream):
    """The stream of an engine that answers the first `n` bytes of an answer, one at a time, and then `how`."""

    answer: Callable[[bytes], bytes]
    n: int
    how: How
    sends: bool = True
    """Whether the request can be written."""
    asked: bytes = b""
    given: int = 0
    closed: bool = False
    _request: trio.Event = attrs.Factory(trio.Event)
    _closing: trio.Event = attrs.Factory(trio.Event)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if not self.sends:
            raise trio.BrokenResourceError("Broken pipe")
        self.asked += bytes(data)
        if self.asked.endswith(b"\r\n\r\n"):
            self._request.set()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.n:
            await self._request.wait()
            rest = self.answer(self.asked)[: self.n][self.given :]
            if rest:
                self.given += 1
                return rest[:1]
        match self.how:
            case "resets":
                raise trio.BrokenResourceError("Connection reset by peer")
            case "breaks":  # as trio.SSLStream and memory streams do, which give no text
                raise trio.BrokenResourceError
            case "ends":
                return b""
        await self._closing.wait()
        raise trio.ClosedResourceError("this stream was already closed")

    async def aclose(self) -> None:
        self.closed = True
        self._closing.set()
        await trio.lowlevel.checkpoint()


async def failure_of(stream: CutStream, attempt: str) -> Exception | None:
    """Return why one attempt over this stream failed, once everything that it started has ended."""

    async def dial() -> trio.abc.Stream:
        return stream

    address = SocketAddress(URL, dial=dial, connect_seconds=7)
    tasks = trio.lowlevel.current_statistics().tasks_living
    try:
        async with trio.open_nursery() as nursery:
            if attempt == "connect":
                await nursery.start(address.connect)
            elif attempt == "writer":
                await nursery.start(address.attach_writer, REF, IDENTITY)
            else:
                await nursery.start(address.attach_reader, REF, None)
            nursery.cancel_scope.cancel()
        error = None
    except ExceptionGroup as group:
        (error,) = group.exceptions
    except ConnectionFailed as failed:
        error = failed
    assert stream.closed and trio.lowlevel.current_statistics().tasks_living == tasks
    return error


@pytest.mark.parametrize("attempt", ["connect", "writer", "reader"])
@pytest.mark.parametrize("how", HOWS)
@within(100_000)
async def test_an_engine_gone_anywhere_in_its_answer_is_one_named_failure(
    attempt: str, how: How, autojump_clock: Clock
) -> None:
    length = len(accepts(b"Sec-WebSocket-Key: x\r\n\r\n"))
    for n in range(length):
        began = trio.current_time()
        error = await failure_of(CutStream(accepts, n, how), attempt)
        assert type(error) is ConnectionFailed, (n, error)
        text = str(error)
        assert text.startswith(f"no engine at {URL}: "), text
        expected = {
            "stops": "it took too long",
            "ends": "the connection ended before an answer to the upgrade",
            "resets": "Connection reset by peer",
            "breaks": "the connection broke",
        }
        assert expected[how] in text, (n, text)
        assert trio.current_time() - began == (7 if how == "stops" else 0)
    assert await failure_of(CutStream(accepts, length, how), attempt) is None, "the bytes span the whole handshake"


@pytest.mark.parametrize("how", HOWS)
@within(100_000)
async def test_a_refusal_cut_short_anywhere_is_still_one_once_its_head_came(how: How, autojump_clock: Clock) -> None:
    whole = refuses(b"")
    head = whole.index(b"\r\n\r\n") + 4
    for n in range(len(whole) + 1):
        error = await failure_of(CutStream(refuses, n, how), "connect")
        assert type(error) is ConnectionFailed and URL in str(error), (n, error)
        is_refused = str(error).startswith(f"the engine at {URL} refused with HTTP 503")
        assert is_refused == (n >= head), (n, error)
        if is_refused:
            assert str(error).endswith(f": {whole[head:n].decode()}".rstrip(" :")), (n, error)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("attempt", ["connect", "writer", "reader"])
@within(1000)
async def test_an_upgrade_that_cannot_be_sent_is_a_failure_at_once(
    attempt: str, how: How, autojump_clock: Clock
) -> None:
    began = trio.current_time()
    error = await failure_of(CutStream(accepts, 0, how, sends=False), attempt)
    assert type(error) is ConnectionFailed and str(error).startswith(f"no engine at {URL}: "), error
    assert trio.current_time() == began


class Ending(trio.abc.HalfCloseableStream):
    """A stream that gives its reader `n` bytes, then stops, ends or resets."""

    def __init__(self, inner: trio.abc.HalfCloseableStream, n: int, how: How) -> None:
        self._inner = inner
        self._left = n
        self._how = how

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._left > 0:
            data = bytes(await self._inner.receive_some(min(self._left, max_bytes or self._left)))
            self._left -= len(data)
            return data
        await trio.lowlevel.checkpoint()
        match self._how:
            case "stops":
                await trio.sleep_forever()
            case "ends":
                return b""
        raise trio.BrokenResourceError("Connection reset by peer")

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.parametrize("how", ["stops", "ends", "resets"])
@within(1_000_000)
async def test_a_worker_whose_engine_goes_anywhere_in_the_handshakes_is_there_at_last(
    how: How, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut each further attempt one byte later: within the upgrade, and within the engine's greeting behind it."""
    last = 129 + 60  # the whole 101, and a part of the greeting
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        far_ends: list[trio.abc.Stream] = []
        all_dialled = trio.Event()

        async def dial() -> trio.abc.Stream:
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(engine.serve_stream, far)
            far_ends.append(far)
            attempt = len(far_ends) - 2
            if attempt > last:
                all_dialled.set()
            return Ending(near, attempt, how) if 0 <= attempt <= last else near

        async with iii_trio.open_worker(SocketAddress(URL, dial=dial), name="cut") as worker:

            @worker.function("cut::echo")
            async def echo(n: int) -> int:
                return n

            await worker.wait_registered()
            sessions = len(engine._shell.hub.sessions)
            caplog.clear()
            await trio.aclose_forcefully(far_ends[0])
            await all_dialled.wait()
            await worker.wait_registered()
            assert await worker.trigger("cut::echo", {"n": 5}) == 5
            await trio.testing.wait_all_tasks_blocked()
            # A lost attempt has left nothing on either side, and each was told with its place.
            assert (engine.statistics().sessions, len(engine._shell.hub.sessions)) == (1, sessions)
            told = [record.getMessage() for record in caplog.records if record.name.startswith("iii_trio.worker")]
            assert len(told) > last and all(URL in message for message in told), told
            reason = {
                "stops": "it took too long|no greeting came within",
                "ends": "the connection ended",
                "resets": "Connection reset by peer",
            }[how]
            assert all(re.search(reason, message) for message in told[1:]), told
        nursery.cancel_scope.cancel()
