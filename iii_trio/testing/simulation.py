"""Whole histories in virtual time. The same seed gives the same history, event for event."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypedDict, final

import attrs
import trio
import trio.testing

from ..config import EngineConfig
from ..core.channels import ChannelResult
from ..engine.spans import ChannelSpan
from ..records import frozen
from .schedule import seed_scheduler, seeded_schedule
from .sim_stream import Conditions
from .world import World, open_world

Scenario: TypeAlias = Callable[[World], Awaitable[object]]

MAX_SECONDS: Final = 100_000.0
MAX_STEPS: Final = 1_000_000
_LINES_SHOWN: Final = 30


@frozen
class History:
    """What happened."""

    seed: int
    value: Any = attrs.field(repr=False)
    """What the scenario gave back."""
    transcript: tuple[str, ...] = attrs.field(repr=False)
    """What happened, in order: virtual seconds, then who did what."""
    ended: tuple[ChannelResult, ...] = attrs.field(repr=False)
    """The channels that ended, oldest first."""
    spans: tuple[ChannelSpan, ...] = attrs.field(repr=False, eq=False)  # their dates are of the real clock
    """What each of them carried, and how much of it waited at the most."""
    steps: int
    """How often a task was run."""
    seconds: float
    """Virtual seconds."""

    def __str__(self) -> str:
        return "\n".join(self.transcript)


class HistoryStuck(AssertionError):
    """A history that did not end, because all tasks waited for ever (deadlock) or one never waited (livelock)."""


@final
class _Steps(trio.abc.Instrument):
    """Counts steps; cancels a scope when there were too many. No deadline comes while virtual time stands still."""

    def __init__(self, most: int, scope: trio.CancelScope) -> None:
        self.count = 0
        self._most = most
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
        # A task that never waits keeps virtual time from moving, so only a count can stop it.
        if self.count >= self._most:
            self._scope.cancel()


class PlayOptions(TypedDict, total=False):
    """The options of `simulate` and `play`."""

    conditions: Conditions | None
    config: EngineConfig | None
    max_seconds: float
    max_steps: int
    transcript: bool
    dissolve: bool


def simulate(
    scenario: Scenario,
    seed: int = 0,
    *,
    conditions: Conditions | None = None,
    config: EngineConfig | None = None,
    max_seconds: float = MAX_SECONDS,
    max_steps: int = MAX_STEPS,
    transcript: bool = True,
    dissolve: bool = True,
) -> History:
    """Run `scenario(world)` in a `trio.run` of its own, with an engine and a network in virtual time, from `seed`.

    `conditions` are those of connections without their own. When the scenario returns, its workers are ended. Then the
    engine must hold nothing (unless `dissolve` is False).

    Raises the scenario's exception with the last lines of the transcript as a note, HistoryStuck if it is not over after
    `max_seconds` of virtual time or `max_steps` steps, and AssertionError if something is left in the engine.
    """
    collecting = gc.isenabled()
    gc.disable()  # what it would finalise, and when, does not follow from the seed
    try:
        with seeded_schedule(seed):
            return trio.run(
                _played,
                scenario,
                seed,
                {
                    "conditions": conditions,
                    "config": config,
                    "max_seconds": max_seconds,
                    "max_steps": max_steps,
                    "transcript": transcript,
                    "dissolve": dissolve,
                },
                clock=trio.testing.MockClock(autojump_threshold=0),
            )
    finally:
        # The caller's own setting is restored, for it may run without the collector as well.
        if collecting:
            gc.enable()


async def _played(scenario: Scenario, seed: int, options: dict[str, Any]) -> History:
    return await play(scenario, seed, **options)


async def play(
    scenario: Scenario,
    seed: int,
    *,
    conditions: Conditions | None = None,
    config: EngineConfig | None = None,
    max_seconds: float = MAX_SECONDS,
    max_steps: int = MAX_STEPS,
    transcript: bool = True,
    dissolve: bool = True,
) -> History:
    """Do as `simulate`, within a run of yours on a MockClock that jumps, for many histories in one run.

    They repeat if the run is within `seeded_schedule`, and nothing else goes on in it.
    """
    seed_scheduler(seed)
    enough = trio.CancelScope()
    steps = _Steps(max_steps, enough)
    world: World | None = None
    value: Any = None
    began = trio.current_time()
    trio.lowlevel.add_instrument(steps)
    try:
        with enough, trio.move_on_after(max_seconds) as patience:
            async with open_world(seed, conditions, config) as world:
                # The text of every event takes time and memory, which many long histories cannot afford.
                if not transcript:
                    world.transcript = None
                value = await scenario(world)
                seconds = world.now
                if dissolve:
                    await world.dissolve()
                ended = tuple(world.ended)
        # The two limits have different causes, a livelock here and a deadlock below.
        if enough.cancelled_caught:
            raise HistoryStuck(f"the history was not over after {max_steps} steps, at {_now(began)}")
        if patience.cancelled_caught:
            raise HistoryStuck(f"the history was not over after {max_seconds:g} virtual seconds")
    except Exception as error:
        error.add_note(f"in the history of seed {seed}, at {_now(began)}")
        if world is not None and world.transcript:
            error.add_note("its last events:\n  " + "\n  ".join(world.transcript[-_LINES_SHOWN:]))
        raise
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert world is not None
    for channel in ended:
        world.note("channel", channel.id, "ended:", channel.outcome, channel.reason)
    return History(seed, value, tuple(world.transcript or ()), ended, tuple(world.spans), steps.count, seconds)


def _now(began: float) -> str:
    return f"{trio.current_time() - began:.6f} virtual seconds"
