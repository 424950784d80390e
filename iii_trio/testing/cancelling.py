"""Cancel a piece of code at every place where it can be cancelled, and check the state it leaves each time.

Each step is tried in two ways, because they find different bugs. *Parked*: cancelled just after the task went to sleep
(this finds an item that was taken and then lost at a checkpoint). *Woken*: cancelled when the task has been woken with
its value and has not run yet (this finds a value that is lost on its way to the task).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, Final, TypeAlias, final

import trio
import trio.testing

from .schedule import seed_scheduler, seeded_schedule

Seen: TypeAlias = dict[str, Any]
"""What a run leaves behind: a cancelled function cannot return anything."""
Run: TypeAlias = Callable[[], Awaitable[None]]

_VIRTUAL_SECONDS: Final = 3600.0


class When(Enum):
    """The moment of a cancellation within a step."""

    PARKED = "parked"
    WOKEN = "woken"
    AMONG_OTHERS = "among others"  # just before any task's step, the subject being parked or woken


@final
class _CutAt(trio.abc.Instrument):
    """Cancels `scope` at a step of `task`. It asserts nothing: Trio swallows what an instrument raises."""

    def __init__(self, step: int, when: When) -> None:
        self._step = step
        self._when = when
        self.task: trio.lowlevel.Task | None = None
        self.scope = trio.CancelScope()
        self.steps = 0
        self.fired = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self._when is not When.AMONG_OTHERS:
            self.steps += 1
            self._cut(When.PARKED)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self._cut(When.WOKEN)
        if self._when is When.AMONG_OTHERS and self.task is not None:
            self._cut(When.AMONG_OTHERS)
            self.steps += 1

    def _cut(self, when: When) -> None:
        # One cancellation a run, so that the step named in a failure is the only one that matters.
        if when is self._when and self.steps == self._step and not self.fired:
            self.fired = True
            self.scope.cancel()


async def _alone(seen: Seen, run: Run) -> None:
    await run()


def cancel_everywhere(
    subject: Callable[[Seen], Awaitable[object]],
    check: Callable[[Seen], object],
    *,
    around: Callable[[Seen, Run], Awaitable[object]] = _alone,
    others: bool = False,
    seed: int = 0,
    max_steps: int = 10_000,
) -> int:
    """Run `subject` again and again, cancelled one step later each time, until it ends uncancelled. Do so in both ways.

    With `others`, also cancel before each step of any other task that runs meanwhile. This is for subjects with tasks of
    their own. That takes as many runs as the whole has steps.

    Each run is a `trio.run` of its own, on a virtual clock, with the same schedule (from `seed`). `around` prepares what
    the subject needs, awaits its argument once (in any task) to run the subject in a scope that is cancelled, and may
    inspect the rest. Then `check` gets the dictionary of this run, which all of them may fill.

    Gives back how many steps the whole subject takes. An exception from any of them leaves as it is, with a note on the
    step and the way. Raises AssertionError if a run hangs, or if the subject still can be cancelled after `max_steps`.
    """
    steps = 0
    for when in When if others else (When.PARKED, When.WOKEN):
        step = 0
        while True:
            step += 1
            cut = _CutAt(step, when)
            seen: Seen = {}
            try:
                # A subject that never ends would otherwise be tried for ever.
                if step > max_steps:
                    raise AssertionError(f"the subject was still not done after {max_steps} steps")
                with seeded_schedule(seed):
                    trio.run(
                        _one_run,
                        subject,
                        around,
                        seen,
                        cut,
                        seed,
                        clock=trio.testing.MockClock(autojump_threshold=0),
                        instruments=[cut],
                    )
                check(seen)
            except BaseException as error:
                # A failure without a cancellation is a plain bug of the subject, and the note must not blame a step.
                if cut.fired:
                    error.add_note(f"the subject was cancelled at step {step}, {when.value}; what was seen: {seen}")
                else:
                    error.add_note(f"the subject was not cancelled; what was seen: {seen}")
                raise
            # The subject ended before this step, so every earlier step has been tried.
            if not cut.fired:
                # Among others, the steps of all tasks are counted, which says nothing of the subject's own.
                if when is not When.AMONG_OTHERS:
                    steps = max(steps, cut.steps)
                break
    return steps


async def _one_run(
    subject: Callable[[Seen], Awaitable[object]],
    around: Callable[[Seen, Run], Awaitable[object]],
    seen: Seen,
    cut: _CutAt,
    seed: int,
) -> None:
    async def run() -> None:
        cut.task = trio.lowlevel.current_task()
        try:
            with cut.scope:
                await subject(seen)
        # What `around` does after the subject is not a step of it, and must not be cancelled.
        finally:
            cut.task = None

    seed_scheduler(seed)
    with trio.move_on_after(_VIRTUAL_SECONDS) as patience:
        await around(seen, run)
    # In virtual time a lost wake-up does not block for ever but ends here, where it can be reported.
    if patience.cancelled_caught:
        raise AssertionError(f"the run hung: it was not over after {_VIRTUAL_SECONDS:g} virtual seconds")
