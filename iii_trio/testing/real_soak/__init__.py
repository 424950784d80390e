"""A soak in real time: a real engine process, and worker processes that come, go, stream, call, and are killed.

`python -m iii_trio.testing.soak --real` is its command. `plans` says what a stream carries and how it is to end, `actor`
and `sdk_actor` are the workers, `ledger` judges what they tell, `samples` judges what the engine holds, `stage` has the
processes, `wires` the connections that can be cut, and `run` plays it all.
"""

from .ledger import Ledger
from .run import Soak, play_soak
from .samples import Sample, Verdict, judge

__all__ = ["Ledger", "Sample", "Soak", "Verdict", "judge", "play_soak"]
