"""C8: what is ours on the wire, and to whom it is sent."""

from __future__ import annotations

import json

import pytest
import trio

from iii_trio.wire import CLOSE_OF, Outcome
from tests.helpers.clause_world import (
    TEXT,
    WEBSOCKET,
    Clock,
    World,
)


async def test_C8_1_the_engine_announces_its_feature_and_a_secret(autojump_clock: Clock, world: World) -> None:
    raw = await world.raw("/")
    ((opcode, _, payload),) = await raw.read_frames(1)
    hello = json.loads(payload)
    assert opcode == TEXT and hello["type"] == "workerregistered"
    assert hello["features"] == ["iii-trio.v1"]
    assert len({hello["worker_id"], hello["reattach_token"], hello["channel_secret"]}) == 3
    await raw.close()
    await raw.read_to_the_end()


async def test_C8_1_a_peer_that_has_not_announced_it_is_sent_nothing_of_ours(
    autojump_clock: Clock, world: World
) -> None:
    unaware = await world.raw("/")
    await unaware.read_frames(1)
    call = {
        "type": "invokefunction",
        "function_id": "engine::channels::create",
        "invocation_id": world.new_id(),
        "data": {},
    }
    await unaware.send(TEXT, json.dumps(call).encode())
    await unaware.read_frames(2)
    refs = json.loads(unaware.frames()[1][2])["result"]
    writer = await world.raw(
        f"/ws/channels/{refs['writer']['channel_id']}?key={refs['writer']['access_key']}&dir=write"
    )
    await writer.close(4001)
    await world.settle()
    assert (await world.outcome())[0] == "aborted"
    await unaware.send(TEXT, b'{"type":"ping"}')
    assert json.loads((await unaware.read_frames(3))[2][2]) == {"type": "pong"}
    assert len(unaware.frames()) == 3
    await unaware.drop()


@pytest.mark.parametrize("which", ["writer", "reader"])
async def test_C8_2_the_header_makes_the_session_the_ends_holder(
    autojump_clock: Clock, world: World, which: str
) -> None:
    owner, holder = await world.worker(), await world.worker()
    wref, rref = await owner.create_channel()
    ref, other_ref = (wref, rref) if which == "writer" else (rref, wref)
    raw = await world.raw(ref, holder.header, ("Iii-Invocation", "the-call"))
    other = await (world.reader if which == "writer" else world.writer)(WEBSOCKET, other_ref, owner)
    (view,) = world.engine.channels()
    assert getattr(view, which) == holder.identity.worker_id
    (channel,) = world.shell.hub.channels
    assert channel.invocations == ["the-call"]
    holder.link.close("went home")
    told = await other.wait_ended()
    assert told.outcome == f"{which}_lost" and holder.identity.worker_id in told.reason
    await raw.read_frames(1)
    assert raw.closes()[0][0] == CLOSE_OF[Outcome(f"{which}_lost")]
    await raw.drop()


async def test_C8_2_the_secret_is_not_the_reattach_token(autojump_clock: Clock, world: World) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel()
    token = world.shell.hub.sessions[owner.identity.worker_id].reattach_token
    assert (await world.raw(wref, ("Iii-Session", f"{owner.identity.worker_id} {token}"))).status == 403


async def test_C8_4_a_channel_may_have_an_expiry_and_a_bound_of_its_own(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, _ = await owner.create_channel(expires_after_ms=2500, max_bytes=5000, buffer_size=1000)
    writer = await world.writer(writing, wref, owner)
    with trio.move_on_after(1):
        for _ in range(1000):
            await writer.put(bytes(1000))
    assert world.engine.channels()[0].bytes_waiting == 5000
    await trio.sleep(1.4)
    assert world.engine.channels()
    await trio.sleep(0.2)
    assert (await world.outcome())[0] == "expired"


@pytest.mark.parametrize(
    "options",
    [
        {"expires_after_ms": 0},
        {"expires_after_ms": -1},
        {"max_bytes": 0},
        {"expires_after_ms": "soon"},
        {"max_bytes": 1.5},
    ],
)
async def test_C8_4_values_that_mean_nothing_are_refused_by_name(
    autojump_clock: Clock, world: World, options: dict[str, object]
) -> None:
    owner = await world.worker()
    answer = await owner.call("engine::channels::create", **options)
    assert answer["code"] == "deserialization_error" and next(iter(options)) in answer["message"]
    assert not world.engine.channels()


def test_C8_5_each_outcome_has_its_close_code() -> None:
    assert {str(outcome): int(code) for outcome, code in CLOSE_OF.items()} == {
        "completed": 1000,
        "aborted": 4001,
        "writer_lost": 4002,
        "reader_cancelled": 4003,
        "reader_lost": 4004,
        "owner_lost": 4005,
        "expired": 4006,
        "engine_closed": 4007,
    }


async def test_C8_5_a_reason_of_any_length_is_cut_between_two_characters(
    autojump_clock: Clock, world: World, writing: str
) -> None:
    owner = await world.worker()
    wref, rref = await owner.create_channel()
    raw = await world.raw(rref, owner.header)
    writer = await world.writer(writing, wref, owner)
    writer.abort("é" * 500)
    await raw.read_frames(1)
    ((code, reason),) = raw.closes()
    assert code == 4001 and reason == "é" * 61
    await raw.drop()
