"""Chapters 5 to 8, as far as the wire shows them: cancelled calls, ends without extensions, introspection."""

from __future__ import annotations

import uuid
from typing import Any, Final

import trio

from ..wire import FEATURE, Close, Outcome
from .bench import QUIET, Bench, NotObservable, Session, expect, soon
from .peer import Peer, Seen, close_of

_STANDARD: Final = {
    "workerregistered", "registrationrejected", "registerfunction", "unregisterfunction", "registertrigger",
    "unregistertrigger", "registertriggertype", "unregistertriggertype", "triggerregistrationresult", "registerservice",
    "invokefunction", "invocationresult", "ping", "pong",
}  # fmt: skip


async def _called(caller: Session, callee: Session) -> dict[str, Any]:
    """Start a call and return the message that its callee received."""
    name = f"conformance::{uuid.uuid4().hex}"
    await callee.peer.tell(type="registerfunction", id=name)
    await callee.call("engine::workers::list")
    await caller.begin_call(name, {})
    return await callee.hear("invokefunction")


async def C5_5_when_the_caller_is_gone_the_handler_is_cancelled(bench: Bench) -> None:
    caller, callee = await bench.aware(), await bench.aware()
    call = await _called(caller, callee)
    await caller.peer.drop()
    told = await callee.hear("cancelinvocation")
    expect(told.get("invocation_id") == call["invocation_id"], f"another call was cancelled: {told}")


async def C5_5_a_late_answer_is_ignored(bench: Bench) -> None:
    caller, callee = await bench.session(), await bench.session()
    call = await _called(caller, callee)
    await caller.peer.drop()
    await trio.sleep(QUIET)
    # The second answer has no call at all, and must not end the session either.
    for _ in range(2):
        await callee.peer.tell(
            type="invocationresult", result=1, **{k: call[k] for k in ("invocation_id", "function_id")}
        )
    await callee.call("engine::workers::list")


async def C6_2_an_abort_is_loud_to_an_unaware_reader(bench: Bench) -> None:
    writer, reader = await bench.pair()
    await writer.send("some")
    async with soon("the arrival of an item"):
        await reader.take(1)
    await writer.close(4001, "no more")
    async with soon("the end of an aborted stream"):
        first = await reader.next_frame()
        second = await reader.next_frame() if first is not None else None
    saw = (
        f"an unaware reader of an aborted stream saw {first}, then {second}, then the end by {reader.end or 'nothing'}"
    )
    expect(first is not None and first.opcode == 3 and not first.payload, saw)
    expect(second is None and reader.end == "fin", saw)


async def C6_2_an_unaware_writer_is_told_in_the_4000_range(bench: Bench) -> None:
    writer, reader = await bench.pair()
    await reader.reset()
    seen = await bench.last_seen(writer, "the end of a writer whose reader is gone")
    expect(seen.code is not None and 4000 <= seen.code < 5000, f"an unaware writer whose reader was gone saw {seen}")


async def C6_4_an_end_that_names_no_session_is_held_by_nobody(bench: Bench) -> None:
    owner, other = await bench.session(), await bench.session()
    writer_ref, reader_ref = await owner.create_channel()
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    await other.peer.drop()
    await trio.sleep(QUIET)
    await writer.send("still here")
    async with soon("an item of ends that nobody holds"):
        expect(await reader.take(1) == ["still here"], "another session's end ended ends that nobody held")


async def _ends(bench: Bench) -> tuple[Session, Session, list[Peer]]:
    owner, holder = await bench.aware(), await bench.aware()
    return owner, holder, list(await bench.held_pair(owner, holder))


def _check_close(seen: Seen, outcome: Outcome, code: Close, who: str) -> None:
    expect(seen.code == code, f"where the outcome was {outcome}, {who} saw {seen}; {int(code)} was due")


async def C6_3_an_aware_end_is_told_the_outcome_and_the_reason(bench: Bench) -> None:
    _, _, (writer, reader) = await _ends(bench)
    await writer.close(Close.ABORTED, "had enough")
    seen = await bench.last_seen(reader, "the end of an aborted stream")
    _check_close(seen, Outcome.ABORTED, Close.ABORTED, "its aware reader")
    assert seen.close is not None
    expect("had enough" in close_of(seen.close)[1], f"the writer's reason did not arrive: {seen}")


async def C7_1_open_channels_are_shown(bench: Bench) -> None:
    owner = await bench.session()
    writer_ref, _ = await owner.create_channel(buffer_size=5)
    writer = await bench.attach(writer_ref)
    await writer.send("one", "two")
    await bench.round_trip(writer)
    listed = await owner.call("engine::channels::list")
    rows = [row for row in listed["channels"] if row["id"] == writer_ref.channel_id]
    expect(len(rows) == 1, f"an open channel is listed {len(rows)} times")
    expect(writer_ref.access_key not in str(listed), "the list shows an access key")
    expect(rows[0].get("items_waiting") == 2, f"two items wait, the list says {rows[0].get('items_waiting')}")


async def C7_2_what_the_engine_cancels_has_a_reason(bench: Bench) -> None:
    writer, reader = await bench.pair()
    await reader.reset()
    seen = await bench.last_seen(writer, "the end of a writer whose reader is gone")
    reason = close_of(seen.close)[1] if seen.close else ""
    expect(reason, f"a writer whose reader was gone saw {seen}")


async def C8_1_who_has_announced_nothing_is_sent_nothing_of_ours(bench: Bench) -> None:
    await bench.aware()
    plain, caller = await bench.session(), await bench.session()
    writer_ref, reader_ref = await plain.create_channel()
    writer, reader = await bench.attach(writer_ref), await bench.attach(reader_ref)
    await writer.close()
    await bench.last_seen(reader, "the end of a stream")
    await _called(caller, plain)
    await caller.peer.drop()
    await trio.sleep(QUIET)
    await plain.call("engine::workers::list")
    others = {str(said.get("type")) for said in plain.heard} - _STANDARD
    expect(not others, f"a worker that had not announced {FEATURE} was sent {', '.join(sorted(others))}")


async def C8_2_a_wrong_secret_is_403(bench: Bench) -> None:
    session = await bench.aware()
    writer_ref, _ = await session.create_channel()
    status = (await bench.claim(writer_ref, {"Iii-Session": f"{session.hello['worker_id']} {uuid.uuid4()}"})).status
    expect(status == 403, f"a wrong secret was answered with {status}")
    expect(
        (await bench.claim(writer_ref, session.identity)).status == 101, "a right secret was refused after a wrong one"
    )


async def C8_3_a_holder_is_told_the_outcome(bench: Bench) -> None:
    owner, holder, (writer, reader) = await _ends(bench)
    await writer.close()
    await bench.last_seen(reader, "the end of a stream")
    # The owner and the holder are sessions of their own here, and each is due the outcome (clause C8.3).
    for session in (owner, holder):
        told = await session.hear("channelended")
        expect(told.get("outcome") == Outcome.COMPLETED, f"of a stream read to its end a session was told {told}")


async def C8_4_the_bound_of_bytes_can_be_set(bench: Bench) -> None:
    owner = await bench.aware()
    writer_ref, _ = await owner.create_channel(max_bytes=400_000, expires_after_ms=None)
    writer = await bench.attach(writer_ref)
    if not await bench.round_trip(writer):
        raise NotObservable("the engine does not answer a writer's pings, by which it is seen what it has read")
    taken = 0
    while taken < 20:
        if not await bench.takes(writer, bytes(200_000)):
            break
        taken += 1
    expect(1 <= taken <= 4, f"into a pipe of 400,000 bytes it took {taken} items of 200,000")


async def C8_5_each_outcome_has_its_close_code(bench: Bench) -> None:
    owner, holder, (writer, reader) = await _ends(bench)
    await writer.reset()
    seen = await bench.last_seen(reader, "the end of a stream whose writer is gone")
    _check_close(seen, Outcome.WRITER_LOST, Close.WRITER_LOST, "the reader")
    writer, reader = await bench.held_pair(owner, holder)
    await reader.close(Close.READER_CANCELLED, "enough")
    seen = await bench.last_seen(writer, "the end of a writer whose reader has closed")
    _check_close(seen, Outcome.READER_CANCELLED, Close.READER_CANCELLED, "the writer")
    writer, reader = await bench.held_pair(owner, holder)
    await reader.reset()
    seen = await bench.last_seen(writer, "the end of a writer whose reader is gone")
    _check_close(seen, Outcome.READER_LOST, Close.READER_LOST, "the writer")
    writer_ref, _ = await owner.create_channel(expires_after_ms=100)
    writer = await bench.attach(writer_ref, holder.identity)
    seen = await bench.last_seen(writer, "the expiry of a channel after 0.1 s", 3)
    _check_close(seen, Outcome.EXPIRED, Close.EXPIRED, "the writer")
    writer, reader = await bench.held_pair(owner, holder)
    await owner.peer.drop()
    for name, end in (("writer", writer), ("reader", reader)):
        seen = await bench.last_seen(end, f"the end for the {name} of a channel whose owner is gone")
        _check_close(seen, Outcome.OWNER_LOST, Close.OWNER_LOST, f"the {name}")


CHECKS = (
    C5_5_when_the_caller_is_gone_the_handler_is_cancelled,
    C5_5_a_late_answer_is_ignored,
    C6_2_an_abort_is_loud_to_an_unaware_reader,
    C6_2_an_unaware_writer_is_told_in_the_4000_range,
    C6_3_an_aware_end_is_told_the_outcome_and_the_reason,
    C6_4_an_end_that_names_no_session_is_held_by_nobody,
    C7_1_open_channels_are_shown,
    C7_2_what_the_engine_cancels_has_a_reason,
    C8_1_who_has_announced_nothing_is_sent_nothing_of_ours,
    C8_2_a_wrong_secret_is_403,
    C8_3_a_holder_is_told_the_outcome,
    C8_4_the_bound_of_bytes_can_be_set,
    C8_5_each_outcome_has_its_close_code,
)
