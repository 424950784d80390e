"""The life of a worker's membership: from the first dial to its last goodbye."""

from __future__ import annotations

from enum import auto
from typing import Final

from ..lifecycle import Step, Table


class Phase(Step):
    """Where a worker is, as seen by itself."""

    DIALING = auto()
    GREETING = auto()  # linked; what it declared is being replayed
    READY = auto()
    WAITING = auto()  # lost, or not reached; it dials again soon
    REFUSED = auto()  # the engine wants it no more, for good
    RETIRED = auto()  # it left by itself


class Cue(Step):
    """What happened to a worker's membership."""

    LINKED = auto()
    GREETED = auto()
    NOT_REACHED = auto()
    LINK_LOST = auto()
    WAITED = auto()
    REJECTED = auto()
    LEFT = auto()


MEMBERSHIP: Final[Table[Phase, Cue]] = {
    Phase.DIALING: {Cue.LINKED: Phase.GREETING, Cue.NOT_REACHED: Phase.WAITING, Cue.LEFT: Phase.RETIRED},
    Phase.GREETING: {
        Cue.GREETED: Phase.READY,
        Cue.LINK_LOST: Phase.WAITING,
        Cue.REJECTED: Phase.REFUSED,
        Cue.LEFT: Phase.RETIRED,
    },
    Phase.READY: {Cue.LINK_LOST: Phase.WAITING, Cue.REJECTED: Phase.REFUSED, Cue.LEFT: Phase.RETIRED},
    Phase.WAITING: {Cue.WAITED: Phase.DIALING, Cue.LEFT: Phase.RETIRED},
    Phase.REFUSED: {},
    Phase.RETIRED: {},
}
