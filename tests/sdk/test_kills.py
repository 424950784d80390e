"""SIGKILL, of whoever holds an end or owns the channel: everyone who can hear it is told, and nobody takes a part
for a whole.

The engine's own record of the outcome is exact in each case. Where an SDK has no ear for it (clause C6.1) it is all
that can be asserted.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

import iii_trio

from .conftest import EACH_KIND, EACH_SDK, HOW_AN_ABORT_SOUNDS, KINDS, PYTHONS, STEP_SECONDS, Mesh, needs
from .content import pieces, sha256_of_first

pytestmark = pytest.mark.sdk

MIB = 1 << 20
WHOLE = 200 * MIB
AT_ONCE_SECONDS = 2.0
"""What "at once" may take on a busy machine: far less than any timer that could have told instead."""


async def ask_in_vain(mesh: Mesh, function_id: str, payload: dict[str, Any]) -> None:
    """A call whose callee will be killed."""
    with pytest.raises(iii_trio.CallError, match="invocation_stopped"):
        await mesh.call(function_id, payload)


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_our_reader_is_told_of_the_death_of_a_silent_writer(mesh: Mesh, kind: str) -> None:
    await mesh.start(writer=kind)
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:
        payload = {"writer": channel.writer_ref, "total": 3 * MIB, "hold": True}
        nursery.start_soon(ask_in_vain, mesh, "writer::write", payload)
        read = 0
        with trio.fail_after(STEP_SECONDS):
            while read < 3 * MIB:
                read += len(await channel.reader.receive())
            await mesh.peers["writer"].kill()
        with trio.fail_after(AT_ONCE_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            await channel.reader.receive()
        assert caught.value.outcome == "writer_lost"
    assert await mesh.outcome(channel.id) == "writer_lost"


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_our_reader_is_told_of_the_death_of_a_busy_writer_and_has_a_prefix(mesh: Mesh, kind: str) -> None:
    await mesh.start(writer=kind)
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:
        payload = {"writer": channel.writer_ref, "total": WHOLE}
        nursery.start_soon(ask_in_vain, mesh, "writer::write", payload)
        whole = bytearray()
        with trio.fail_after(STEP_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            async for item in channel.reader.chunks():
                whole += item
                if len(whole) >= MIB and mesh.peers["writer"].process.returncode is None:
                    await mesh.peers["writer"].kill()
        assert caught.value.outcome == "writer_lost"
        assert whole == b"".join(pieces(len(whole), MIB))
    assert await mesh.outcome(channel.id) == "writer_lost"


@pytest.mark.parametrize("writer", EACH_KIND)
async def test_the_death_of_a_writer_is_told_to_every_reader_that_can_hear_it(mesh: Mesh, writer: str) -> None:
    """One writer dies with three streams, one to a reader of each kind."""
    await mesh.start(writer=writer, **{f"reader_{kind}": kind for kind in KINDS})
    answers: dict[str, Any] = {}
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        channels = {kind: await stack.enter_async_context(mesh.app.create_channel()) for kind in KINDS}

        async def read(kind: str) -> None:
            answers[kind] = await mesh.call(f"reader_{kind}::read", {"reader": channels[kind].reader_ref})

        for kind, channel in channels.items():
            payload = {"writer": channel.writer_ref, "total": MIB, "hold": True}
            nursery.start_soon(ask_in_vain, mesh, "writer::write", payload)
            nursery.start_soon(read, kind)
        with trio.fail_after(STEP_SECONDS):
            for kind in KINDS:
                await mesh.peers[f"reader_{kind}"].event("read", at_least=MIB)
            await mesh.peers["writer"].kill()
    for kind, channel in channels.items():
        assert await mesh.outcome(channel.id) == "writer_lost"
        assert answers[kind]["bytes"] == MIB
    assert answers["ours"]["error"]["code"] == "writer_lost"
    for kind in {*KINDS} & {*HOW_AN_ABORT_SOUNDS}:
        assert HOW_AN_ABORT_SOUNDS[kind] in answers[kind]["error"].values()
    for kind in {*KINDS} & {*PYTHONS}:
        assert answers[kind]["error"] is None  # for Python's SDK any end is the end (clause C6.1)


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_our_silent_writer_is_told_at_once_of_the_death_of_its_reader(mesh: Mesh, kind: str) -> None:
    await mesh.start(reader=kind)
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:
        nursery.start_soon(ask_in_vain, mesh, "reader::read", {"reader": channel.reader_ref})
        await channel.writer.send(b"some")
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["reader"].event("read")
            await mesh.peers["reader"].kill()
        with trio.fail_after(AT_ONCE_SECONDS):
            assert (await channel.writer.wait_outcome()).outcome == "reader_lost"
        with trio.fail_after(AT_ONCE_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            while True:  # what it is told came by another socket: this one may take an item yet
                await channel.writer.send(b"more")
        assert caught.value.outcome == "reader_lost"
    assert await mesh.outcome(channel.id) == "reader_lost"


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_our_blocked_writer_is_told_at_once_of_the_death_of_its_reader(mesh: Mesh, kind: str) -> None:
    await mesh.start(reader=kind)
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:
        payload = {"reader": channel.reader_ref, "stop_after": 1, "hold": True}
        nursery.start_soon(ask_in_vain, mesh, "reader::read", payload)
        with trio.fail_after(STEP_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            while True:
                with trio.move_on_after(0.3) as patience:
                    await channel.writer.send(b"x" * 65_536)
                if patience.cancelled_caught:  # every buffer on the way is full
                    break
            nursery.start_soon(mesh.peers["reader"].kill)
            with trio.fail_after(AT_ONCE_SECONDS):
                while True:
                    await channel.writer.send(b"x" * 65_536)
        assert caught.value.outcome == "reader_lost"
    assert await mesh.outcome(channel.id) == "reader_lost"


@pytest.mark.parametrize("reader", EACH_KIND)
async def test_the_death_of_a_reader_stops_every_writer(mesh: Mesh, reader: str) -> None:
    """One reader dies with three streams, one from a writer of each kind."""
    await mesh.start(reader=reader, **{f"writer_{kind}": kind for kind in KINDS})
    answers: dict[str, Any] = {}
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        channels = {kind: await stack.enter_async_context(mesh.app.create_channel()) for kind in KINDS}

        async def write(kind: str) -> None:
            payload = {"writer": channels[kind].writer_ref, "total": WHOLE}
            answers[kind] = await mesh.call(f"writer_{kind}::write", payload)

        for kind, channel in channels.items():
            payload = {"reader": channel.reader_ref, "stop_after": MIB, "hold": True}
            nursery.start_soon(ask_in_vain, mesh, "reader::read", payload)
            nursery.start_soon(write, kind)
        with trio.fail_after(STEP_SECONDS):
            for kind in KINDS:
                await mesh.peers[f"writer_{kind}"].event("wrote", at_least=MIB)
            await mesh.peers["reader"].event("read", at_least=MIB)
            await mesh.peers["reader"].kill()
    for kind, channel in channels.items():
        assert await mesh.outcome(channel.id) == "reader_lost"
        assert answers[kind].get("error") is not None, kind
        assert answers[kind]["bytes"] < WHOLE, kind
    assert answers["ours"]["error"]["code"] == "reader_lost"


@pytest.mark.parametrize("owner", EACH_KIND)
async def test_our_reader_is_told_when_the_writer_dies_that_also_owns_the_channel(mesh: Mesh, owner: str) -> None:
    await mesh.start(owner=owner)
    told: list[str] = []
    ids: list[str] = []
    half_way = trio.Event()

    @mesh.app.function("app::read")
    async def read(reader: iii_trio.ChannelReader) -> None:
        ids.append(reader.channel_id)
        read = 0
        try:
            async for item in reader.chunks():
                read += len(item)
                if read >= MIB:
                    half_way.set()
            told.append("the clean end")
        except iii_trio.ChannelBroken as error:
            told.append(error.outcome)
            raise
        except trio.Cancelled:  # its caller is gone, too, which may be heard first
            told.append("cancelled")
            raise

    async with trio.open_nursery() as nursery:
        payload = {"function_id": "app::read", "payload": {}, "total": MIB, "hold": True}
        nursery.start_soon(ask_in_vain, mesh, "owner::create_and_write", payload)
        with trio.fail_after(STEP_SECONDS):
            await half_way.wait()
            await mesh.peers["owner"].kill()
            assert await mesh.outcome(ids[0]) in ("owner_lost", "writer_lost")
            await mesh.until(lambda: told, "what our reader was told")
    assert told[0] in ("owner_lost", "writer_lost", "cancelled")


@pytest.mark.parametrize("owner", EACH_KIND)
async def test_our_writer_is_told_when_the_reader_dies_that_also_owns_the_channel(mesh: Mesh, owner: str) -> None:
    await mesh.start(owner=owner)
    told: list[str] = []
    ids: list[str] = []

    @mesh.app.function("app::write")
    async def write(writer: iii_trio.ChannelWriter) -> None:
        ids.append(writer.channel_id)
        try:
            while True:
                await writer.send(b"x" * 65_536)
        except iii_trio.ChannelBroken as error:
            told.append(error.outcome)
            raise
        except trio.Cancelled:
            told.append("cancelled")
            raise

    async with trio.open_nursery() as nursery:
        payload = {"function_id": "app::write", "payload": {}}
        nursery.start_soon(ask_in_vain, mesh, "owner::create_and_read", payload)
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["owner"].event("read", at_least=MIB)
            await mesh.peers["owner"].kill()
            assert await mesh.outcome(ids[0]) in ("owner_lost", "reader_lost")
            await mesh.until(lambda: told, "what our writer was told")
    assert told[0] in ("owner_lost", "reader_lost", "cancelled")


@pytest.mark.parametrize("owner", EACH_KIND)
@pytest.mark.parametrize("reader", EACH_SDK)
async def test_C4_5_both_ends_are_told_when_the_owner_dies_that_uses_neither(
    mesh: Mesh, owner: str, reader: str
) -> None:
    await mesh.start(owner=owner, reader=reader)
    created = await mesh.call("owner::call", {"function_id": "engine::channels::create", "payload": {}})
    writer = mesh.app.open_writer(created["result"]["writer"])
    answer: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            answer.update(await mesh.call("reader::read", {"reader": created["result"]["reader"]}))

        nursery.start_soon(read)
        await writer.send(b"some")
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["reader"].event("read")
            await mesh.peers["owner"].kill()
            assert await mesh.outcome(writer.channel_id) == "owner_lost"
        with trio.fail_after(AT_ONCE_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            while True:
                await writer.send(b"more")
        assert caught.value.outcome == "owner_lost"
    assert answer["bytes"] >= 4
    assert reader in PYTHONS or answer["error"] is not None


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        ("ours", "python"),
        pytest.param("python", "node", marks=needs("node")),
        pytest.param("node", "python", marks=needs("node")),
        pytest.param("rust", "old_python", marks=[needs("rust"), needs("old_python")]),
        pytest.param("old_python", "rust", marks=[needs("rust"), needs("old_python")]),
    ],
)
async def test_C4_5_a_stream_that_was_finished_outlives_its_owner_and_writer(
    mesh: Mesh, writer: str, reader: str
) -> None:
    """The writer has closed cleanly, and only then does it die: the reader, who comes later, gets everything."""
    await mesh.start(writer=writer, reader=reader)
    created = await mesh.call("writer::call", {"function_id": "engine::channels::create", "payload": {}})
    wrote = await mesh.call("writer::write", {"writer": created["result"]["writer"], "total": 500_000})
    await mesh.until(lambda: mesh.engine.channels()[0].phase == "sealed", "the writer's clean close")
    await mesh.peers["writer"].kill()
    await mesh.until(lambda: mesh.engine.statistics().sessions == 2, "the end of the writer's session")
    read = await mesh.call("reader::read", {"reader": created["result"]["reader"]})
    assert read["sha256"] == wrote["sha256"] == sha256_of_first(500_000)
    assert read["error"] is None
    assert await mesh.outcome(created["result"]["reader"]["channel_id"]) == "completed"
