"""Tools to test channels, ours and yours: a simulated network in virtual time, and checks built on it."""

from .cancelling import cancel_everywhere
from .lifecycles import check_lifecycle, draw_lifecycle, phases_that_reach
from .network import Network
from .schedule import seed_scheduler, seeded_schedule
from .sim_stream import Conditions, SimStream
from .simulation import History, HistoryStuck, play, simulate
from .world import World

__all__ = [
    "Conditions",
    "History",
    "HistoryStuck",
    "Network",
    "SimStream",
    "World",
    "cancel_everywhere",
    "check_lifecycle",
    "draw_lifecycle",
    "phases_that_reach",
    "play",
    "seed_scheduler",
    "seeded_schedule",
    "simulate",
]
