"""Workers that are silent: asked with pings, and given up once they answer none. All in virtual time."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.config import EngineConfig, Timeouts
from iii_trio.engine.heartbeat import Heartbeat
from tests.helpers.bare import Bare, connected, within

CONFIG = EngineConfig(timeouts=Timeouts(silent_worker_seconds=60, registration_grace_seconds=0))
PING, PONG = 9, 10


async def hear_until_the_end(bare: Bare, *, answering: bool) -> list[int]:
    """The opcodes of all that comes; pings are answered or not."""
    heard = []
    while (frame := await bare.frame()) is not None:
        heard.append(frame[0])
        if frame[0] == PING and answering:
            await bare.say(PONG, frame[1])
    return heard


@within(3600)
async def test_a_worker_that_answers_no_ping_is_cut_off_after_the_deadline_and_its_reason_says_so(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "iii_trio.engine")
    async with iii_trio.open_engine(CONFIG) as engine, connected(engine) as bare:
        begun = trio.current_time()
        heard = await hear_until_the_end(bare, answering=False)
        assert heard == [1, PING, PING, PING, 8]  # the greeting, then the silence
        assert 60 <= trio.current_time() - begun <= 75 + 5, "the quarter more, and the time for an answer to the Close"
        assert engine.statistics().sessions == 0
        assert "nothing came from it for 60 s, not even the answer to a ping" in caplog.text


@within(100_000)
async def test_a_worker_that_only_answers_pings_stays(autojump_clock: trio.testing.MockClock) -> None:
    async with iii_trio.open_engine(CONFIG) as engine, connected(engine) as bare:
        with trio.move_on_after(10_000):
            await hear_until_the_end(bare, answering=True)
        assert engine.statistics().sessions == 1


@within(100_000)
async def test_any_byte_counts_as_life_also_one_of_a_frame_that_never_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with iii_trio.open_engine(CONFIG) as engine, connected(engine) as bare:
        await bare.stream.send_all(b"\x81\xfe\xff\xff" + bytes(4))  # a message of 65,535 bytes follows
        for _ in range(20):
            await trio.sleep(50)
            await bare.stream.send_all(b" ")
        assert engine.statistics().sessions == 1


@within(100_000)
async def test_a_channel_socket_is_never_pinged_and_never_given_up(autojump_clock: trio.testing.MockClock) -> None:
    config = attrs.evolve(CONFIG, timeouts=Timeouts(silent_worker_seconds=1))
    async with (
        iii_trio.open_engine(config) as engine,
        engine.open_worker("owner") as owner,
        owner.create_channel(expires_after_seconds=None) as channel,
    ):
        ref = channel.reader_ref
        async with connected(engine, f"/ws/channels/{ref.channel_id}?key={ref.access_key}&dir=read") as reader:
            with trio.move_on_after(10_000) as patience:
                await reader.frame()
            assert patience.cancelled_caught
            assert engine.statistics().channels == 1


@within(100_000)
async def test_with_no_deadline_or_no_worker_on_a_socket_nothing_wakes(autojump_clock: trio.testing.MockClock) -> None:
    never = EngineConfig(timeouts=Timeouts(silent_worker_seconds=None, registration_grace_seconds=0))
    async with iii_trio.open_engine(never) as engine, connected(engine) as bare:
        assert await bare.frame() is not None
        with trio.move_on_after(50_000) as patience:
            await bare.frame()
        assert patience.cancelled_caught
    async with iii_trio.open_engine(CONFIG) as engine, engine.open_worker("here"):
        await trio.sleep(10)  # the queue's store tidies up once, a little after its last change
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 10_000


@attrs.define(eq=False)
class Line:
    signs: list[bool] = attrs.field(factory=list)
    events: list[str] = attrs.field(factory=list)

    def take_sign_of_life(self) -> bool:
        return self.signs.pop() if self.signs else False

    def ping(self) -> None:
        self.events.append("ping")

    def give_up(self, reason: str) -> None:
        self.events.append("cut off")


@within(1_000_000)
async def test_an_engine_that_stood_still_blames_nobody(autojump_clock: trio.testing.MockClock) -> None:
    heartbeat, line = Heartbeat(60), Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.keep)
        heartbeat.watch(line)
        await trio.sleep(16)
        autojump_clock.jump(100_000)  # stopped, asleep, or a clock that is wrong
        await trio.sleep(1)
        assert line.events == ["ping", "ping"]
        line.signs.append(True)  # it had answered all the while
        await trio.sleep(40)
        assert "cut off" not in line.events
        nursery.cancel_scope.cancel()


@within(100_000)
async def test_one_that_is_forgotten_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    heartbeat, line = Heartbeat(60), Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heartbeat.keep)
        heartbeat.watch(line)
        await trio.sleep(16)
        heartbeat.forget(line)
        await trio.sleep(1000)
        assert line.events == ["ping"]
        nursery.cancel_scope.cancel()


@within(100_000)
async def test_a_reload_turns_the_heartbeat_on_off_and_faster_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Off to on and back, each with its effect seen (the next look never waits for the pause of the old deadline)."""

    def config(seconds: float | None) -> EngineConfig:
        return EngineConfig(
            listeners=(), timeouts=Timeouts(silent_worker_seconds=seconds, registration_grace_seconds=0)
        )

    async with iii_trio.open_engine(config(None)) as engine, connected(engine) as bare:
        assert await bare.frame() is not None
        with trio.move_on_after(10_000) as off:
            await bare.frame()
        assert off.cancelled_caught
        await engine.reload(config(40))
        began = trio.current_time()
        assert await bare.frame() == (9, b"")
        assert trio.current_time() - began == 20  # the first look finds what came before
        await trio.sleep(5)  # in the middle of a pause
        await engine.reload(config(None))
        with trio.move_on_after(10_000) as off:
            await bare.frame()
        assert off.cancelled_caught
        await engine.reload(config(40_000))
        await trio.sleep(100)
        await engine.reload(config(40))
        began = trio.current_time()
        while (frame := await bare.frame()) is not None and frame[0] == 9:
            pass
        assert frame is not None and frame[0] == 8 and b"nothing came from it for 40 s" in frame[1]
        assert trio.current_time() - began <= 40
