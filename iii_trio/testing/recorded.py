"""Recordings of engines as histories: the promises of the core judge them, and Hypothesis shrinks what breaks one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, final

import attrs

from ..core.effects import Deliver, EndChannel, Log, Send
from ..core.hub import Hub
from ..recorder.describe import Names, describe_effect, describe_input
from ..recorder.file_format import decode_recording, encode_recording
from ..recorder.recording import Recording, Step
from ..recorder.replay import Done, Replay, damage_of
from ..records import frozen
from ..wire import FEATURE, ChannelEnded, InvocationResult, InvokeFunction, decode

_FEW: Final = 48
"""Steps that Hypothesis shrinks. Of a longer history whole stretches are left out first."""
_EXAMPLES: Final = 5_000


class BrokenPromise(AssertionError):
    """A promise of the core that a history breaks. `promise` names it, and `step` is the number of the step."""

    def __init__(self, promise: str, step: int, sentence: str) -> None:
        super().__init__(sentence)
        self.promise = promise
        self.step = step


@final
@frozen
class RecordedHistory:
    """What came into the core of an engine. It can be judged again, whole or with fewer steps."""

    recording: Recording

    def __len__(self) -> int:
        return len(self.recording.steps)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def check(self) -> None:
        """Do the steps again, and check after each one that the core keeps its promises. Raises BrokenPromise."""
        broken = self.broken_promise()
        if broken is not None:
            broken.add_note(f"in the history of {len(self)} steps:\n{self}" if len(self) <= _FEW else "")
            raise broken

    def broken_promise(self) -> BrokenPromise | None:
        """Return the first promise that the history breaks, or None. Raises RecordingError for one that is damaged."""
        player = Replay(self.recording)
        judge = _Judge(player.hub)
        for number, step in enumerate(self.recording.steps, 1):
            with damage_of(number, step):
                before = set(player.hub.sessions)
                broken = judge.look_at(player.do(number, step), before)
            if broken is not None:
                return BrokenPromise(broken[0], number, f"step {number}: {broken[1]}")
        return None

    def shrink(self, fails: Callable[[RecordedHistory], bool] | None = None) -> RecordedHistory:
        """Return a small history that still fails, by Hypothesis.

        `fails` says whether a history fails. By default it breaks the same promise as this one. Raises ValueError for a
        history that does not fail.
        """
        if fails is None:
            broken = self.broken_promise()
            if broken is None:
                raise ValueError("the history breaks no promise")
            fails = _breaks(broken.promise)
            # What came later has no part in it.
            return self.keep(range(broken.step)).shrink(fails)
        if not fails(self):
            raise ValueError("the history does not fail")
        history = self
        # A file without a snapshot can be read by later versions, whose core has other fields.
        bare = RecordedHistory(attrs.evolve(self.recording, snapshot=None))
        if fails(bare.keep(range(len(bare)))):
            history = bare
        return _by_hypothesis(_without_stretches(history, fails), fails)

    def keep(self, places: Sequence[int]) -> RecordedHistory:
        """Return the history of some steps, which are counted from 0. Its effects are compared with nothing.

        Raises ValueError for a place that has no step.
        """
        wrong = [place for place in places if not 0 <= place < len(self)]
        if wrong:
            had = f"it has the places 0 to {len(self) - 1}" if len(self) else "it has none"
            raise ValueError(f"the history has no step at the place {wrong[0]}: {had}")
        steps = tuple(attrs.evolve(self.recording.steps[place], compared=False) for place in places)
        return RecordedHistory(attrs.evolve(self.recording, steps=steps))

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the history into a file, for a regression test. Blocks. Raises OSError."""
        Path(file).write_bytes(b"".join(encode_recording(self.recording)))

    def _lines(self) -> list[str]:
        player = Replay(self.recording, watched=True)
        names = Names(player.hub)
        lines = []
        for number, step in enumerate(self.recording.steps, 1):
            with damage_of(number, step):
                done = player.do(number, step)
                names.update()
                lines.append(f"{number}. {describe_input(done, names)}")
                lines += [f"     {move.kind}: {move.before or 'new'} -> {move.after}" for move in done.moves]
                lines += [f"     => {describe_effect(effect, names)}" for effect in done.effects]
        return lines


def from_recording(file: str | os.PathLike[str] | bytes) -> RecordedHistory:
    """Return the history of a recording, given its file or its bytes. Blocks. Raises OSError and RecordingError."""
    if isinstance(file, bytes):
        return RecordedHistory(decode_recording(file))
    return RecordedHistory(decode_recording(Path(file).read_bytes(), os.fspath(file)))


def _breaks(promise: str) -> Callable[[RecordedHistory], bool]:
    def fails(history: RecordedHistory) -> bool:
        broken = history.broken_promise()
        return broken is not None and broken.promise == promise

    return fails


# --- shrinking


def _without_stretches(history: RecordedHistory, fails: Callable[[RecordedHistory], bool]) -> RecordedHistory:
    """Leave out halves, quarters and so on, until few steps are left or no stretch can go."""
    places = list(range(len(history)))
    size = len(places) // 2
    while size and len(places) > _FEW:
        at = 0
        while at < len(places):
            fewer = places[:at] + places[at + size :]
            if fails(history.keep(fewer)):
                places = fewer
            else:
                at += size
        size //= 2
    return history.keep(places)


def _by_hypothesis(history: RecordedHistory, fails: Callable[[RecordedHistory], bool]) -> RecordedHistory:
    import hypothesis
    import hypothesis.strategies as st

    # A step stays for any number but 0, so that most histories that are drawn have nearly all steps.
    kept = st.lists(st.integers(0, 255), min_size=len(history), max_size=len(history))

    def chosen(numbers: list[int]) -> RecordedHistory:
        return history.keep([place for place, number in enumerate(numbers) if number])

    settings = hypothesis.settings(
        max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    found = hypothesis.find(kept, lambda numbers: fails(chosen(numbers)), settings=settings, random=Random(0))
    return chosen(found)


# --- judging


class _Judge:
    """Looks at one step after the other. A broken promise is its name and a sentence."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._waiting: dict[tuple[str, str], str] = {}
        """The function of each call that has no answer yet, by its session and its id."""
        self._ended: set[str] = set()

    def look_at(self, done: Done, before: set[str]) -> tuple[str, str] | None:
        """Return the first promise that this step breaks. `before` has the sessions that were there before it."""
        self._note_call(done, before)
        for judge in (self._no_fault, self._known_receivers, self._one_answer, self._one_outcome, self._no_ghosts):
            broken = judge(done, before)
            if broken is not None:
                return broken
        return None

    def _note_call(self, done: Done, before: set[str]) -> None:
        session, text = done.arguments.get("session"), done.arguments.get("text")
        if session not in before or not isinstance(text, bytes):
            return
        message = decode(text)
        # The caller of a void call waits for nothing.
        void = isinstance(message, InvokeFunction) and message.action is not None and message.action.type == "void"
        if isinstance(message, InvokeFunction) and message.invocation_id is not None and not void:
            self._waiting[session, message.invocation_id] = message.function_id

    def _no_fault(self, done: Done, before: set[str]) -> tuple[str, str] | None:
        for effect in done.effects:
            if isinstance(effect, Log) and effect.error is not None:
                return "no error of its own", f"the core failed: {effect.message}"
        return None

    def _known_receivers(self, done: Done, before: set[str]) -> tuple[str, str] | None:
        # A connection that is refused at once is greeted with the reason.
        known = before | set(self._hub.sessions) | set(done.step.ids)
        for effect in done.effects:
            if isinstance(effect, Send | Deliver) and effect.session not in known:
                return "messages go to sessions", f"a message goes to the session {effect.session}, which is gone"
        return None

    def _one_answer(self, done: Done, before: set[str]) -> tuple[str, str] | None:
        """Clauses C4.5 and C5.5: a call is answered once, or is still under way, or its caller is gone."""
        for effect in done.effects:
            message = decode(effect.message) if isinstance(effect, Send) else None
            if isinstance(message, InvocationResult) and isinstance(effect, Send):
                self._waiting.pop((effect.session, message.invocation_id), None)
        for (session_id, id_), function_id in list(self._waiting.items()):
            session = self._hub.sessions.get(session_id)
            if session is None or self._is_cancelled(done, session_id, id_):
                del self._waiting[session_id, id_]
            elif id_ not in self._hub.calls.made_by(session) and not self._is_held(session_id, id_):
                return (
                    "a call is answered",
                    f"the call {id_} of {function_id} is under way no more, and its caller was told nothing",
                )
        return None

    def _is_cancelled(self, done: Done, session_id: str, id_: str) -> bool:
        text = done.arguments.get("text")
        if done.arguments.get("session") != session_id or not isinstance(text, bytes):
            return False
        message = decode(text)
        return type(message).__name__ == "CancelInvocation" and getattr(message, "invocation_id", None) == id_

    def _is_held(self, session_id: str, id_: str) -> bool:
        """Return whether the engine itself will answer the call later."""
        state = self._hub.state
        session = state.sessions[session_id]
        requests: list[Any] = [each.request for each in state.name_waiters.waiting]
        requests += [*state.questions.values(), *(each.request for each in state.triggers if each.request is not None)]
        held = session.held or ()
        return any(each.session is session and each.invocation_id == id_ for each in requests) or any(
            getattr(message, "invocation_id", None) == id_ for message, _ in held
        )

    def _one_outcome(self, done: Done, before: set[str]) -> tuple[str, str] | None:
        """Clause C4.7: a channel ends once, and all are told the same outcome."""
        told = {}
        for effect in done.effects:
            message = decode(effect.message) if isinstance(effect, Send) else None
            if isinstance(message, ChannelEnded) and isinstance(effect, Send):
                told[effect.session, message.channel_id] = message.outcome
        for effect in done.effects:
            if not isinstance(effect, EndChannel):
                continue
            if effect.channel in self._ended:
                return "one outcome", f"the channel {effect.channel} ends a second time"
            self._ended.add(effect.channel)
            for role, session_id in effect.sessions.items():
                session = self._hub.sessions.get(session_id)
                # Other SDKs learn of the end by their sockets.
                if session is None or FEATURE not in session.features:
                    continue
                outcome = told.get((session_id, effect.channel))
                if outcome != effect.outcome:
                    heard = f"was told {outcome}" if outcome is not None else "was told nothing"
                    text = f"the channel {effect.channel} ended as {effect.outcome}, and its {role} {heard}"
                    return "all are told the outcome", text
        return None

    def _no_ghosts(self, done: Done, before: set[str]) -> tuple[str, str] | None:
        hub = self._hub
        there = set(hub.sessions.values())
        for function in hub.registry:
            if function.owner is not None and function.owner not in there:
                return "nothing is left of a session", f"the function {function.id} belongs to a session that is gone"
        for session in hub.calls.given:
            if session not in there:
                return "nothing is left of a session", f"calls are kept for {session.label}, which is gone"
        for binding in hub.triggers:
            if binding.owner is not None and binding.owner not in there:
                return "nothing is left of a session", f"the binding {binding.id} belongs to a session that is gone"
        return None


__all__ = ["BrokenPromise", "RecordedHistory", "Step", "from_recording"]
