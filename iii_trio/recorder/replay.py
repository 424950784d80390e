"""The steps of a recording, done again by a hub of its own, in the recorded time and with the recorded ids."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final, final

from ..config import EngineConfig
from ..core.effects import Effects
from ..core.hub import Hub
from ..core.session import WorkerSession
from ..observed import Place, parse_traceparent
from ..records import frozen
from ..state_machine import StateMachine
from ..wire import Undecodable
from . import inputs
from .compare import status_of
from .plain import NotPlain, read_one
from .recording import Recording, RecordingError, Step, effects_differ
from .snapshot import restore_snapshot


@frozen
class Move:
    """A change of the state of one object."""

    kind: str
    """`session`, `channel`, `call` or `binding`."""
    id: str
    before: str
    """The state, in lower case. Empty: the object is new."""
    after: str
    """The state. Empty: the object is gone, and no transition says why."""


@frozen
class Done:
    """One step that was done again."""

    number: int
    """Its number in the recording. The first one is 1."""
    step: Step
    arguments: dict[str, Any]
    effects: Effects
    moves: tuple[Move, ...]


@contextmanager
def damage_of(number: int, step: Step) -> Iterator[None]:
    """Raise RecordingError, which names the step, for any exception of the block but a RecordingError.

    The checksums of a file may be right where its values are of other types than a step has.
    """
    try:
        yield
    except RecordingError:
        raise
    except Exception as error:
        raise RecordingError(
            f"the recording is damaged at step {number} ({step.kind}): it has values of other types than a step has "
            f"({type(error).__name__}); copy it again, or record anew"
        ) from error


class Difference(RecordingError):
    """A replay decided otherwise than the engine did. `number` is the step's."""

    def __init__(self, number: int, sentence: str) -> None:
        super().__init__(sentence)
        self.number = number


@final
class Replay:
    """A hub that does the steps of a recording again.

    `watched` says whether the changes of states are wanted, which takes time. Raises RecordingError if the snapshot
    cannot be read.
    """

    def __init__(self, recording: Recording, *, watched: bool = False) -> None:
        self._ids: deque[str] = deque()
        self._spare = (f"00000000-0000-4000-9000-{number:012d}" for number in itertools.count(1))
        self.hub = hub = Hub(EngineConfig(), self._next_id, traces=_RecordedTraces(self._ids))
        try:
            if recording.snapshot is not None:
                restore_snapshot(hub, recording.snapshot)
        except NotPlain as problem:
            raise RecordingError(f"the recording cannot be replayed: {problem}") from None
        self._sessions: dict[str, WorkerSession] = dict(hub.sessions)
        try:
            self._states = _States(hub) if watched else None
        # A snapshot of another origin may have restored anything.
        except Exception as error:
            raise RecordingError(
                f"the recording cannot be replayed: its snapshot is damaged ({type(error).__name__}): copy it again, "
                "or record anew"
            ) from error

    def do(self, number: int, step: Step) -> Done:
        """Do a step again.

        Raises RecordingError for a step that cannot be read, or that the hub cannot do, and Difference for an end that is
        attached otherwise than in the engine.
        """
        self._ids.clear()
        self._ids.extend(step.ids)
        try:
            values = [read_one(argument) for argument in step.arguments]
            arguments = dict(zip(step.kind.arguments, values, strict=True))
            effects = self._apply(step, **arguments)
        except NotPlain as problem:
            raise RecordingError(f"step {number} cannot be read: {problem}") from None
        except _Attached as difference:
            raise Difference(number, f"step {number} ({step.kind}) differs: {difference}") from None
        except RecordingError:
            raise
        except Exception as error:
            name = type(error).__name__
            raise RecordingError(
                f"step {number} ({step.kind}) cannot be replayed: the core raised {name}: {error}"
            ) from error
        with damage_of(number, step):
            moves = self._states.moves() if self._states is not None else ()
        return Done(number, step, arguments, effects, moves)

    def _next_id(self) -> str:
        # A hub that decides otherwise than the engine did may need more ids.
        return self._ids.popleft() if self._ids else next(self._spare)

    def _apply(self, step: Step, **arguments: Any) -> Effects:
        hub, now, kind = self.hub, step.now, step.kind
        if kind is inputs.CONNECTED:
            session, effects = hub.connected(now, **arguments)
            self._sessions[session.id] = session
            return effects
        if kind is inputs.ATTACH:
            return self._attach(step, **arguments)
        if "session" in arguments and kind not in _BY_ID:
            found = self._sessions.get(arguments.pop("session"))
            # The session was gone before the recording began, and the hub ignores its inputs.
            if found is None:
                return []
            return self._of_session(step, found, **arguments)
        match kind.name:
            case "channel_event":
                return hub.channel_event(
                    arguments["channel"], arguments["event"], arguments["reason"], now, arguments["code"]
                )
            case "touch":
                hub.touch(arguments["channel"], now)
                return []
            case "undelivered" | "unread_input_known" | "sign_of_life_known" | "refuse_name" | "close":
                method: Any = getattr(hub, kind.name)
                return method(*arguments.values(), now)  # type: ignore[no-any-return]
            case (
                "channel_io_known" | "statistics_known" | "recording_known" | "channel_ended_elsewhere" | "engine_lost"
            ):
                method = getattr(hub, kind.name)
                return method(*arguments.values())  # type: ignore[no-any-return]
            case "name_home":
                hub.name_home(arguments["home"])
                return []
            case "show_workers":
                hub.show_workers(arguments["rows"])
                return []
            case "show_gauges":
                hub.show_gauges(arguments["worker"], arguments["gauges"], arguments["time_ms"], now)
                return []
            case "tick":
                return hub.tick(now)
            case "reconfigure":
                hub.reconfigure(EngineConfig(**arguments))
                return []
            case _:
                hub.drain()
                return []

    def _of_session(self, step: Step, session: WorkerSession, **arguments: Any) -> Effects:
        hub, now = self.hub, step.now
        match step.kind.name:
            case "received":
                return hub.received(session, arguments["text"], now)
            case "unreadable":
                return hub.unreadable(session, Undecodable(**arguments), now)
            case "disconnected":
                return hub.disconnected(session, now=now, **arguments)
            case "close_session":
                return hub.close_session(session, now=now, **arguments)
            case "hold_elsewhere" | "release_elsewhere":
                getattr(hub, step.kind.name)(arguments["channel"], session)
                return []
            case _:
                hub.change_rules(session, **arguments)
                return []

    def _attach(
        self, step: Step, channel: str, key: str, direction: Any, session: str | None, invocation_id: Any, status: int
    ) -> Effects:
        holder = self._sessions.get(session) if session is not None else None
        found = status_of(self.hub.attach(channel, key, direction, step.now, holder, invocation_id))
        # An attaching has no effects of its own, so its result is compared.
        if step.compared and found != status:
            raise _Attached(f"the end of channel {channel} was {_said(found)}, and the engine had it {_said(status)}")
        return []


@final
class _RecordedTraces:
    """A source of the places in traces that the engine was given."""

    def __init__(self, ids: deque[str]) -> None:
        self._ids = ids

    @property
    def active(self) -> bool:
        # The engine recorded traces if it noted a place here, or that there was none.
        return bool(self._ids) and self._ids[0].startswith("#")

    def may_begin_trace(self, now: float) -> bool:
        # It is asked only where the engine recorded traces, so the note says what came of it.
        return self.active

    def place(
        self, traceparent: str | None, operation: str, service: str, now: float, *, may_begin_trace: bool = True
    ) -> Place | None:
        if not self.active:
            return None
        noted = self._ids.popleft()[1:].split("-")
        # The engine recorded traces, and not this one.
        if len(noted) != 3:
            return None
        trace_id, span_id, flags = noted
        parent = parse_traceparent(traceparent)
        return Place(trace_id, span_id, parent.span_id if parent else None, int(flags))


class _Attached(RecordingError):
    """An end was attached, or refused, otherwise than by the engine."""


_BY_ID: Final = frozenset({inputs.UNDELIVERED, inputs.UNREAD_INPUT_KNOWN, inputs.SIGN_OF_LIFE_KNOWN})
"""The inputs that name a session that may be gone."""


def _said(status: int) -> str:
    return f"refused with {status}" if status else "attached"


def replay(recording: Recording, *, watched: bool = False) -> Iterator[Done]:
    """Yield the steps of a recording, done again.

    Raises Difference at the first step that has other effects than the engine had, and RecordingError for a recording
    that cannot be replayed.
    """
    player = Replay(recording, watched=watched)
    for number, step in enumerate(recording.steps, 1):
        done = player.do(number, step)
        yield done
        at = effects_differ(step, done.effects)
        if at is not None:
            raise Difference(number, sentence(done, at))


def sentence(done: Done, at: int) -> str:
    """Return a sentence about the first effect of a step that differs."""
    recorded = len(done.step.digests) // 16
    # The place is behind the last effect if the numbers differ.
    if at < min(recorded, len(done.effects)):
        effect = type(done.effects[at]).__name__
        what = f"effect {at + 1} of {recorded}, here {effect}, is not what the engine decided"
    else:
        what = f"it has {len(done.effects)} effects, and in the engine it had {recorded}"
    return f"step {done.number} ({done.step.kind}) differs: {what}"


class _States:
    """The states of all objects of a hub after the last step."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._known: dict[tuple[str, str], tuple[StateMachine[Any, Any], Enum]] = {}
        self.moves()

    def moves(self) -> tuple[Move, ...]:
        """Return the changes since the last time."""
        found = {(kind, id_): machine for kind, id_, machine in self._machines()}
        moves = []
        for key, (machine, before) in self._known.items():
            # An object that has left its ledger has its last state still.
            if machine.current is not before:
                moves.append(Move(*key, before.name.lower(), machine.current.name.lower()))
        # Another machine under the same id is another object.
        for key, machine in found.items():
            known = self._known.get(key)
            if known is None or known[0] is not machine:
                moves.append(Move(*key, "", machine.current.name.lower()))
        self._known = {key: (machine, machine.current) for key, machine in found.items()}
        return tuple(moves)

    def _machines(self) -> Iterable[tuple[str, str, StateMachine[Any, Any]]]:
        hub = self._hub
        for session in hub.sessions.values():
            yield "session", session.id, session.state
            for call in hub.calls.given_to(session).values():
                yield "call", call.id, call.state
        for channel in hub.channels:
            yield "channel", channel.id, channel.state
        for binding in hub.triggers:
            yield "binding", binding.id, binding.state
