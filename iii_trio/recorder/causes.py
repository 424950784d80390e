"""Why something ended: the steps of a replay that led to it, the last one first.

A step has a cause among the earlier ones if it answers one of them. A lost link follows from the closing of it, and the
end of a channel follows from the event or the link that ended it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ..core.effects import Deliver, EndChannel, HangUp, Send
from ..records import frozen
from ..wire import InvokeFunction, decode
from ..wire.codes import REQUEST_OVER
from .describe import Names, describe_input
from .replay import Done, Move

_MAX_LINKS: Final = 20
_GIVING_UP_SECONDS: Final = 1.0
_LOSSES: Final = frozenset({"writer_lost", "reader_lost", "owner_lost"})


@frozen
class Cause:
    """One link of a chain of causes."""

    step: int
    text: str


def is_about(done: Done, id_: str) -> bool:
    """Return whether a step has to do with the session, channel or call whose id begins so."""
    if any(_begins(value, id_) for value in (*done.arguments.values(), *done.step.ids)):
        return True
    # A call has no field of its own in most inputs.
    if any(move.id.startswith(id_) for move in done.moves):
        return True
    for effect in done.effects:
        if any(_begins(getattr(effect, field, None), id_) for field in ("session", "channel", "invocation_id")):
            return True
        # The ids of channels stand in the results of calls, too.
        message = getattr(effect, "message", None)
        if isinstance(message, bytes) and id_.encode() in message:
            return True
    text = done.arguments.get("text")
    return isinstance(text, bytes) and id_.encode() in text


def _begins(value: Any, id_: str) -> bool:
    return isinstance(value, str) and value.startswith(id_)


def last_end(steps: Sequence[Done], id_: str = "") -> Done | None:
    """Return the last step in which a channel, a session or a call with such an id came to its end."""
    return next((done for done in reversed(steps) if any(move.id.startswith(id_) for move in ends_in(done))), None)


def last_end_of_workers(steps: Sequence[Done], names: Names) -> Done | None:
    """Return the last step that ended something of a worker, if possible not as it was meant to end.

    A loss shortly before it is returned in its place. Commands of `iii-trio` are not workers in this sense. One of them has
    just ended in most recordings.
    """
    ends = [done for done in steps if ends_in(done) and not _is_of_commands(done, names)]
    unmeant = [done for done in ends if not _is_as_meant(done)]
    if not unmeant:
        return ends[-1] if ends else None
    # Who is told of a loss gives up its other streams, so the ends that follow a loss say less than the loss.
    began = unmeant[-1].step.now - _GIVING_UP_SECONDS
    losses = [
        done for done in unmeant if done.step.now >= began and any(move.after in _LOSSES for move in ends_in(done))
    ]
    return (losses or unmeant)[-1]


def ends_in(done: Done) -> list[Move]:
    """Return the ends of channels, sessions and calls in a step."""
    return [move for move in done.moves if move.after in _ENDS.get(move.kind, frozenset())]


def _is_as_meant(done: Done) -> bool:
    """Return whether all that ended in a step are channels that completed, or that an HTTP request left over."""
    # An answered request ends its two channels, whether or not its handler has used them.
    left_over = {
        effect.channel for effect in done.effects if isinstance(effect, EndChannel) and effect.reason == REQUEST_OVER
    }
    return all(move.after == "completed" or move.id in left_over for move in ends_in(done))


def _is_of_commands(done: Done, names: Names) -> bool:
    sessions = {move.id for move in ends_in(done) if move.kind == "session"}
    sessions.add(done.arguments.get("session") or "")
    for effect in done.effects:
        if isinstance(effect, EndChannel):
            sessions.update(effect.sessions.values())
        elif isinstance(effect, Send | Deliver):
            sessions.add(effect.session)
    sessions.discard("")
    return bool(sessions) and all(names.is_command(each) for each in sessions)


_ENDS: Final = {
    "channel": frozenset(
        [
            "completed",
            "aborted",
            "writer_lost",
            "reader_cancelled",
            "reader_lost",
            "owner_lost",
            "expired",
            "engine_closed",
        ]
    ),
    "session": frozenset({"gone"}),
    "call": frozenset({"undelivered", "stopped", "abandoned"}),
}


def why(steps: Sequence[Done], end: Done, names: Names, id_: str = "") -> list[Cause]:
    """Return the chain of causes of an end, which begins with the end itself."""
    chain = [Cause(end.number, _outcome(end, id_))]
    step: Done | None = end
    while step is not None and len(chain) < _MAX_LINKS:
        chain.append(Cause(step.number, f"because {describe_input(step, names)}"))
        step = _cause(steps, step)
    return chain


def _outcome(end: Done, id_: str) -> str:
    said = []
    for move in ends_in(end):
        if move.id.startswith(id_):
            # The reason stands in the effect, because the object has left its ledger.
            reason = next(
                (
                    effect.reason
                    for effect in end.effects
                    if isinstance(effect, EndChannel) and effect.channel == move.id and effect.reason
                ),
                "",
            )
            said.append(f"{move.kind} {move.id} ended as `{move.after}`" + (f" ({reason})" if reason else ""))
    return ", ".join(said)


def _cause(steps: Sequence[Done], step: Done) -> Done | None:
    """Return the earlier step that led to this one."""
    earlier = steps[: step.number - steps[0].number]
    session = step.arguments.get("session")
    match step.step.kind.name:
        case "disconnected" | "close_session":
            # The link ended because the engine closed it, if it did so before.
            for done in reversed(earlier):
                if any(isinstance(effect, HangUp) and effect.session == session for effect in done.effects):
                    return done
            return None
        case "received":
            message = decode(step.arguments["text"])
            id_ = getattr(message, "invocation_id", None)
            # A call begins a chain.
            if id_ is None or isinstance(message, InvokeFunction):
                return None
            return _sent(earlier, id_)
        case "undelivered":
            return _sent(earlier, step.arguments["invocation_id"])
        case "unread_input_known" | "sign_of_life_known":
            for done in reversed(earlier):
                if any(
                    type(effect).__name__.startswith("Ask") and getattr(effect, "session", None) == session
                    for effect in done.effects
                ):
                    return done
            return None
        case _:
            return None


def _sent(earlier: Sequence[Done], invocation_id: str) -> Done | None:
    for done in reversed(earlier):
        if any(getattr(effect, "invocation_id", None) == invocation_id for effect in done.effects):
            return done
    return None
