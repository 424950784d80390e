"""Tools to test programs with channels, in virtual time and over a simulated network."""

from .cancelling import cancel_everywhere
from .contracts import check_channel, check_reading_end, check_writing_end
from .conversations import Conversation, Ending, Fault, Mishap, Stream, draw_conversation
from .job_stores import check_job_store
from .lifecycles import check_lifecycle, draw_lifecycle, states_that_reach
from .network import Network
from .promises import check_promises, play_conversation, simulate_conversation
from .recorded import BrokenPromise, RecordedHistory, from_recording
from .schedule import seed_scheduler, seeded_schedule
from .sim_stream import Conditions, SimStream
from .simulation import History, HistoryStuck, play, simulate
from .world import World

__all__ = [
    "BrokenPromise",
    "Conditions",
    "Conversation",
    "Ending",
    "Fault",
    "History",
    "HistoryStuck",
    "Mishap",
    "Network",
    "RecordedHistory",
    "SimStream",
    "Stream",
    "World",
    "cancel_everywhere",
    "check_channel",
    "check_job_store",
    "check_lifecycle",
    "check_promises",
    "check_reading_end",
    "check_writing_end",
    "draw_conversation",
    "draw_lifecycle",
    "from_recording",
    "play",
    "play_conversation",
    "seed_scheduler",
    "seeded_schedule",
    "simulate",
    "simulate_conversation",
    "states_that_reach",
]
