"""Long runs of the product: simulated ones, and one in real time with processes that come, go, stream, call and are killed.

`python -m tests.soak --seeds N` runs `simulated`. `python -m tests.soak --real` runs the rest of this package:

- `plans` states the content of a stream and its planned end.
- `actor` and `sdk_actor` are the worker processes. `ends` holds their use of a stream.
- `ledger` judges the reports of the workers, `samples` the state of the engine, `logs` its log lines.
- `stage` starts processes, `wires` holds connections that can be cut, `crowd` the workers, `run` the whole run.
- `played` is the result, `plot` draws it.
"""

from .played import Played, Soak, write_down
from .run import play_soak

__all__ = ["Played", "Soak", "play_soak", "write_down"]
