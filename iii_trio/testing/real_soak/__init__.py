"""A soak in real time: a real engine process, and worker processes that come, go, stream, call, and are killed.

`python -m iii_trio.testing.soak --real` is its command. `plans` says what a stream carries and how it is to end; `actor` and
`sdk_actor` are the worker processes, `ends` what they do with a stream; `ledger` judges what they tell, `samples` what the
engine holds, `logs` what it says. `stage` has the processes, `wires` connections that can be cut, `crowd` the workers, and
`run` plays it all; `played` is what came of it, `plot` draws it.
"""

from .played import Played, Soak, write_down
from .run import play_soak

__all__ = ["Played", "Soak", "play_soak", "write_down"]
