"""Tools to test channels, ours and yours: a simulated network in virtual time, and checks built on it."""

from .network import Network
from .sim_stream import Conditions, SimStream

__all__ = ["Conditions", "Network", "SimStream"]
