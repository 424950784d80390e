"""The queue, tortured: a real engine with its jobs on disk, and real workers, all of them killed at random moments.

    python -m tests.torture --rounds 200

In a round clients enqueue and publish while the engine and its workers are killed (SIGKILL) or sent away, and started
anew. Then it is counted: every job whose receipt came was done; none was done in vain, out of turn, or given up without
a cause; the engine forgot nothing and kept nothing. `plan` draws a round from its seed, `engine`, `actor` and
`sdk_actor` are the processes, `book` is what workers have in common, `clients` are whoever wants work done, `tally`
judges, and `play` has it happen. A seed fixes what is tried, not when the kernel lets it happen.
"""

from .plan import Plan
from .play import Played, play_round
from .tally import Tally

__all__ = ["Plan", "Played", "Tally", "play_round"]
