"""Sockets: Trio's contract for streams, and that a broken one stays broken."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from iii_trio.transport.socket import GATHERED, ReadsNow, Socket, WritesNow


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        near.connect(listening.getsockname())
        far, _ = listening.accept()
    return near, far


PAIRS = [pytest.param(unix_pair, id="unix"), pytest.param(tcp_pair, id="tcp")]


@pytest.fixture
async def tcp() -> AsyncIterator[tuple[Socket, socket.socket]]:
    """A Socket, and the bare socket at the other side."""
    near, far = tcp_pair()
    ours = Socket(near)
    with far:
        yield ours, far
    ours.close()


def clog(*streams: Socket) -> None:
    """Fill them, and what the kernel makes room for a moment later."""
    quiet = 0
    while quiet < 2:
        took = sum(stream.write_now([bytes(n)]) for stream in streams for n in (65536, 64, 1))
        writable = select.select([], [stream._sock for stream in streams], [], 0.005)[1]
        quiet = 0 if took or writable else quiet + 1


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("pair", PAIRS)
async def test_it_keeps_trios_contract(pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    async def make() -> tuple[Socket, Socket]:
        near, far = pair()
        return Socket(near), Socket(far)

    async def make_clogged() -> tuple[Socket, Socket]:
        near, far = await make()
        clog(near, far)
        return near, far

    await trio.testing.check_half_closeable_stream(make, make_clogged)


async def test_it_reads_and_writes_without_waiting(tcp: tuple[Socket, socket.socket]) -> None:
    ours, far = tcp
    assert isinstance(ours, ReadsNow) and isinstance(ours, WritesNow)
    into = memoryview(bytearray(10))
    assert ours.read_now(into) is None
    far.sendall(b"abc")
    await ours.wait_readable()
    assert (ours.read_now(into), bytes(into[:3])) == (3, b"abc")
    assert ours.write_now([b"x", bytearray(b"y"), memoryview(b"z")]) == 3
    assert far.recv(10) == b"xyz"
    far.shutdown(socket.SHUT_WR)
    await ours.wait_readable()
    assert ours.read_now(into) == 0


async def test_a_write_takes_more_pieces_than_the_kernel_does(tcp: tuple[Socket, socket.socket]) -> None:
    ours, _ = tcp
    assert ours.write_now([b"x"] * 3000) == GATHERED


async def test_a_full_socket_takes_nothing_and_says_so(tcp: tuple[Socket, socket.socket]) -> None:
    ours, far = tcp
    sent = 0
    while took := ours.write_now([bytes(100_000)]):
        sent += took
    assert ours.write_now([b"x"]) == 0
    got = 0
    with trio.fail_after(5):
        while got < sent:
            got += len(far.recv(1_000_000))
        await ours.wait_send_all_might_not_block()
    assert ours.write_now([b"x"]) == 1


async def test_a_reset_taken_by_a_write_is_not_followed_by_a_clean_end(tcp: tuple[Socket, socket.socket]) -> None:
    """The kernel would give reads the data that came before, and then an end of stream: a lost peer would look done."""
    ours, far = tcp
    far.sendall(b"last words")
    ours.write_now([b"unread, so that closing resets"])
    await ours.wait_readable()
    far.close()
    with pytest.raises(trio.BrokenResourceError):
        for _ in range(100):
            ours.write_now([b"x"])
            await trio.lowlevel.checkpoint()
    with pytest.raises(trio.BrokenResourceError):
        ours.read_now(memoryview(bytearray(100)))
    with pytest.raises(trio.BrokenResourceError):
        await ours.receive_some(100)
    with pytest.raises(trio.BrokenResourceError):
        await ours.send_all(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await ours.wait_send_all_might_not_block()


async def test_a_reset_taken_by_a_read_breaks_writing_too(tcp: tuple[Socket, socket.socket]) -> None:
    ours, far = tcp
    reset(far)
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await ours.receive_some(10)
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        ours.write_now([b"x"])
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        ours.end_writing()


@pytest.mark.parametrize("pair", PAIRS)
async def test_closing_wakes_whoever_waits(pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    near, far = pair()
    ours = Socket(near)
    woken: list[str] = []

    async def wait(name: str, waiting: Callable[[], object]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await waiting()  # type: ignore[misc]
        woken.append(name)

    clog(ours)
    with far, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "reader", ours.wait_readable)
            nursery.start_soon(wait, "writer", ours.wait_send_all_might_not_block)
            await trio.testing.wait_all_tasks_blocked()
            ours.close()
    assert sorted(woken) == ["reader", "writer"]
    ours.close()
    assert ours.closed


async def test_a_reset_of_ours_is_loud_at_the_other_side(tcp: tuple[Socket, socket.socket]) -> None:
    ours, far = tcp
    ours.reset()
    ours.reset()
    with pytest.raises(ConnectionResetError):
        far.recv(10)


async def test_whether_closing_now_would_reset_can_be_asked(tcp: tuple[Socket, socket.socket]) -> None:
    ours, far = tcp
    assert ours.nothing_unread()
    far.sendall(b"x")
    await ours.wait_readable()
    assert not ours.nothing_unread()
    assert await ours.receive_some(10) == b"x"
    far.shutdown(socket.SHUT_WR)
    await ours.wait_readable()
    assert ours.nothing_unread()


@pytest.mark.parametrize("pair", PAIRS)
async def test_held_output_arrives_with_the_end(pair: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    near, far = pair()
    ours = Socket(near)
    with far:
        ours.hold_output()
        assert ours.write_now([b"last"]) == 4
        ours.end_writing()
        assert far.recv(10) == b"last" and far.recv(10) == b""
    ours.close()
    ours.hold_output()
    with pytest.raises(trio.ClosedResourceError):
        ours.write_now([b"more"])


async def test_what_was_sent_goes_before_the_end_and_nothing_after_it(tcp: tuple[Socket, socket.socket]) -> None:
    ours, far = tcp
    await ours.send_all(b"all")
    ours.end_writing()
    ours.end_writing()
    assert far.recv(10) == b"all" and far.recv(10) == b""
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"more")


async def test_a_peer_that_only_does_not_read_is_not_silent(tcp: tuple[Socket, socket.socket]) -> None:
    ours, _ = tcp
    assert ours.seconds_of_silence() is None
    ours.write_now([b"x"])
    assert (ours.seconds_of_silence() or 0) < 5
    clog(ours)
    assert (ours.seconds_of_silence() or 0) < 5


async def test_a_silent_kernel_is_found_while_waiting_to_write(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Silence cannot be had on loopback: what the kernel would say is put in its mouth, the waiting is real."""
    near, far = tcp_pair()
    ours = Socket(near, dead_peer_seconds=100)
    clog(ours)
    began = trio.current_time()
    monkeypatch.setattr(Socket, "seconds_of_silence", lambda self: trio.current_time() - began)
    with far, pytest.raises(trio.BrokenResourceError, match=r"silent for 1[02]0 s with data on its way"):
        await ours.wait_send_all_might_not_block()
    assert trio.current_time() - began <= 121
    with pytest.raises(trio.BrokenResourceError):
        ours.read_now(memoryview(bytearray(1)))
    ours.close()


async def test_a_unix_socket_has_no_kernel_to_be_silent() -> None:
    near, far = unix_pair()
    ours = Socket(near)
    with far:
        assert (ours.seconds_of_silence(), ours.peer) == (None, None)
    ours.close()
    assert ours.seconds_of_silence() is None and ours.peer is None


async def test_an_idle_peer_is_asked_for_by_the_kernel(tcp: tuple[Socket, socket.socket]) -> None:
    near, far = tcp_pair()
    ours = Socket(near, dead_peer_seconds=100)
    with far:
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_KEEPIDLE"):
            times = [near.getsockopt(socket.IPPROTO_TCP, option) for option in (
                socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)]  # fmt: skip
            assert times == [50, 10, 5], "an idle peer is found dead after dead_peer_seconds"
    ours.close()
