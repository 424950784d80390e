"""The life of a channel's end in a worker's hands."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..lifecycle import Step, Table


class Phase(Step):
    """What has been done with an end here."""

    FRESH = auto()
    LENT = auto()  # its ref was passed on: its rightful user attaches it
    USED = auto()  # attached, or being attached, here
    CLOSED = auto()  # ended from this side


class Cue(Step):
    """What is done with an end."""

    PASS_ON = auto()
    USE = auto()
    CLOSE = auto()


CHANNEL_END: Final[Table[Phase, Cue]] = {
    Phase.FRESH: {Cue.PASS_ON: Phase.LENT, Cue.USE: Phase.USED, Cue.CLOSE: Phase.CLOSED},
    Phase.LENT: {Cue.PASS_ON: Phase.LENT, Cue.USE: Phase.USED, Cue.CLOSE: Phase.CLOSED},
    Phase.USED: {Cue.PASS_ON: Phase.USED, Cue.USE: Phase.USED, Cue.CLOSE: Phase.CLOSED},
    Phase.CLOSED: {},
}
