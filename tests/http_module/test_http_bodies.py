"""Counted bodies: what is behind the head goes into the channel without a parser."""

from __future__ import annotations

from typing import Any, Final

import h11
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.lowlevel import open_channels, send_now
from iii_trio.transport.pipe import as_batch
from iii_trio.triggers.http import HttpConfig, HttpLimits

from .at_once import connect
from .http_world import HttpWorld, http_world

Clock = trio.testing.MockClock
BODY: Final = bytes(range(256)) * 3
END: Final = h11.EndOfMessage()
NEXT: Final = b"GET /next HTTP/1.1\r\nHost: here\r\n\r\n"


def h11_request(method: str) -> h11.Request:
    """Return a request that the client's h11 is to think was sent."""
    return h11.Request(method=method, target="/", headers=[("Host", "here")])


async def offer(world: HttpWorld) -> list[bytes]:
    """Serve an upload and a small route; return the pieces that the upload gets."""
    pieces: list[bytes] = []

    @world.worker.function("up")
    async def up(request_body: iii_trio.ChannelReader) -> dict[str, Any]:
        async for chunk in request_body.chunks():
            pieces.append(chunk)
        return {"body": len(b"".join(pieces))}

    @world.worker.function("next")
    async def after() -> dict[str, Any]:
        return {"body": "next"}

    await world.route("up", "/up", "POST")
    await world.route("next", "/next")
    return pieces


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("size", [1, 7, 100, 768, 10_000])
async def test_H12_a_request_behind_a_counted_body_is_no_part_of_it(size: int, at_once: bool) -> None:
    """The body was read up to what the client had sent, and not up to its length."""
    head = b"POST /up HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    sent = head + BODY + NEXT
    async with http_world() as world:
        pieces = await offer(world)
        client, _ = connect(world, at_once=at_once)
        for at in range(0, len(sent), size):
            await client.send(sent[at : at + size])
            await trio.testing.wait_all_tasks_blocked()
        for method in ("POST", "GET"):
            client._h11.send(h11_request(method))
            client._h11.send(END)
            reply = await client.reply()
            assert (reply.status, reply.body) == (200, b"768" if method == "POST" else b'"next"')
        assert b"".join(pieces) == BODY


@pytest.mark.parametrize("at_once", [True, False])
async def test_H3_a_client_that_leaves_within_a_counted_body_breaks_its_channel(at_once: bool) -> None:
    seen: list[object] = []
    async with http_world() as world:

        @world.worker.function("up")
        async def up(request_body: iii_trio.ChannelReader) -> None:
            try:
                await request_body.read_all()
            except iii_trio.ChannelBroken as error:
                seen.append(error.reason)
                raise

        await world.route("up", "/up", "POST")
        client, _ = connect(world, at_once=at_once)
        await client.send(b"POST /up HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n")
        for piece in (b"abc", b"def"):
            await client.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["the client left"]


async def test_H10_a_counted_body_that_stops_is_given_up(autojump_clock: Clock) -> None:
    limits = HttpLimits(body_seconds=20)
    async with http_world(HttpConfig(default_timeout=90_000, limits=limits)) as world:
        await offer(world)
        client, _ = connect(world, at_once=True)
        await client.send(b"POST /up HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(15)
        await client.send(b"abc")
        began = trio.current_time()
        client._h11.send(h11_request("POST"))
        assert not (await client.reply()).whole
        assert trio.current_time() - began == pytest.approx(20)


async def test_a_fast_upload_is_read_in_large_pieces_and_a_head_in_small_ones() -> None:
    async with http_world() as world:
        pieces = await offer(world)
        client, stream = connect(world, at_once=True)
        await client.send(b"POST /up HTTP/1.1\r\nHost: here\r\nContent-Length: 600000\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        heads = set(stream.asked)
        stream.asked.clear()
        await client.send(bytes(600_000))
        client._h11.send(h11_request("POST"))
        client._h11.send(END)
        assert (await client.reply()).body == b"600000"
        assert heads <= {65_536, 262_144}
        assert 262_144 in stream.asked
        assert max(map(len, pieces)) == 262_144


async def test_an_item_is_sent_at_once_only_where_it_would_not_wait() -> None:
    async with http_world() as world:
        (channel,) = await open_channels(world.worker, 1)
        # The first use attaches the end, for which a task is started.
        assert not send_now(channel.writer, b"early")
        await channel.writer.send(b"first")
        large = bytes(1024 * 1024)
        assert send_now(channel.writer, large)
        assert not send_now(channel.writer, b"more than the bound")
        assert [await channel.reader.receive(), await channel.reader.receive()] == [b"first", large]
        assert send_now(channel.writer, b"last")
        channel.reader.cancel("enough")
        await trio.testing.wait_all_tasks_blocked()
        assert not send_now(channel.writer, b"late")
        with pytest.raises(iii_trio.ChannelBroken):
            await channel.writer.send(b"late")


def test_a_large_item_is_not_joined_with_the_head_of_its_frame() -> None:
    large = bytes(8192)
    assert as_batch(large).parts[-1] is large
    small = as_batch(b"small")
    assert (len(small.parts), small.items, small.payload) == (1, 1, 5)


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("lines", [("close", "keep-alive"), ("keep-alive", "close"), ("Close", "x")])
async def test_H12_a_client_that_says_close_in_any_line_is_closed(
    size: int, lines: tuple[str, str], autojump_clock: Clock
) -> None:
    async with http_world() as world:

        @world.worker.function("f")
        async def one() -> dict[str, Any]:
            return {"body": 1}

        await world.route("f", "/f", "POST", channels=False)
        client, _ = connect(world)
        said = "".join(f"Connection: {line}\r\n" for line in lines).encode()
        await client.send(b"POST /f HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n" % (said, size) + b"a" * size)
        got = b""
        with trio.fail_after(20):  # an idle connection stays longer
            while data := await client.stream.receive_some():
                got += data
        assert b"connection: close" in got.lower()
