"""The promises that hold in every conversation and under every failure. Each is one function of the recorded results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Unpack

from ..config import EngineConfig
from ..core.channels import ChannelResult
from ..engine.spans import ChannelSpan
from ..wire import Outcome
from .conversations import Conversation, Ending, Told, hold
from .simulation import History, PlayOptions, play, simulate
from .world import World

_MAX_SECONDS: Final = 20_000.0
_MAX_BYTES: Final = 1024 * 1024 + 256 * 1024  # the default bound, and one message of those that conversations have
_ENDED_BY_ITSELF = {"closed", "aborted", "clean", "cancelled"}


async def play_conversation(conversation: Conversation, seed: int, **options: Unpack[PlayOptions]) -> History:
    """Hold a conversation in a world of its own, and judge it. Options and errors as for `play`, and `check_promises`."""

    async def scenario(world: World) -> list[Told]:
        return await hold(world, conversation)

    history = await play(scenario, seed, **_options(conversation, options))
    _judge(conversation, history)
    return history


def simulate_conversation(conversation: Conversation, seed: int = 0, **options: Unpack[PlayOptions]) -> History:
    """As `play_conversation`, in a `trio.run` of its own, as `simulate`."""

    async def scenario(world: World) -> list[Told]:
        return await hold(world, conversation)

    history = simulate(scenario, seed, **_options(conversation, options))
    _judge(conversation, history)
    return history


def _options(conversation: Conversation, options: PlayOptions) -> PlayOptions:
    config = EngineConfig(modules={"queue": None})  # a conversation is about channels
    return {"conditions": conversation.conditions, "config": config, "max_seconds": _MAX_SECONDS, **options}


def _judge(conversation: Conversation, history: History) -> None:
    try:
        check_promises(conversation, history.value, history.ended)
        _memory_was_bounded(history.value, history.spans)
        if conversation.takes_no_time and history.seconds:
            raise AssertionError(f"somebody waited for time: {history.seconds:g} virtual seconds have passed")
    except AssertionError as error:
        error.add_note(f"in the history of seed {history.seed}:\n{history}")
        raise


def check_promises(conversation: Conversation, told: Iterable[Told], ended: Iterable[ChannelResult]) -> None:
    """Judge a conversation by what its ends were told and how the engine says that its channels ended.

    Raises AssertionError, saying which promise was broken for which stream.
    """
    outcomes = {channel.id: channel.outcome for channel in ended}
    _one_outcome_each(ended)
    for one in told:
        outcome = outcomes.get(one.channel_id) if one.channel_id is not None else None
        for broken in (
            _a_prefix_in_order_exactly_once(one),
            _no_truncated_stream_looks_complete(one),
            _what_completed_is_complete(one, outcome),
            _the_owner_is_told_the_outcome(one, outcome),
            _without_mishaps_all_agree(one, outcome) if not conversation.faults else None,
        ):
            if broken is not None:
                raise AssertionError(f"{broken}\n  outcome: {outcome}\n  {one}")


def _memory_was_bounded(told: Iterable[Told], spans: Iterable[ChannelSpan]) -> None:
    """Check that a pipe never held more than its bounds and one message (clauses C1.4 and C3.2)."""
    bounds = {one.channel_id: one.stream.buffer_size for one in told}
    for span in spans:
        most = bounds.get(span.channel_id)
        if most is not None and span.peak_items > most:
            raise AssertionError(f"{span.peak_items} items waited in channel {span.channel_id}, {most} may")
        if span.peak_bytes > _MAX_BYTES:
            raise AssertionError(f"{span.peak_bytes} bytes waited in channel {span.channel_id}, {_MAX_BYTES} may")


def _one_outcome_each(ended: Iterable[ChannelResult]) -> None:
    twice = [channel for channel, n in Counter(channel.id for channel in ended).items() if n > 1]
    if twice:
        raise AssertionError(f"these channels ended more than once: {twice}")


def _a_prefix_in_order_exactly_once(told: Told) -> str | None:
    """Clauses C3.1 and C4.3."""
    if told.received != list(told.stream.items[: len(told.received)]):
        return "what was received is not a prefix of what was written"
    if len(told.received) > told.offered:
        return "more was received than was written"
    return None


def _no_truncated_stream_looks_complete(told: Told) -> str | None:
    """Clause C4.2."""
    if told.reader_ended != "clean":
        return None
    if not told.closing:
        return "the reader was told a clean end, and the writer had not closed"
    if len(told.received) != len(told.stream.items):
        return "the reader was told a clean end, and had not received everything"
    return None


def _what_completed_is_complete(told: Told, outcome: Outcome | None) -> str | None:
    """Check that after the outcome `completed` the writer had closed and the reader had taken everything.

    A reader over a socket that cancels or dies after everything was written to it counts as having everything, because
    the engine cannot tell the difference.
    """
    if outcome is not Outcome.COMPLETED:
        return None
    if not told.closing:
        return "the engine says `completed`, and the writer had not closed"
    # A reader over a socket that left early cannot be told from one that took everything.
    if len(told.received) < len(told.stream.items) and told.reader_ended not in ("cancelled", None):
        return "the engine says `completed`, and the reader was told otherwise"
    return None


def _the_owner_is_told_the_outcome(told: Told, outcome: Outcome | None) -> str | None:
    """Clauses C4.7 and C8.3."""
    if told.owner_heard is not None and told.owner_heard != outcome:
        return f"the owner was told `{told.owner_heard}`, and it was `{outcome}`"
    return None


def _without_mishaps_all_agree(told: Told, outcome: Outcome | None) -> str | None:
    """Clauses C4.1 and C4.7, where nothing went wrong."""
    if outcome is None:
        return "the channel has not ended"
    if told.owner_heard is None:
        return "the owner was told no outcome"
    for end in (told.reader_ended, told.writer_ended):
        if end is None:
            return "an end was told nothing"
        # An end that ended by itself is told nothing more, so it has no outcome to compare.
        if end not in _ENDED_BY_ITSELF and end != outcome:
            return f"an end was told `{end}`, the engine says `{outcome}`"
    stream = told.stream
    wants_all = stream.takes is None or stream.takes > len(stream.items)
    if stream.ending is Ending.CLOSES and wants_all and outcome is not Outcome.COMPLETED:
        return "everything was written, closed and wanted, and the channel did not complete"
    if told.reader_ended == "clean" and outcome is not Outcome.COMPLETED:
        return "the reader was told the clean end, and the channel did not complete"
    if stream.ending in (Ending.ABORTS, Ending.FAILS) and wants_all and outcome is not Outcome.ABORTED:
        return "the writer aborted, and the outcome is another"
    return None
