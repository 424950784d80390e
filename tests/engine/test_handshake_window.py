"""The window of the handshake: whatever happens while an upgrade is under way is told, and gives back what it took."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio import Engine, EngineConfig, Limits, Listener, ListenerLimits, Ref, open_engine
from iii_trio.core.channel import ChannelEvent
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.testing import cancel_everywhere
from iii_trio.wire import Close, attach_target
from tests.helpers.bare import UPGRADE, Bare, connected, within


async def all_of(near: trio.abc.Stream) -> bytes:
    """What an engine says on a connection until it ends it, or says nothing more for a second."""
    said = bytearray()
    with trio.move_on_after(1):
        try:
            while data := await near.receive_some():
                said += data
        except trio.BrokenResourceError:
            pass
    return bytes(said)


def end_of(said: bytes) -> str | int:
    """How an attach went: refused with a status, `open`, or ended with a Close's code or an abort frame."""
    status = int(said.split()[1])
    if status != 101:
        return f"HTTP {status}"
    frames = said.partition(b"\r\n\r\n")[2]
    if not frames:
        return "open"
    assert frames[0] in (0x88, 0x83), frames
    return int.from_bytes(frames[2:4], "big") if frames[0] == 0x88 else "abort frame"


async def attach_while_ending(engine: Engine, ref: Ref, event: ChannelEvent, passes: int, **headers: str) -> str | int:
    """Attach an end over a socket, and end its channel after so many passes of the scheduler."""
    near, far = trio.testing.memory_stream_pair()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        await near.send_all(UPGRADE.format(target=attach_target(ref), headers=lines).encode())
        for _ in range(passes):
            await trio.lowlevel.checkpoint()
        engine._shell.channel_event(ref.channel_id, event, "it ended meanwhile")
        said = await all_of(near)
        await trio.aclose_forcefully(near)
    return end_of(said)


@pytest.mark.parametrize(
    ("direction", "own", "event", "ends"),
    [
        ("writer", False, ChannelEvent.READER_CANCELLED, {"HTTP 410", Close.READER_CANCELLED}),
        ("writer", True, ChannelEvent.READER_LOST, {"HTTP 410", Close.READER_LOST}),
        ("reader", False, ChannelEvent.WRITER_ABORTED, {"HTTP 410", "abort frame"}),
        ("reader", False, ChannelEvent.WRITER_LOST, {"HTTP 410", "abort frame"}),
        ("reader", True, ChannelEvent.WRITER_ABORTED, {"HTTP 410", Close.ABORTED}),
        ("reader", True, ChannelEvent.WRITER_LOST, {"HTTP 410", Close.WRITER_LOST}),
    ],
)
@within(600)
async def test_a_channel_that_ends_at_any_moment_of_an_attach_never_looks_complete(
    direction: str, own: bool, event: ChannelEvent, ends: set[str | int], autojump_clock: trio.testing.MockClock
) -> None:
    seen = []
    async with open_engine() as engine, engine.open_worker("owner") as owner, connected(engine) as holder:
        session = engine._shell.hub.sessions[(await holder.message())["worker_id"]]
        headers = {"Iii_Session": f"{session.id} {session.channel_secret}"} if own else {}
        for passes in range(40):
            made = await owner.trigger("engine::channels::create", {})
            refs = {name: Ref.from_json(made[name]) for name in ("writer", "reader")}
            other = "reader" if direction == "writer" else "writer"
            # The end that causes the outcome has to be attached.
            async with connected(engine, attach_target(refs[other])):
                seen.append(await attach_while_ending(engine, refs[direction], event, passes, **headers))
    assert set(seen) == ends, seen
    assert seen[0] == "HTTP 410" and seen[-1] != "HTTP 410", "the passes span the whole handshake"


REQUEST = UPGRADE.format(target="/", headers="").encode()


async def connects(engine: Engine, policy: ListenerPolicy | None = None) -> bool:
    """Whether a worker that comes now is let in."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, engine._shell, far, None, policy)
        try:
            return await Bare(near).ask() == 101
        finally:
            await trio.aclose_forcefully(near)


@within(600)
async def test_a_connection_cut_anywhere_in_its_handshake_gives_its_place_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    policy = ListenerPolicy.from_config(Listener(limits=ListenerLimits(sessions=1, connections=1)))
    async with open_engine(EngineConfig(limits=Limits(sessions=1, connections=2))) as engine:
        for passes in range(25):
            for n in (0, 10, len(REQUEST) - 1, len(REQUEST)):
                near, far = trio.testing.memory_stream_pair()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve_stream, engine._shell, far, None, policy)
                    await near.send_all(REQUEST[:n]) if n else None
                    for _ in range(passes):
                        await trio.lowlevel.checkpoint()
                    await trio.aclose_forcefully(near)
        assert await connects(engine, policy)
        assert (engine._shell.arriving, policy.counts.sessions, policy.counts.connections) == (0, 0, 0)


def test_a_connection_cancelled_anywhere_in_its_handshake_gives_its_place_back() -> None:
    async def around(seen: dict[str, object], run: object) -> None:
        policy = ListenerPolicy.from_config(Listener(limits=ListenerLimits(sessions=1, connections=1)))
        async with open_engine(
            EngineConfig(limits=Limits(sessions=1, connections=2), modules={"queue": None})
        ) as engine:
            near, far = trio.testing.memory_stream_pair()
            seen["serve"] = lambda: serve_stream(engine._shell, far, None, policy)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer, near)
                await run()  # type: ignore[operator]
                await trio.aclose_forcefully(near)
            seen["connects"] = await connects(engine, policy)
            seen["held"] = (engine._shell.arriving, policy.counts.sessions, policy.counts.connections)

    async def peer(near: trio.abc.Stream) -> None:
        await near.send_all(REQUEST)
        await all_of(near)
        await trio.aclose_forcefully(near)

    async def subject(seen: dict[str, object]) -> None:
        await seen["serve"]()  # type: ignore[operator]

    def check(seen: dict[str, object]) -> None:
        assert seen["connects"] and seen["held"] == (0, 0, 0)

    assert cancel_everywhere(subject, check, around=around) > 5


@within(600)
async def test_ten_thousand_pings_of_a_peer_that_reads_are_all_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine, "/otel") as bare:
        for n in range(10_000):
            payload = b"%d" % n
            await bare.say(9, payload)
            assert await bare.frame() == (10, payload)
