"""The checks of chapter 2, attaching the ends."""

from __future__ import annotations

import uuid

import trio

from ..transport.frames import PING
from ..wire import Direction, Outcome, Ref
from .bench import Bench, expect, soon


async def C2_1_a_second_claimant_is_refused_with_409(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    # An engine may guard one end only, so both are claimed a second time.
    for ref in (reader_ref, writer_ref):
        status = (await bench.claim(ref)).status
        expect(status == 409, f"a second claimant of the {ref.direction} end was answered with {status}")
    await writer.send("still here")
    async with soon("the arrival of an item behind two refused claimants"):
        expect(await reader.take(1) == ["still here"], "the refused claimants disturbed the channel")


async def C2_1_unknown_ids_and_wrong_keys_are_404(bench: Bench) -> None:
    writer, _ = await (await bench.session()).create_channel()
    for what, ref in (
        ("an unknown id", Ref(str(uuid.uuid4()), writer.access_key, Direction.WRITE)),
        ("a wrong key", Ref(writer.channel_id, str(uuid.uuid4()), Direction.WRITE)),
    ):
        status = (await bench.claim(ref)).status
        expect(status == 404, f"{what} was answered with {status}")


async def C2_1_a_key_used_for_the_other_direction_is_403(bench: Bench) -> None:
    writer, reader = await (await bench.session()).create_channel()
    for key, direction in ((writer.access_key, Direction.READ), (reader.access_key, Direction.WRITE)):
        status = (await bench.claim(Ref(writer.channel_id, key, direction))).status
        expect(status == 403, f"the other end's key, used to {direction}, was answered with {status}")


async def C2_1_a_late_comer_is_told_410(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    await writer.close()
    await bench.last_seen(reader, "the end of an empty stream")
    late = await bench.claim(reader_ref)
    expect(late.status == 410, f"whoever came after the end was answered with {late.status}")
    expect(Outcome.COMPLETED.encode() in late.body, f"whoever came after the end was told {late.body[:100]!r}")


async def C2_2_what_is_written_before_the_reader_comes_is_delivered_first(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.session()).create_channel()
    writer = await bench.attach(writer_ref)
    await writer.send("one", b"two")
    await bench.round_trip(writer)
    reader = await bench.attach(reader_ref)
    await writer.send("three")
    async with soon("the arrival of what was written before"):
        got = await reader.take(3)
    expect(got == ["one", b"two", "three"], f"one, two (before the reader came) and three arrived as {got}")


async def C2_3_a_waiting_end_is_told_that_its_channel_expired(bench: Bench) -> None:
    owner = await bench.aware()
    for side in (0, 1):
        ref = (await owner.create_channel(expires_after_ms=200))[side]
        end = await bench.attach(ref)
        seen = await bench.last_seen(end, f"the expiry, after 0.2 s, of a channel with only its {ref.direction} end", 3)
        expect(not seen.looks_complete, f"the {ref.direction} end whose other never came saw {seen}")


async def C2_3_pings_are_no_activity(bench: Bench) -> None:
    writer_ref, _ = await (await bench.aware()).create_channel(expires_after_ms=300)
    writer = await bench.attach(writer_ref)

    async def ping() -> None:
        try:
            while True:
                await writer.say(PING)
                await trio.sleep(0.05)
        # The expiry ends this connection, which is the very thing the check waits for.
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    bench.nursery.start_soon(ping)
    await bench.last_seen(writer, "the expiry, after 0.3 s, of a channel whose writer only pings", 3)


async def C2_3_passing_messages_are_activity(bench: Bench) -> None:
    writer_ref, reader_ref = await (await bench.aware()).create_channel(expires_after_ms=600)
    writer = await bench.attach(writer_ref)
    for _ in range(4):
        await trio.sleep(0.25)
        await writer.send("busy")
    reader = await bench.attach(reader_ref)
    async with soon("the arrival of what a busy writer sent"):
        expect(
            await reader.take(4) == ["busy"] * 4, "a busy writer, whose channel was to expire after 0.6 s, lost items"
        )


async def C2_3_a_channel_with_both_ends_does_not_expire(bench: Bench) -> None:
    owner = await bench.aware()
    writer_ref, reader_ref = await owner.create_channel(expires_after_ms=200)
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    await trio.sleep(0.6)
    await writer.send("late")
    async with soon("the arrival of an item after 0.6 s of silence"):
        expect(await reader.take(1) == ["late"], "a channel with both ends, made to expire after 0.2 s, did so")


async def C2_4_a_writer_that_writes_nothing_delivers_a_clean_empty_stream(bench: Bench) -> None:
    for early in (False, True):
        writer_ref, reader_ref = await (await bench.session()).create_channel()
        writer = await bench.attach(writer_ref)
        # An engine may treat a stream that ended before its reader came in another way, so both are tried.
        if early:
            await writer.close()
            await bench.last_seen(writer, "the answer to a writer's Close")
        reader = await bench.attach(reader_ref)
        if not early:
            await writer.close()
        seen = await bench.last_seen(reader, "the end of an empty stream")
        expect(not seen.messages and seen.code == 1000, f"the reader of an empty stream saw {seen}")


CHECKS = (
    C2_1_a_second_claimant_is_refused_with_409,
    C2_1_unknown_ids_and_wrong_keys_are_404,
    C2_1_a_key_used_for_the_other_direction_is_403,
    C2_1_a_late_comer_is_told_410,
    C2_2_what_is_written_before_the_reader_comes_is_delivered_first,
    C2_3_a_waiting_end_is_told_that_its_channel_expired,
    C2_3_pings_are_no_activity,
    C2_3_passing_messages_are_activity,
    C2_3_a_channel_with_both_ends_does_not_expire,
    C2_4_a_writer_that_writes_nothing_delivers_a_clean_empty_stream,
)
