"""The life of a channel's end in a worker's hands."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..state_machine import Table, TableEnum


class ChannelEndState(TableEnum):
    """What has been done with an end here."""

    FRESH = auto()
    LENT = auto()  # its ref was passed on: its rightful user attaches it
    USED = auto()  # attached, or being attached, here
    CLOSED = auto()  # ended from this side


class ChannelEndEvent(TableEnum):
    """What is done with an end."""

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
