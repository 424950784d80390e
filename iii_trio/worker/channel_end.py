"""The states of a channel end that a worker holds."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..state_machine import Table, TableEnum


class ChannelEndState(TableEnum):
    """The states of a channel end."""

    FRESH = auto()
    LENT = auto()  # its ref was sent to another worker, which attaches it
    USED = auto()  # attached, or being attached, here
    CLOSED = auto()  # ended from this side


class ChannelEndEvent(TableEnum):
    """The events in the life of a channel end."""

    PASS_ON = auto()
    USE = auto()
    CLOSE = auto()


CHANNEL_END: Final[Table[ChannelEndState, ChannelEndEvent]] = {
    ChannelEndState.FRESH: {
        ChannelEndEvent.PASS_ON: ChannelEndState.LENT,
        ChannelEndEvent.USE: ChannelEndState.USED,
        ChannelEndEvent.CLOSE: ChannelEndState.CLOSED,
    },
    ChannelEndState.LENT: {
        ChannelEndEvent.PASS_ON: ChannelEndState.LENT,
        ChannelEndEvent.USE: ChannelEndState.USED,
        ChannelEndEvent.CLOSE: ChannelEndState.CLOSED,
    },
    ChannelEndState.USED: {
        ChannelEndEvent.PASS_ON: ChannelEndState.USED,
        ChannelEndEvent.USE: ChannelEndState.USED,
        ChannelEndEvent.CLOSE: ChannelEndState.CLOSED,
    },
    ChannelEndState.CLOSED: {},
}
