"""Tools to test channels, ours and yours: a simulated network in virtual time, and checks built on it."""

from .cancelling import cancel_everywhere
from .lifecycles import check_lifecycle, draw_lifecycle, phases_that_reach
from .network import Network
from .schedule import seed_scheduler, seeded_schedule
from .sim_stream import Conditions, SimStream

__all__ = [
    "Conditions",
    "Network",
    "SimStream",
    "cancel_everywhere",
    "check_lifecycle",
    "draw_lifecycle",
    "phases_that_reach",
    "seed_scheduler",
    "seeded_schedule",
]
