"""Connections under peers that break off, ping, stay silent or keep talking: each ends in time, and is told of once."""

from __future__ import annotations

import base64
import functools
import gc
import hashlib
import math
import socket
import ssl
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import pytest
import trio
import trio.testing
import trustme
import wsproto
import wsproto.connection
from trio_websocket import WebSocketConnection

from iii_trio.errors import ConnectionFailed, FrameError
from iii_trio.transport.control_frames import answer
from iii_trio.transport.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseFrame,
    MessageScanner,
    close_payload,
    frame,
)
from iii_trio.transport.handshake import request_upgrade
from iii_trio.transport.http1 import read_head
from iii_trio.transport.socket import Socket
from iii_trio.transport.upgrade import Refusal
from iii_trio.transport.websocket import Lost, ReadBuffer, WebSocket

MASK = b"\x09\x08\x07\x06"
BUFFER = ReadBuffer()
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Notes:
    """A frame handler that notes what it is told."""

    def __init__(self, *, masked: bool) -> None:
        self.messages: list[bytes] = []
        self.ends: list[CloseFrame | FrameError | Lost] = []
        self.full = False
        self.websocket: WebSocket | None = None
        self._scanner = MessageScanner(10**6, masked=masked)
        self._room = trio.lowlevel.ParkingLot()

    def on_open(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    @property
    def unparsed(self) -> bytes:
        return self._scanner.tail

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        messages, controls = self._scanner.scan(data)
        assert self.websocket is not None
        if not self.websocket.discarding:
            self.messages += [bytes(payload) for _, payload in messages]
        return controls, self._scanner.error or self._scanner.closed

    async def wait_ready(self) -> None:
        while self.full and self.websocket is not None and not self.websocket.discarding:
            await self._room.park()

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        self.ends.append(how)


@attrs.define(eq=False)
class Served:
    """A server's connection at work, and the client's side of its stream."""

    websocket: WebSocket
    notes: Notes
    client: trio.abc.Stream
    over: trio.Event
    said: bytearray = attrs.field(factory=bytearray)

    async def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        await self.client.send_all(frame(opcode, payload, fin=fin, mask=MASK))

    async def read(self, n: int) -> bytes:
        """The next `n` bytes."""
        while len(self.said) < n:
            more = await self.client.receive_some(65536)
            assert more, bytes(self.said)
            self.said += more
        data, self.said = bytes(self.said[:n]), self.said[n:]
        return data

    async def read_to_the_end(self) -> bytes:
        while more := await self.client.receive_some(65536):
            self.said += more
        return bytes(self.said)


@asynccontextmanager
async def served(
    pair: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair, **options: Any
) -> AsyncIterator[Served]:
    client, server = pair()
    notes = Notes(masked=True)
    websocket = WebSocket(server, notes, buffer=BUFFER, **options)
    over = trio.Event()

    async def serve() -> None:
        head = await read_head(server, 10_000)
        assert head is not None
        head.check_upgrade()
        await websocket.serve(head)
        over.set()

    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await client.send_all(REQUEST)
            connection = Served(websocket, notes, client, over)
            while b"\r\n\r\n" not in connection.said:
                connection.said += await client.receive_some()
            connection.said = connection.said.partition(b"\r\n\r\n")[2]
            await trio.testing.wait_all_tasks_blocked()
            yield connection
            await trio.aclose_forcefully(client)
            await over.wait()
    assert len(notes.ends) == 1, notes.ends


# --- talking


async def test_messages_arrive_and_pings_are_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        await peer.send(TEXT, b"one")
        await peer.send(PING, b"there?")
        await peer.send(BINARY, b"t", fin=False)
        await peer.send(PING)
        await peer.send(0, b"wo")
        assert await peer.read(10) == frame(PONG, b"there?") + frame(PONG, b"")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.notes.messages == [b"one", b"two"]


async def test_a_full_handler_stops_the_reading(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        peer.notes.full = True
        await peer.send(TEXT, b"this read was under way")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(TEXT, b"and this one is not begun")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.notes.messages == [b"this read was under way"]
        peer.notes.full = False
        peer.notes._room.unpark_all()
        await trio.testing.wait_all_tasks_blocked()
        assert len(peer.notes.messages) == 2


async def test_a_peer_that_pings_and_never_reads_gets_a_bounded_number_of_pongs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def pair() -> tuple[Any, Any]:
        to_server, at_server = trio.testing.memory_stream_one_way_pair()
        to_client, at_client = trio.testing.lockstep_stream_one_way_pair()
        return trio.StapledStream(to_server, at_client), trio.StapledStream(to_client, at_server)

    async with served(pair) as peer:
        for _ in range(5_000):
            await peer.send(PING, bytes(100))
        await trio.testing.wait_all_tasks_blocked()
        assert peer.websocket.outbox.waiting_bytes < 20_000
        await peer.send(TEXT, b"and still it is heard")
        await trio.testing.wait_all_tasks_blocked()
        assert peer.notes.messages == [b"and still it is heard"]


async def test_many_pings_in_one_read_are_answered_and_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Each answer takes 20 µs, and the 40,000 pings of one read would stop the loop for a second."""
    answers = [0]

    def count(ping: bytes, *, is_client: bool) -> bytes:
        answers[-1] += 1
        return answer(ping, is_client=is_client)

    async def take_turns() -> None:
        while True:
            answers.append(0)
            await trio.lowlevel.checkpoint()

    monkeypatch.setattr("iii_trio.transport.websocket.answer", count)
    async with served() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        await peer.client.send_all(b"".join(frame(PING, n.to_bytes(2, "big"), mask=MASK) for n in range(1000)))
        pongs = b"".join(frame(PONG, n.to_bytes(2, "big")) for n in range(1000))
        assert await peer.read(len(pongs)) == pongs
        assert sum(answers) == 1000 and max(answers) <= 32
        nursery.cancel_scope.cancel()


async def test_a_close_takes_effect_between_the_answers_to_many_pings(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        await peer.client.send_all(frame(PING, b"", mask=MASK) * 1000)
        assert await peer.read(2) == frame(PONG, b"")
        peer.websocket.close(1000)
        await peer.send(CLOSE, close_payload(1000))
        await peer.client.send_eof()
        said = await peer.read_to_the_end()
        assert said.endswith(frame(CLOSE, close_payload(1000))) and len(said) < 1000
        assert peer.notes.ends == [CloseFrame(1000)]


# --- ending


async def test_a_close_behind_a_ping_is_noticed_though_its_peer_is_gone() -> None:
    """Answering the ping fails, because the peer has closed its socket behind its Close."""

    def pair() -> tuple[Socket, Socket]:
        near, far = socket.socketpair()
        return Socket(near), Socket(far)

    async with served(pair) as peer:
        said = (
            frame(TEXT, b"last", mask=MASK) + frame(PING, b"", mask=MASK) + frame(CLOSE, close_payload(1000), mask=MASK)
        )
        assert peer.client.write_now([said]) == len(said)  # type: ignore[attr-defined]
        peer.client.close()  # type: ignore[attr-defined]
        await peer.over.wait()
        assert peer.notes.messages == [b"last"] and peer.notes.ends == [CloseFrame(1000)]


async def test_a_connection_may_be_cut_without_a_last_frame(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        peer.websocket.cut()
        assert await peer.read_to_the_end() == b""
        await peer.client.send_eof()
        await peer.over.wait()
        assert isinstance(peer.notes.ends[0], Lost)


@pytest.mark.parametrize("waiting", [b"", frame(BINARY, b"data")], ids=["nothing waits", "output waits"])
async def test_the_last_frame_of_a_cut_leaves_in_one_packet_with_the_end(waiting: bytes) -> None:
    """The kernel holds it until FIN, unless output waits, because FIN may then come much later."""

    def pair() -> tuple[Socket, Socket]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            near = socket.create_connection(listening.getsockname())
            far, _ = listening.accept()
        return Socket(near), Socket(far)

    async with served(pair) as peer:
        stream = peer.websocket.stream
        assert isinstance(stream, Socket)
        if waiting:
            peer.websocket.outbox.put(waiting)
        peer.websocket.cut(b"\x83\x00")
        held = stream._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)
        assert bool(held) is not bool(waiting)
        assert await peer.read_to_the_end() == waiting + b"\x83\x00"


async def test_a_close_is_answered_with_its_code_and_the_stream_ends(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        await peer.send(TEXT, b"last")
        await peer.send(CLOSE, close_payload(4001, "no good"))
        assert await peer.read_to_the_end() == frame(CLOSE, close_payload(4001, "no good"))
        assert peer.notes.messages == [b"last"] and peer.notes.ends == [CloseFrame(4001, "no good")]


async def test_what_was_put_before_our_close_arrives_before_it(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        for n in range(50):
            peer.websocket.outbox.put(frame(BINARY, bytes((n,))))
        peer.websocket.close(1000, "bye")
        peer.websocket.close(1011, "never said")
        frames = b"".join(frame(BINARY, bytes((n,))) for n in range(50)) + frame(CLOSE, close_payload(1000, "bye"))
        assert await peer.read(len(frames)) == frames
        await trio.testing.wait_all_tasks_blocked()
        assert peer.websocket.close_written and not peer.over.is_set()
        await peer.send(CLOSE, close_payload(1000))
        await peer.client.send_eof()
        await peer.over.wait()
        assert peer.notes.ends == [CloseFrame(1000)]


async def test_everything_behind_the_peers_close_is_ignored(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        await peer.client.send_all(
            frame(CLOSE, close_payload(1000), mask=MASK) + frame(TEXT, b"late", mask=MASK) + frame(3, b"", mask=MASK)
        )
        assert await peer.read_to_the_end() == frame(CLOSE, close_payload(1000))
        assert peer.notes.ends == [CloseFrame(1000)] and not peer.notes.messages


async def test_pings_and_data_behind_our_close_harm_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        peer.websocket.close(1000)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await peer.send(PING, b"there?")
            await peer.send(TEXT, b"too late")
        await peer.send(CLOSE, close_payload(1000))
        await peer.client.send_eof()
        assert await peer.read_to_the_end() == frame(CLOSE, close_payload(1000))
        assert not peer.notes.messages


async def test_our_close_does_not_wait_for_a_full_handler(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        peer.notes.full = True
        await peer.send(TEXT, b"one")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        peer.websocket.close(1000)
        peer.notes._room.unpark_all()
        await peer.send(CLOSE, close_payload(1000))
        await peer.client.send_eof()
        await peer.over.wait()
        assert trio.current_time() == began


async def test_a_peer_that_never_answers_our_close_is_dropped_after_five_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as peer:
        began = trio.current_time()
        peer.websocket.close(1000)
        await peer.over.wait()
        assert trio.current_time() - began == pytest.approx(5)
        assert isinstance(peer.notes.ends[0], Lost)


@pytest.mark.parametrize("timeout", [1.0, 77.0, math.inf])
async def test_a_close_may_come_with_a_timeout_of_its_own(
    timeout: float, autojump_clock: trio.testing.MockClock
) -> None:
    async with served() as peer:
        began = trio.current_time()
        peer.websocket.close(1000, timeout=timeout)
        with trio.move_on_after(500):
            await peer.over.wait()
        assert trio.current_time() - began == pytest.approx(min(timeout, 500))


async def test_a_peer_that_answers_our_close_and_keeps_its_side_open_is_dropped_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as peer:
        began = trio.current_time()
        peer.websocket.close(1000)
        await peer.send(CLOSE, close_payload(1000))
        await peer.over.wait()
        assert trio.current_time() - began == pytest.approx(5)
        assert peer.notes.ends == [CloseFrame(1000)]


async def test_a_farewell_comes_behind_what_was_put_and_then_the_end_of_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as peer:
        peer.websocket.outbox.put(frame(BINARY, b"data"))
        peer.websocket.cut(b"\x83\x00")
        assert await peer.read_to_the_end() == frame(BINARY, b"data") + b"\x83\x00"
        assert not peer.over.is_set(), "what the peer still sends is read: closing with unread input would reset"
        await peer.client.send_eof()
        await peer.over.wait()


async def test_a_broken_rule_is_answered_with_its_code_and_reason(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        await peer.client.send_all(frame(TEXT, b"good", mask=MASK) + frame(TEXT, b"bad, as it has no mask"))
        await peer.client.send_all(frame(TEXT, b"not looked at", mask=MASK))
        await peer.client.send_eof()
        assert await peer.read_to_the_end() == frame(CLOSE, close_payload(1002, "a frame is not masked"))
        assert peer.notes.messages == [b"good"]
        assert isinstance(peer.notes.ends[0], FrameError) and peer.notes.ends[0].code == 1002


async def test_an_end_without_a_close_is_a_loss_and_known_to_be_orderly(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:
        await peer.send(TEXT, b"last")
        await peer.client.send_eof()
        await peer.over.wait()
        (end,) = peer.notes.ends
        assert isinstance(end, Lost) and end.by_fin and peer.notes.messages == [b"last"]


async def test_a_connection_that_is_dropped_is_told_of_too(autojump_clock: trio.testing.MockClock) -> None:
    client, server = trio.testing.memory_stream_pair()
    notes = Notes(masked=True)
    async with trio.open_nursery() as nursery:
        await client.send_all(REQUEST)
        head = await read_head(server, 10_000)
        assert head is not None
        nursery.start_soon(WebSocket(server, notes, buffer=BUFFER).serve, head)
        await trio.testing.wait_all_tasks_blocked()
        assert notes.websocket is not None and notes.websocket.talking
        nursery.cancel_scope.cancel()
    assert notes.ends == [Lost("the connection was dropped")]
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"x")


async def test_pings_before_a_close_in_the_same_read_are_answered_before_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as peer:
        await peer.client.send_all(frame(PING, b"there?", mask=MASK) + frame(CLOSE, close_payload(1000), mask=MASK))
        assert await peer.read_to_the_end() == frame(PONG, b"there?") + frame(CLOSE, close_payload(1000))


@pytest.mark.parametrize("payload", [b"\x03", close_payload(999), close_payload(1005), b"\x03\xe8\xff"])
async def test_a_close_that_breaks_a_rule_is_answered_with_that_rules_code(
    payload: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with served() as peer:
        await peer.send(CLOSE, payload)
        await peer.client.send_eof()
        said = await peer.read_to_the_end()
        code = 1007 if payload.endswith(b"\xff") else 1002
        assert said[:1] == b"\x88" and said[2:4] == code.to_bytes(2, "big") and len(said) == 2 + said[1]
        assert isinstance(peer.notes.ends[0], FrameError) and peer.notes.ends[0].code == code


async def test_broken_frames_behind_our_close_do_not_keep_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served() as peer:
        peer.websocket.close(1000)
        await peer.client.send_all(frame(TEXT, b"without a mask"))
        await peer.client.send_all(bytes(100_000))
        began = trio.current_time()
        await peer.client.send_eof()
        assert await peer.read_to_the_end() == frame(CLOSE, close_payload(1000))
        await peer.over.wait()
        assert trio.current_time() == began and isinstance(peer.notes.ends[0], FrameError)


async def test_nothing_is_fed_to_the_handler_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """The connection is lost when its task has been woken with a message, and has not run yet."""
    async with served() as peer:
        fed = []

        def feed(data: memoryview) -> tuple[bytes, None]:
            fed.append(bytes(data))
            return b"", None

        peer.notes.feed = feed  # type: ignore[method-assign]
        await peer.send(TEXT, b"on its way")
        peer.websocket.lost("nothing could be written")
        await peer.over.wait()
        assert not fed and isinstance(peer.notes.ends[0], Lost)


async def test_nothing_is_sent_in_reaction_to_a_loss(autojump_clock: trio.testing.MockClock) -> None:
    async with served() as peer:

        def on_close(how: CloseFrame | FrameError | Lost) -> None:
            peer.notes.ends.append(how)
            peer.websocket.close(1011, "to a peer that is gone")
            peer.websocket.cut(b"\x83\x00")

        peer.notes.on_close = on_close  # type: ignore[method-assign]
        await peer.client.send_eof()
        assert await peer.read_to_the_end() == b""
        assert not peer.websocket.close_written


async def test_a_goodbye_is_written_at_once() -> None:
    """With no turn of the loop between: many readers of a lost writer are told one after the other."""

    def pair() -> tuple[Socket, Socket]:
        near, far = socket.socketpair()
        return Socket(near), Socket(far)

    into = memoryview(bytearray(1000))
    async with served(pair) as peer, served(pair) as other:
        peer.websocket.outbox.put(frame(BINARY, b"data"))
        peer.websocket.close(1000)
        n = peer.client.read_now(into)  # type: ignore[attr-defined]
        assert into[:n] == frame(BINARY, b"data") + frame(CLOSE, close_payload(1000))
        assert peer.client.read_now(into) is None  # type: ignore[attr-defined]
        other.websocket.cut(b"\x83\x00")
        n = other.client.read_now(into)  # type: ignore[attr-defined]
        assert into[:n] == b"\x83\x00" and other.client.read_now(into) == 0  # type: ignore[attr-defined]


async def test_nothing_of_the_library_is_left_after_the_handshake(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(map(id, _connections_of_the_library()))
    async with served() as peer:
        await peer.send(PING, b"there?")
        assert await peer.read(8) == frame(PONG, b"there?")
        gc.collect()
        left = [each for each in _connections_of_the_library() if id(each) not in before]
        assert not left and not caplog.records


def _connections_of_the_library() -> list[object]:
    kinds = WebSocketConnection | wsproto.WSConnection | wsproto.connection.Connection | h11.Connection
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


# --- asking for an upgrade


async def ask(answer: Callable[[trio.abc.Stream], Any], **options: Any) -> tuple[Refusal | None, Notes]:
    client, server = trio.testing.memory_stream_pair()
    notes = Notes(masked=False)
    refusal, failure = None, None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, server)
        try:
            refusal = await WebSocket(client, notes, buffer=BUFFER, **options).connect("x:1", "/", [], lambda: None)
        except ConnectionFailed as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return refusal, notes


async def test_a_stream_that_ends_during_the_handshake_is_no_connection(autojump_clock: trio.testing.MockClock) -> None:
    async def hang_up(server: trio.abc.Stream) -> None:
        await server.receive_some()
        await server.aclose()

    began = trio.current_time()
    with pytest.raises(ConnectionFailed, match="ended before an answer"):
        await ask(hang_up)
    assert trio.current_time() == began


async def listen(server: trio.abc.Stream) -> None:
    async for _ in server:
        pass


async def test_a_connection_that_is_closed_during_the_handshake_is_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    client, server = trio.testing.memory_stream_pair()
    websocket = WebSocket(client, Notes(masked=False), buffer=BUFFER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, server)

        async def connect() -> None:
            with pytest.raises(ConnectionFailed, match="the connection ended"):
                await websocket.connect("x:1", "/", [], lambda: None)

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        websocket.close(1000)
    assert trio.current_time() == began


async def test_a_failed_handshake_keeps_no_frame_for_the_cycle_collector(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def hang_up(server: trio.abc.Stream) -> None:
        await server.receive_some()
        await server.aclose()

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ConnectionFailed, match="ended before an answer"):
            await ask(hang_up)
        frames = [each for each in gc.get_objects() if isinstance(each, types.FrameType)]
        assert not [each for each in frames if each.f_code is request_upgrade.__code__]
    finally:
        gc.enable()


async def test_an_answer_that_never_comes_is_waited_for_so_long(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()
    with pytest.raises(ConnectionFailed, match="too long"):
        await ask(listen, handshake_seconds=7)
    assert trio.current_time() - began == pytest.approx(7)


@pytest.mark.parametrize("length", [b"Content-Length: 9\r\n", b""])
async def test_an_answer_other_than_101_is_given_back_whole(
    length: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async def refuse(server: trio.abc.Stream) -> None:
        await server.receive_some()
        for piece in (b"HTTP/1.1 404 Not Fo", b"und\r\n" + length + b"\r\nnot", b" found"):
            await server.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await server.aclose()

    refusal, notes = await ask(refuse)
    assert refusal == Refusal(404, b"not found") and notes.websocket is None


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n", b"\x00" * 300_000])
async def test_an_answer_that_is_no_http_is_no_connection(said: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async def answer(server: trio.abc.Stream) -> None:
        await server.receive_some()
        await server.send_all(said)
        await server.aclose()

    with pytest.raises(ConnectionFailed):
        await ask(answer)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong", "does not fit"),
        ("Upgrade: websocket\r\nConnection: Upgrade", "does not fit"),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}", "something else"),
        ("Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}", "something else"),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
         "Sec-WebSocket-Extensions: permessage-deflate", "was not asked for"),
        ("no colon\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}", "no HTTP answer"),
    ],
)  # fmt: skip
async def test_a_101_that_does_not_fit_is_no_connection(
    fields: str, problem: str, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(ConnectionFailed, match=problem):
        await ask(functools.partial(accept, fields))


async def test_odd_headers_of_a_101_hurt_nobody(autojump_clock: trio.testing.MockClock) -> None:
    fields = "Sec-WebSocket-Accept: {accept}\r\nUPGRADE: WebSocket\r\nconnection: keep-alive, upgrade\r\nX: \xff"
    _, notes = await ask(functools.partial(accept, fields, end=True))
    assert notes.websocket is not None and isinstance(notes.ends[0], Lost)


async def accept(fields: str, server: trio.abc.Stream, *, end: bool = False) -> None:
    head = await read_head(server, 10_000)
    assert head is not None
    key = head.headers["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    said = "HTTP/1.1 101 Switching Protocols\r\n" + fields.format(accept=accept) + "\r\n\r\n"
    await server.send_all(said.encode("latin-1"))
    if end:
        await server.aclose()
    await trio.sleep_forever()


# --- TLS


async def test_both_sides_speak_over_tls(autojump_clock: trio.testing.MockClock) -> None:
    authority = trustme.CA()
    for_server, for_client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("engine.test").configure_cert(for_server)
    authority.configure_trust(for_client)
    near, far = trio.testing.memory_stream_pair()
    client = trio.SSLStream(near, for_client, server_hostname="engine.test", https_compatible=True)
    server = trio.SSLStream(far, for_server, server_side=True, https_compatible=True)
    ours, theirs = Notes(masked=False), Notes(masked=True)
    opened = trio.Event()

    async def serve() -> None:
        head = await read_head(server, 10_000)
        assert head is not None
        await WebSocket(server, theirs, buffer=BUFFER).serve(head)

    async def converse() -> None:
        await WebSocket(client, ours, buffer=BUFFER).connect("engine.test", "/", [], opened.set)

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            nursery.start_soon(converse)
            await opened.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert ours.websocket is not None and theirs.websocket is not None
            began = trio.current_time()
            ours.websocket.outbox.put(frame(BINARY, b"c" * 200_000, mask=MASK))
            ours.websocket.outbox.flush()
            theirs.websocket.outbox.put(frame(BINARY, b"s" * 200_000))
            theirs.websocket.close(1000, "bye")
    assert ours.messages == [b"s" * 200_000]
    assert ours.ends == [CloseFrame(1000, "bye")]
    assert trio.current_time() == began


@attrs.define
class Counts:
    """The counts of an outbox."""

    written_bytes: int = 0
    waiting_bytes: int = 0
    is_written: bool = True


def _with_counts() -> tuple[WebSocket, Counts]:
    near, _ = trio.testing.memory_stream_pair()
    websocket, counts = WebSocket(near, Notes(masked=True), buffer=ReadBuffer(8)), Counts()
    websocket.outbox = counts  # type: ignore[assignment]
    return websocket, counts


async def test_pongs_that_were_not_written_are_bounded_exactly() -> None:
    websocket, counts = _with_counts()

    def send(n: int) -> bool:
        may = websocket._may_pong(n)
        counts.waiting_bytes += n if may else 0
        return may

    assert send(16 * 1024) and send(1) and not send(1) and not send(1)
    # A write of a part changes nothing, because the pongs behind it still wait.
    counts.written_bytes, counts.waiting_bytes = 16 * 1024, 1
    assert not send(1)
    # All of them were written, and so others may follow, whatever else waits.
    counts.written_bytes, counts.waiting_bytes = 16 * 1024 + 1, 500
    assert send(16 * 1024) and send(7) and not send(1)
    counts.written_bytes, counts.waiting_bytes = 32 * 1024 + 507, 0
    assert not send(1)
    counts.written_bytes += 1
    assert send(1)


@pytest.mark.parametrize(
    ("put_at", "written", "waiting", "is_written", "whole"),
    [
        (None, 100, 0, True, False),
        (10, 9, 1, False, False),
        (10, 10, 0, True, True),
        (10, 10, 0, False, False),  # TLS holds ciphertext back
        (10, 10, 1, False, True),
        (10, 11, 5, False, True),
    ],
)
async def test_a_close_is_written_when_its_last_byte_is(
    put_at: int | None, written: int, waiting: int, is_written: bool, whole: bool
) -> None:
    websocket, counts = _with_counts()
    websocket._close_put_at = put_at
    counts.written_bytes, counts.waiting_bytes, counts.is_written = written, waiting, is_written
    assert websocket.close_written is whole
