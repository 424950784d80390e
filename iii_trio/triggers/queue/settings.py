"""Settings of the queue: frozen values, units in every name, checked where they are made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs
from attrs import validators

from ...config.settings import MAX_NUMBER, MAX_SECONDS
from ...records import settings

DEFAULT_QUEUE = "default"
"""The queue that is always there."""
IN_MESH = "mesh"
"""The word that stands in the place of a directory where the store of the mesh has the jobs."""
MAX_SHARDS = 256
"""More would cost each look at who owns them more than it spreads."""

_at_most: Any = validators.le(MAX_NUMBER)
_positive: Any = validators.and_(validators.gt(0), _at_most)
_at_least_zero: Any = validators.and_(validators.ge(0), _at_most)
_at_least_one: Any = validators.and_(validators.ge(1), _at_most)
_seconds: Any = validators.and_(validators.gt(0), validators.le(MAX_SECONDS))
_seconds_or_zero: Any = validators.and_(validators.ge(0), validators.le(MAX_SECONDS))


def _one_of(*words: str) -> Any:
    """Return a validator for one of some words. That of attrs shows the whole attribute in its error."""

    def check(_: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value not in words:
            raise ValueError(f"'{field.name}' must be one of {', '.join(map(repr, words))}, not {value!r}")

    return check


_factor_or_none: Any = validators.optional(_at_least_one)
_seconds_or_none: Any = validators.optional(_seconds)


@settings
class QueueSettings:
    """How the jobs of one queue, or of one subscription, are run. Attempts are calls in all, the first included."""

    max_attempts: int = attrs.field(default=3, validator=_at_least_one)
    """After so many failed calls a job is a dead letter (Q6)."""
    concurrency: int = attrs.field(default=10, validator=_at_least_one)
    """How many jobs run side by side."""
    fifo: bool = False
    """Whether jobs of one group run one after the other, in the order in which they came (Q5)."""
    group_by: str | None = None
    """The member of a job's data that names its group. A named queue that is `fifo` needs it; where a subscription has
    none, all its jobs are of one group."""
    backoff_seconds: float = attrs.field(default=1.0, validator=_seconds_or_zero)
    """From the first failure to the second call; doubled at each further failure."""
    backoff: Literal["exponential", "fixed"] = attrs.field(
        default="exponential", validator=_one_of("exponential", "fixed")
    )
    max_backoff_seconds: float = attrs.field(default=3600.0, validator=_seconds)
    """The longest that it grows to."""
    visibility_timeout_seconds: float | None = attrs.field(default=None, validator=_seconds_or_none)
    """How long one attempt may take; None: as long as its worker lives (Q4)."""
    delay_seconds: float = attrs.field(default=0.0, validator=_seconds_or_zero)
    """From a job's arrival to its first call, at the least."""
    max_lost_deliveries: int = attrs.field(default=3, validator=_at_least_one)
    """After so many workers have been lost with it a job is a dead letter (Q3)."""
    missing_function_seconds: float | None = attrs.field(default=None, validator=_seconds_or_none)
    """How long an attempt waits for a worker that has the function. None waits for ever, as subscriptions always do (Q7)."""
    max_jobs: int | None = attrs.field(default=None, validator=validators.optional(_at_least_one))
    """How many unfinished jobs this queue, or this subscription, may have (Q17). None: no bound of its own."""
    overrun_factor: float | None = attrs.field(default=10.0, validator=_factor_or_none)
    """A call that runs for more than so many times the median of its queue is a line in the log (Q33). None: never."""
    dead_letters: int = attrs.field(default=10_000, validator=_at_least_zero)
    """How many dead letters are kept: the oldest give way, and the log says so."""

    def __attrs_post_init__(self) -> None:
        if self.group_by is not None and not self.fifo:
            raise ValueError("'group_by' says how a fifo queue is grouped: set 'fifo' too, or leave it out")

    def pause_seconds(self, failures: int, jitter: float = 1.0) -> float:
        """How long a job rests after so many failures; `jitter`, at least 1, lengthens it."""
        doublings = min(failures - 1, 60) if self.backoff == "exponential" else 0
        return min(self.backoff_seconds * 2.0**doublings * jitter, self.longest_pause_seconds)

    @property
    def longest_pause_seconds(self) -> float:
        """The longest that a job rests after a failure."""
        return max(self.max_backoff_seconds, self.backoff_seconds)


def _frozen(queues: Mapping[str, QueueSettings]) -> Mapping[str, QueueSettings]:
    return MappingProxyType({DEFAULT_QUEUE: QueueSettings(), **queues})


@settings
class QueueConfig:
    """What the queue module can be told."""

    queues: Mapping[str, QueueSettings] = attrs.field(factory=dict, converter=_frozen)
    """The queues that jobs can be enqueued to, by name; one named `default` is always there."""
    directory: str | None = None
    """Where jobs are kept on disk; None: in memory only, for as long as the engine runs."""
    in_mesh: bool = False
    """Whether the queues are those of the engine's mesh, whose store has the jobs. `directory` has no effect then."""
    shards: int = attrs.field(default=16, validator=validators.and_(validators.ge(1), validators.le(MAX_SHARDS)))
    """Into how many shards the queues of a mesh are divided, the first time. Nodes own shards, so that queues spread."""
    synchronous: Literal["full", "normal", "off"] = attrs.field(
        default="full", validator=_one_of("full", "normal", "off")
    )
    """When a job counts as on disk: `full`, the disk has said so: it outlives a loss of power. `normal` and `off` outlive a
    killed engine, and are faster."""
    jobs: int = attrs.field(default=1_000_000, validator=_positive)
    """How many unfinished jobs there may be in all: what comes beyond is refused. Of a mesh, in all shards of one node."""
    disk_bytes: int | None = attrs.field(default=None, validator=validators.optional(_positive))
    """How much the jobs and dead letters may take on disk, about. What comes beyond is refused (Q14). None: no bound, but a
    reserve of the disk's free space is left alone."""
    max_away_seconds: float | None = attrs.field(default=31 * 86_400.0, validator=_seconds_or_none)
    """A subscription ends when its subscriber has been away for so long (Q34). None: never."""
    max_away_jobs: int | None = attrs.field(default=None, validator=validators.optional(_at_least_one))
    """How many messages wait for a subscriber that is away. Beyond it, the oldest give way to new ones (Q34). None: new ones
    are refused, at `max_jobs` of the subscription."""
    memory_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_at_least_zero)
    """How much of the jobs' data is kept in memory beside the disk; more is read back when its turn comes."""

    def __attrs_post_init__(self) -> None:
        # An empty path would be the directory that the engine happens to be started in.
        if isinstance(self.directory, str) and not self.directory.strip():
            raise ValueError("'directory' is empty: name a directory, or leave it out to keep jobs in memory")
        for name, queue in self.queues.items():
            if not isinstance(name, str):
                raise TypeError(f"a queue's name is a string, not {name!r}")
            if not name.strip():
                raise ValueError("a queue has an empty name")
            if not isinstance(queue, QueueSettings):
                raise TypeError(f"queue '{name}' has {queue!r} where QueueSettings(…) are expected")
            # Only the jobs of a subscription are all of one group where none is named.
            if queue.fifo and queue.group_by is None:
                raise ValueError(
                    f"queue '{name}' is 'fifo': name the member of its jobs' data that groups them ('group_by')"
                )
