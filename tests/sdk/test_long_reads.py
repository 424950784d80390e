"""Streams that last longer than an SDK's own keepalive: 20 s to its ping, and 20 s for the pong, or 60 s of silence.

One test for all, as each of them takes a minute of real time.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

import iii_trio

from .conftest import KINDS, Mesh
from .content import pieces, sha256_of_first

pytestmark = [pytest.mark.sdk, pytest.mark.slow]

MIB = 1 << 20
LONG_SECONDS = 62.0
TOO_LONG_SECONDS = 85.0


async def test_a_reader_that_keeps_up_reads_for_a_minute_and_one_that_does_not_is_never_said_to_have_read(
    mesh: Mesh,
) -> None:
    peers = {"busy": "python", "lagging": "python", "stalled": "python"}
    await mesh.start(**peers, **{f"steady_{kind}": kind for kind in KINDS})
    async with trio.open_nursery() as nursery:
        for kind in KINDS:
            nursery.start_soon(read_a_quiet_stream, mesh, f"steady_{kind}")
        nursery.start_soon(read_a_full_stream, mesh)
        nursery.start_soon(lag_behind, mesh)
        nursery.start_soon(write_to_nobody_for_long, mesh)


async def read_a_quiet_stream(mesh: Mesh, reader: str) -> None:
    """An item now and then: the reader's pings are answered, and it gets everything. So do its worker socket's, on which
    nothing else comes meanwhile: it is never given up."""
    answer: dict[str, Any] = {}
    before = await mesh.call("engine::workers::info", {"name": reader})
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def read() -> None:
            answer.update(await mesh.call(f"{reader}::read", {"reader": channel.reader_ref}, timeout=TOO_LONG_SECONDS))

        nursery.start_soon(read)
        items = list(pieces(100_000, 1000))
        for item in items:
            await channel.writer.send(item)
            await trio.sleep(LONG_SECONDS / len(items))
        await channel.writer.aclose()
    assert answer["sha256"] == sha256_of_first(100_000)
    assert answer["error"] is None
    assert await mesh.outcome(channel.id) == "completed"
    after = await mesh.call("engine::workers::info", {"name": reader})
    assert after["worker"]["id"] == before["worker"]["id"]


async def read_a_full_stream(mesh: Mesh) -> None:
    """More than the reader takes, all the time: pongs come beside the data, and it gets everything."""
    answer: dict[str, Any] = {}
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def read() -> None:
            payload = {"reader": channel.reader_ref, "each_seconds": 0.02}
            answer.update(await mesh.call("busy::read", payload, timeout=TOO_LONG_SECONDS))

        nursery.start_soon(read)
        began, total = trio.current_time(), 0
        for item in pieces(1 << 40, 65_536):
            await channel.writer.send(item)
            total += len(item)
            if trio.current_time() > began + LONG_SECONDS - 10:
                break
        await channel.writer.aclose()
    assert answer["bytes"] == total
    assert answer["sha256"] == sha256_of_first(total)
    assert await mesh.outcome(channel.id) == "completed"


async def lag_behind(mesh: Mesh) -> None:
    """The reader stops taking; its SDK gives up on the connection. The writer is told; the stream is not complete."""
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def read() -> None:
            payload = {"reader": channel.reader_ref, "pause_after": 1, "pause_seconds": LONG_SECONDS}
            answer = await mesh.call("lagging::read", payload, timeout=TOO_LONG_SECONDS)
            assert answer["sha256"] == sha256_of_first(answer["bytes"])

        nursery.start_soon(read)
        with trio.fail_after(TOO_LONG_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            for item in pieces(1 << 40, 65_536):
                await channel.writer.send(item)
    assert caught.value.outcome in ("reader_cancelled", "reader_lost", "aborted")
    assert await mesh.outcome(channel.id) == caught.value.outcome


async def write_to_nobody_for_long(mesh: Mesh) -> None:
    """Nobody takes what the SDK writes, for longer than its patience. If it gave up, who then reads is told so.

    Whether it does is a matter of the WebSocket library below it (17.4 waits on).
    """
    wrote: dict[str, Any] = {}
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def write() -> None:
            payload = {"writer": channel.writer_ref, "total": 50 * MIB}
            wrote.update(await mesh.call("stalled::write", payload, timeout=TOO_LONG_SECONDS))

        nursery.start_soon(write)
        await trio.sleep(LONG_SECONDS - 10)
        whole, outcome = bytearray(), "completed"
        with trio.fail_after(TOO_LONG_SECONDS):
            try:
                async for item in channel.reader.chunks():
                    whole += item
            except iii_trio.ChannelBroken as error:
                outcome = error.outcome
    assert whole == b"".join(pieces(len(whole), MIB))
    if wrote.get("error") is None:
        assert (len(whole), outcome) == (50 * MIB, "completed")
    else:
        assert outcome in ("aborted", "writer_lost")
    assert await mesh.outcome(channel.id) == outcome
