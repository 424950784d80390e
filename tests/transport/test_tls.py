"""TLS without waiting: Trio's stream contract, prefixes of writes, records of a read, failed handshakes, and ends."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing
import trustme

from iii_trio.transport import tls
from iii_trio.transport.reading import ReadBuffer, StreamInput
from iii_trio.transport.socket import Socket
from iii_trio.transport.tls import TlsStream
from iii_trio.triggers.http import HttpLimits
from iii_trio.triggers.http.client_stream import ClientStream

AUTHORITY = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
SERVER.num_tickets = 0  # as the engine does: unread tickets make a close a reset
AUTHORITY.issue_cert("localhost").configure_cert(SERVER)
CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
AUTHORITY.configure_trust(CLIENT)


def new_pair(send_buffer: int | None = None) -> tuple[TlsStream, TlsStream]:
    one, other = socket.socketpair()
    if send_buffer is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
    return (
        TlsStream(Socket(one), CLIENT, server_hostname="localhost"),
        TlsStream(Socket(other), SERVER, server_side=True),
    )


@asynccontextmanager
async def connected(send_buffer: int | None = None) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    client, server = new_pair(send_buffer)
    async with client, server:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.do_handshake)
                nursery.start_soon(server.do_handshake)
            yield client, server


async def test_trios_contract_of_streams() -> None:
    async def make() -> tuple[TlsStream, TlsStream]:
        return new_pair()

    async def make_clogged() -> tuple[TlsStream, TlsStream]:
        client, server = new_pair(4096)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        while client.write_now([bytes(100_000)]):
            pass
        return client, server

    await trio.testing.check_one_way_stream(make, make_clogged)


async def test_every_record_that_came_is_read_at_once() -> None:
    async with connected() as (client, server):
        for letter in b"abc":
            assert client.write_now([bytes([letter]) * 10]) == 10
        into = memoryview(bytearray(100))
        assert server.read_now(into) == 30
        assert bytes(into[:30]) == b"a" * 10 + b"b" * 10 + b"c" * 10
        assert server.read_now(into) is None


async def test_every_record_is_read_at_once_also_where_the_transport_delivers_them_in_several_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "_CIPHERTEXT", memoryview(bytearray(1000)))
    async with connected() as (client, server):
        for _ in range(10):
            client.write_now([bytes(290)])
        assert server.read_now(memoryview(bytearray(4000))) == 2900


async def test_a_record_that_comes_byte_by_byte_is_read_with_its_last_byte() -> None:
    async with connected() as (client, server):
        client._tls.write(b"first")
        first = client._outgoing.read()
        client._tls.write(b"second")
        flight = first + client._outgoing.read()
        into = memoryview(bytearray(100))
        read = []
        for at in range(len(flight)):
            assert client.transport.write_now([flight[at : at + 1]]) == 1
            n = server.read_now(into)
            read.append(None if n is None else bytes(into[:n]))
        assert read.index(b"first") == len(first) - 1
        assert read[-1] == b"second"
        assert read.count(None) == len(flight) - 2


async def test_small_parts_are_joined_into_few_records() -> None:
    async with connected() as (client, server):
        before = server.transport
        assert client.write_now([b"x" * 100] * 100) == 10_000
        into = memoryview(bytearray(20_000))
        ciphertext = before.read_now(into)
        assert ciphertext is not None and 10_000 < ciphertext < 10_100  # one record costs about 22 bytes


async def test_a_full_transport_takes_a_prefix_and_the_rest_leaves_later() -> None:
    random.seed(0)
    data = random.randbytes(2_000_000)
    async with connected(4096) as (client, server):
        took = client.write_now([data])
        assert 0 < took < len(data) and client.unsent
        assert client.write_now([data[took:]]) == 0
        received = bytearray()

        async def read() -> None:
            while len(received) < len(data):
                received.extend(await server.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while took < len(data):
                await client.wait_send_all_might_not_block()
                took += client.write_now([memoryview(data)[took:]])
            while client.unsent:
                await client.wait_send_all_might_not_block()
        assert received == data


@pytest.mark.parametrize("seed", range(20))
async def test_any_sizes_arrive_unchanged_in_both_directions(seed: int) -> None:
    chance = random.Random(seed)
    texts = [[chance.randbytes(chance.choice([0, 1, 99, 16_384, 16_385, 70_000])) for _ in range(12)] for _ in range(2)]
    async with connected(chance.choice([None, 4096, 50_000])) as ends, trio.open_nursery() as nursery:

        async def send(stream: TlsStream, parts: list[bytes]) -> None:
            for part in parts:
                await stream.send_all(part)

        async def receive(stream: TlsStream, parts: list[bytes]) -> None:
            wanted, got = b"".join(parts), bytearray()
            while len(got) < len(wanted):
                got += await stream.receive_some(chance.choice([1000, 65_536]))
            assert got == wanted

        for number, parts in enumerate(texts):
            nursery.start_soon(send, ends[number], parts)
            nursery.start_soon(receive, ends[1 - number], parts)


async def test_a_first_read_shakes_hands() -> None:
    client, server = new_pair()
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"hello")
        with trio.fail_after(5):
            assert await server.receive_some() == b"hello"


async def test_a_certificate_that_is_not_trusted_fails_the_handshake_on_both_sides() -> None:
    one, other = socket.socketpair()
    client = TlsStream(Socket(one), ssl.create_default_context(), server_hostname="localhost")
    server = TlsStream(Socket(other), SERVER, server_side=True)
    async with client, server, trio.open_nursery() as nursery:

        async def serve() -> None:
            with pytest.raises(
                trio.BrokenResourceError, match="does not trust the certificate of this side"
            ):  # the client's alert
                await server.receive_some()

        nursery.start_soon(serve)
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as failed:
            await client.do_handshake()
        assert isinstance(failed.value.__cause__, ssl.SSLCertVerificationError)


async def test_garbage_for_a_handshake_is_a_broken_stream() -> None:
    one, other = socket.socketpair()
    server = TlsStream(Socket(other), SERVER, server_side=True)
    async with server, Socket(one) as raw:
        await raw.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="HTTP_REQUEST"):
            await server.receive_some()


Ending = Callable[[TlsStream], None]


@pytest.mark.parametrize(
    "end", [lambda stream: stream.transport.end_writing(), lambda stream: stream.close()], ids=["fin", "close"]
)
async def test_the_transports_end_is_the_end_of_the_stream(end: Ending) -> None:
    async with connected() as (client, server):
        client.write_now([b"last words"])
        end(client)
        with trio.fail_after(5):
            assert await server.receive_some() == b"last words"
            assert await server.receive_some() == b"" == await server.receive_some()


async def test_an_end_within_the_handshake_is_told() -> None:
    one, other = socket.socketpair()
    server = TlsStream(Socket(other), SERVER, server_side=True)
    one.close()
    async with server:
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="during the TLS handshake"):
            await server.do_handshake()


async def test_a_changed_byte_of_a_record_breaks_the_stream() -> None:
    async with connected() as (client, server):
        client.write_now([b"to be changed"])
        record = memoryview(bytearray(1000))
        n = server.transport.read_now(record)
        assert n is not None
        record[n - 1] ^= 1
        server._incoming.write(record[:n])
        with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
            server.read_now(memoryview(bytearray(100)))


async def test_it_works_with_trios_own_tls() -> None:
    one, other = socket.socketpair()
    client = trio.SSLStream(Socket(one), CLIENT, server_hostname="localhost", https_compatible=True)
    server = TlsStream(Socket(other), SERVER, server_side=True)
    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"question")
        with trio.fail_after(5):
            assert await server.receive_some() == b"question"
            await server.send_all(b"answer")
            assert await client.receive_some() == b"answer"


def behind_bytes(client: TlsStream, what: str) -> None:
    """Send a record, and an end or a broken record in the same flight. The transport stays open."""
    client._tls.write(b"last words")
    flight = client._outgoing.read()
    if what == "an error":
        client._tls.write(b"to be changed")
        broken = bytearray(client._outgoing.read())
        broken[-1] ^= 1
        flight += broken
    else:
        with suppress(ssl.SSLWantReadError):
            client._tls.unwrap()
        flight += client._outgoing.read()
    assert client.transport.write_now([flight]) == len(flight)


@pytest.mark.parametrize("what", ["an end", "an error"])
async def test_what_came_behind_the_bytes_of_a_read_is_not_waited_for(what: str) -> None:
    """A client that sent its last bytes and its close_notify at once stayed connected for as long as TCP did."""
    async with connected() as (client, server):
        behind_bytes(client, what)
        into = memoryview(bytearray(100))
        assert server.read_now(into) == 10
        with trio.fail_after(5):
            with trio.testing.assert_checkpoints():
                await server.wait_readable()
        if what == "an end":
            assert server.read_now(into) == 0
        else:
            with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
                server.read_now(into)


@pytest.mark.parametrize("what", ["an end", "an error"])
async def test_a_websocket_and_an_http_connection_see_what_came_behind_the_bytes_of_a_read(what: str) -> None:
    for make in _websockets_read, _https_read:
        async with connected() as (client, server):
            behind_bytes(client, what)
            read = make(server)
            with trio.fail_after(5):
                assert await read() == b"last words"
                if what == "an end":
                    assert await read() == b""
                else:
                    with pytest.raises(trio.BrokenResourceError, match="BAD_RECORD_MAC"):
                        await read()


def _websockets_read(stream: TlsStream) -> Callable[[], Awaitable[bytes]]:
    source = StreamInput(stream, ReadBuffer())

    async def read() -> bytes:
        return bytes(await source.read(b"") or b"")

    return read


def _https_read(stream: TlsStream) -> Callable[[], Awaitable[bytes]]:
    return ClientStream(stream, memoryview(bytearray(100)), HttpLimits()).read
