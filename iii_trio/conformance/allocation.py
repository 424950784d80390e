"""The checks of chapter 1, making a channel."""

from __future__ import annotations

from ..wire import Direction, Ref
from .bench import Bench, NotObservable, expect, soon


async def C1_1_the_ends_connect_in_either_order(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    reader = await bench.attach(reader_ref)
    writer = await bench.attach(writer_ref)
    await writer.send(b"first")
    async with soon("the arrival of an item at a reader that came first"):
        expect(await reader.take(1) == [b"first"], "the reader that came first got something else than was sent")


async def C1_2_the_refs_share_the_id_and_have_different_keys(bench: Bench) -> None:
    writer, reader = await (await bench.session()).create_channel()
    expect(writer.channel_id == reader.channel_id, "the two refs name different channels")
    expect(writer.direction is Direction.WRITE and reader.direction is Direction.READ, "the refs' directions are wrong")
    expect(writer.access_key != reader.access_key, "both refs have the same access key")


async def C1_2_a_key_opens_its_own_direction_only(bench: Bench) -> None:
    writer, reader = await (await bench.session()).create_channel()
    # Both ways round, because an engine may check only one of the directions.
    for key, direction in ((writer.access_key, Direction.READ), (reader.access_key, Direction.WRITE)):
        status = (await bench.claim(Ref(writer.channel_id, key, direction))).status
        expect(status != 101, f"the other end's key opened the {direction} end")


async def C1_3_refs_are_forwarded_untouched(bench: Bench) -> None:
    owner, other = await bench.session(), await bench.session()
    name = f"conformance::{id(bench):x}"
    await other.peer.tell(type="registerfunction", id=name)
    await other.call("engine::workers::list")
    told = await owner.call("engine::channels::create")
    payload = {"deep": [{"ref": told["reader"] | {"extra": 1}}], "n": 1.5, "é": None}
    await owner.begin_call(name, payload)
    got = (await other.hear("invokefunction")).get("data")
    # An engine may add keys of its own at the top, such as who called.
    expect(isinstance(got, dict) and got | payload == got, f"a payload with a ref arrived as {got!r}")


async def C1_4_the_pipe_is_bounded_by_items(bench: Bench) -> None:
    writer_ref, _ = await (await bench.session()).create_channel(buffer_size=4)
    writer = await bench.attach(writer_ref)
    # Writing alone shows nothing, because the sockets on the way take some bytes too.
    if not await bench.round_trip(writer):
        raise NotObservable("the engine does not answer a writer's pings, by which it is seen what it has read")
    taken = 0
    item = bytes(200_000)  # a few fill any read-ahead (clause C3.2), and four stay below the bound of bytes
    while taken < 100:
        # An engine that reads no further is waiting for room in the pipe.
        if not await bench.takes(writer, item):
            break
        taken += 1
    expect(taken <= 8, f"without a reader it took {taken} items into a pipe of 4")
    expect(taken >= 3, f"it took only {taken} items into a pipe of 4")


async def C1_4_a_message_larger_than_the_bound_passes(bench: Bench) -> None:
    writer, reader = await bench.pair()
    large = bytes(range(256)) * 12_000
    bench.nursery.start_soon(writer.send, large)
    async with soon("the arrival of a message of 3 MB", 5):
        expect(await reader.take(1) == [large], "a message of 3 MB arrived otherwise than it was sent")


async def C1_6_items_that_arrive_together_are_counted_one_by_one(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel(buffer_size=4)
    writer = await bench.attach(writer_ref)
    if not await bench.round_trip(writer):
        raise NotObservable("the engine does not answer a writer's pings, by which it is seen what it has read")
    items = [f"item {n} ".ljust(4_000, "x") for n in range(100)]  # together more than any read-ahead (clause C3.2)
    # The first ping may be read together with the items; the second is not sent before that.
    went = await bench.takes(writer, *items) and await bench.round_trip(writer)
    expect(not went, "100 items sent at once went into a pipe of 4")
    reader = await bench.attach(reader_ref)
    async with soon("the arrival of 100 items", 5):
        expect(await reader.take(100) == items, "100 items sent at once did not arrive as they were sent")


CHECKS = (
    C1_1_the_ends_connect_in_either_order,
    C1_2_the_refs_share_the_id_and_have_different_keys,
    C1_2_a_key_opens_its_own_direction_only,
    C1_3_refs_are_forwarded_untouched,
    C1_4_the_pipe_is_bounded_by_items,
    C1_4_a_message_larger_than_the_bound_passes,
    C1_6_items_that_arrive_together_are_counted_one_by_one,
)
