"""Scripts of channel operations, drawn and shrunk by Hypothesis, played in a simulated world, judged by `channel_model.py`.

    class TestMyEngine(ChannelMachine.TestCase): ...

Needs Hypothesis (the extra `test`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import attrs
import hypothesis.strategies as st
import trio
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from ..config import EngineConfig
from ..errors import ChannelBroken, ConnectionFailed
from ..records import define
from ..worker import ChannelReader, ChannelWriter, Worker
from .channel_model import CLEAN, CLOSED, DONE, EXPIRES_AFTER_SECONDS, WAITS, Model, Step, broken
from .simulation import History, simulate
from .world import Over, World

WORKERS: Final = 3
_MAX_CHANNELS: Final = 3
_MAX_ITEMS: Final = 20  # fewer than fit into a channel: a send never waits


def play_script(steps: list[Step], over: tuple[Over, ...], seed: int = 0) -> History:
    """Play a script in a world of its own, and judge it.

    Raises AssertionError, with the observations of each step as a note.
    """
    seen: list[str] = []

    async def scenario(world: World) -> None:
        actors = _Actors(world)
        await actors.play(steps, over, seen)
        _judge(steps, seen, over, actors.writers, world)

    try:
        return simulate(scenario, seed, config=EngineConfig(modules={"queue": None}))
    except Exception as error:
        lines = [f"  {step}: {what}" for step, what in zip(steps, seen, strict=False)]
        error.add_note("what was done and seen:\n" + "\n".join(lines))
        raise


def _judge(
    steps: list[Step], seen: list[str], over: tuple[Over, ...], writers: list[ChannelWriter], world: World
) -> None:
    model = Model(frozenset(index for index, way in enumerate(over) if way == "memory"))
    for step, what in zip(steps, seen, strict=True):
        model.judge(step, what)
    outcomes = {channel.id: str(channel.outcome) for channel in world.ended}
    for number, (writer, channel) in enumerate(zip(writers, model.channels, strict=True)):
        outcome = outcomes.get(writer.channel_id, "open")
        # The engine's own record must agree with the observations of the ends.
        if outcome not in channel.may_be:
            raise AssertionError(
                f"channel {number} is {outcome}, where it could be: {', '.join(sorted(channel.may_be))}"
            )
    # Only `wait` steps may take time, so anything more is a task that slept where it should have been woken.
    if world.now != model.now:
        raise AssertionError(f"virtual time is {world.now:g}, where it should be {model.now:g}: somebody waited for it")


@define
class _Actors:
    """The workers and ends of a script."""

    world: World
    workers: list[Worker] = attrs.field(factory=list)
    writers: list[ChannelWriter] = attrs.field(factory=list)
    readers: list[ChannelReader] = attrs.field(factory=list)

    async def play(self, steps: list[Step], over: tuple[Over, ...], seen: list[str]) -> None:
        for index, way in enumerate(over):
            self.workers.append(await self.world.start_worker(f"w{index}", over=way))
        for step in steps:
            seen.append(await self._until_settled(step))

    async def _until_settled(self, step: Step) -> str:
        """Take a step, and cancel it if it waits for others, because nothing may be lost by that (clause C5.1)."""
        results: list[str] = []

        async def take() -> None:
            results.append(await self._take(step))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            # A pause has to be over before the tasks settle, because settling takes no virtual time.
            if step.do == "wait":
                await trio.sleep(step.seconds)
            await self.world.settle()
            nursery.cancel_scope.cancel()
        await self.world.settle()
        return results[0] if results else WAITS

    async def _take(self, step: Step) -> str:
        try:
            return await self._do(step)
        # Each way to end is an observation for the model to judge, not a failure of the script.
        except trio.EndOfChannel:
            return CLEAN
        except trio.ClosedResourceError:
            return CLOSED
        except ChannelBroken as error:
            return broken(error.outcome)
        except ConnectionFailed as error:
            return f"{type(error).__name__}: {error}"

    async def _do(self, step: Step) -> str:
        match step.do:
            case "create":
                refs = await self.workers[step.worker].trigger("engine::channels::create", {})
                self.writers.append(self.workers[step.writer].open_writer(refs["writer"]))
                self.readers.append(self.workers[step.reader].open_reader(refs["reader"]))
            case "send":
                writer = self.writers[step.channel]
                await writer.send(f"item {step.item}")
            case "close":
                await self.writers[step.channel].aclose()
            case "abort":
                self.writers[step.channel].abort("as the script says")
            case "receive":
                return str(await self.readers[step.channel].receive())
            case "cancel":
                self.readers[step.channel].cancel("as the script says")
            case "crash":
                self.world.crash_worker(f"w{step.worker}")
            case "wait":
                pass
        return DONE


class ChannelMachine(RuleBasedStateMachine):
    """Channels between three workers. Subclass it to fix how they reach the engine (`ways`)."""

    ways: ClassVar[tuple[Over, ...]] = ("memory", "network")

    def __init__(self) -> None:
        super().__init__()
        self.seed = 0
        self.over: tuple[Over, ...] = ()
        self.steps: list[Step] = []
        self.users: list[tuple[int, int]] = []  # writer and reader of each channel
        self.items: list[int] = []
        self.alive = set(range(WORKERS))

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.seed = data.draw(st.integers(0, 1_000), label="seed of the schedule")
        self.over = tuple(data.draw(st.sampled_from(self.ways), label=f"worker {i} over") for i in range(WORKERS))

    @precondition(lambda self: self.alive and len(self.users) < _MAX_CHANNELS)
    @rule(data=st.data())
    def create(self, data: st.DataObject) -> None:
        owner, writer, reader = (data.draw(st.sampled_from(sorted(self.alive)), label=who) for who in _ROLES)
        self.steps.append(Step("create", worker=owner, writer=writer, reader=reader))
        self.users.append((writer, reader))
        self.items.append(0)

    @precondition(lambda self: self._usable(0))
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        channel = self._draw(data, 0)
        # A full channel would make the send wait, which the model does not know of.
        if self.items[channel] < _MAX_ITEMS:
            self.steps.append(Step("send", channel, item=self.items[channel]))
            self.items[channel] += 1

    @precondition(lambda self: self._usable(0))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.steps.append(Step("close", self._draw(data, 0)))

    @precondition(lambda self: self._usable(0))
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.steps.append(Step("abort", self._draw(data, 0)))

    @precondition(lambda self: self._usable(1))
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        self.steps.append(Step("receive", self._draw(data, 1)))

    @precondition(lambda self: self._usable(1))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.steps.append(Step("cancel", self._draw(data, 1)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)), label="who")
        self.alive.discard(worker)
        self.steps.append(Step("crash", worker=worker))

    @rule(seconds=st.sampled_from((1.0, EXPIRES_AFTER_SECONDS - 1, EXPIRES_AFTER_SECONDS)))
    def wait(self, seconds: float) -> None:
        self.steps.append(Step("wait", seconds=seconds))

    def teardown(self) -> None:
        """Play the drawn script."""
        # Hypothesis also tears down machines that drew nothing, for which a world would be wasted time.
        if self.steps:
            play_script(self.steps, self.over, self.seed)

    def _usable(self, end: int) -> list[int]:
        return [channel for channel, users in enumerate(self.users) if users[end] in self.alive]

    def _draw(self, data: st.DataObject, end: int) -> int:
        drawn: Any = data.draw(st.sampled_from(self._usable(end)), label="channel")
        return int(drawn)


_ROLES: Final = ("owner", "writer", "reader")
