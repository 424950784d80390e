"""The calls of one shard at a node of a mesh, on their way to the node that owns the shard.

A call that no owner has read is kept until there is one. A call that was lost with its owner is made again where that does
no harm: reading, waiting, and enqueueing, because each job has its receipt before it is kept (Q21).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs
import trio
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import CallHandle, InlineCall, call_nowait, can_call
from ...records import define
from ...wire import ErrorCode, InvokeFunction
from ...worker import Worker
from .dispatcher import NOT_OWNED, OWNER_LOST
from .protocol import FORGET
from .shards import namespace_of_shard

UNAVAILABLE: Final = "queue_unavailable"

_REPEATABLE: Final = frozenset(
    {
        FORGET,
        "engine::queue::enqueue",
        "engine::queue::list_topics",
        "engine::queue::list",
        "engine::queue::topic_stats",
        "engine::queue::dlq_topics",
        "engine::queue::dlq_messages",
        "engine::queue::wait",
        "engine::queue::jobs",
        "engine::queue::job",
    }
)
_UNREAD: Final = frozenset({ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.ENGINE_DRAINING})
_MAX_CALLS: Final = 10_000
_MAX_BYTES: Final = 64 * 1024 * 1024


@define(eq=False)
class PassedCall:
    """A call on its way to one owner. It ends with `answered` or `failed`, once."""

    function_id: str
    call: InlineCall | None
    """The call that is passed on. None: it is the front's own."""
    payload: bytes
    answered: Callable[[bytes], object]
    failed: Callable[[CallError], object]
    number: int = 0
    """When it came, among the calls of its shard."""
    until: float = 0.0
    handle: CallHandle | None = None
    problem: str = ""
    over: bool = False

    def answer(self, result: bytes) -> None:
        """End it with JSON."""
        self.over = True
        self.answered(result)

    def fail(self, error: CallError) -> None:
        """End it with an error."""
        self.over = True
        self.failed(error)


@define(eq=False)
class FrontState:
    """What the calls of all shards of one node have in common."""

    worker: Worker
    on_refused: Callable[[], object]
    """Called when an owner turns out not to be the owner."""
    patience_seconds: float = 20.0
    """How long a call waits for an owner."""
    problem: str = ""
    """Why this node cannot ask the store who owns what. Empty: it can."""
    calls: int = 0
    """The number of calls that wait."""
    bytes: int = 0
    """The size of their payloads."""
    arrived: trio.Event = attrs.field(factory=trio.Event)
    """Set when a call waits."""
    moved: trio.Event = attrs.field(factory=trio.Event)
    """Set when a shard has another owner."""


@final
class ShardCalls:
    """The calls of one shard."""

    def __init__(self, shard: int, state: FrontState) -> None:
        self.owner: str | None = None
        self._shard = shard
        self._state = state
        self._calls = 0
        self._waiting: list[PassedCall] = []
        self._is_closed = False

    @property
    def waits(self) -> bool:
        """Whether calls wait."""
        return bool(self._waiting)

    def owned_by(self, node: str | None) -> None:
        """Pass calls on to this node from now on."""
        if node != self.owner:
            self.owner = node
            self._state.moved.set()

    def take(self, passed: PassedCall) -> None:
        """Pass a call on, or keep it until there is an owner."""
        self._calls += 1
        passed.number = self._calls
        passed.until = trio.current_time() + self._state.patience_seconds
        # A later call must not overtake one that waits.
        if self.owner is None or self._waiting or not can_call(self._state.worker):
            self._wait(passed)
        else:
            self._send(passed)

    def retry(self) -> None:
        """Pass on the calls that wait, if there is an owner. End those that have waited for too long."""
        now = trio.current_time()
        for passed in [passed for passed in self._waiting if now >= passed.until]:
            self._leave(passed)
            passed.fail(self._unavailable(passed))
        if self.owner is None or not can_call(self._state.worker):
            return
        for passed in sorted(self._waiting, key=lambda passed: passed.number):
            self._leave(passed)
            if not passed.over:
                self._send(passed)

    def give_up(self, passed: PassedCall, reason: str) -> None:
        """Forget a call. Its handler at the owner is cancelled."""
        if passed.over:
            return
        passed.over = True
        if passed.handle is not None:
            passed.handle.give_up(reason)
        if passed in self._waiting:
            self._leave(passed)

    def close(self) -> None:
        """End all calls that wait, because there is no such shard any more."""
        self._is_closed = True
        for passed in list(self._waiting):
            self._leave(passed)
            passed.fail(self._unavailable(passed))

    def _wait(self, passed: PassedCall) -> None:
        state = self._state
        full = state.calls >= _MAX_CALLS or state.bytes + len(passed.payload) > _MAX_BYTES
        if full or self._is_closed or trio.current_time() >= passed.until:
            passed.fail(self._unavailable(passed))
            return
        self._waiting.append(passed)
        state.calls += 1
        state.bytes += len(passed.payload)
        state.arrived.set()

    def _leave(self, passed: PassedCall) -> None:
        self._waiting.remove(passed)
        self._state.calls -= 1
        self._state.bytes -= len(passed.payload)

    def _unavailable(self, passed: PassedCall) -> CallError:
        shard = f"shard {self._shard} of the queues"
        owner = f"no node owns {shard}" if self.owner is None else f"node {self.owner}, which owns {shard}, is away"
        # What is known of owners may be old, and this node may even be the one that was known.
        if self._state.problem:
            owner = f"it is not known who owns {shard}, because {self._state.problem}"
        return CallError(UNAVAILABLE, passed.problem or f"{owner}: try again later")

    def _send(self, passed: PassedCall) -> None:
        assert self.owner is not None
        call = passed.call
        message = InvokeFunction(
            passed.function_id,
            data=Raw(passed.payload),
            namespace=namespace_of_shard(self.owner, self._shard),
        )
        if call is not None:
            message.traceparent, message.baggage, message.metadata = call.traceparent, call.baggage, call.metadata
        passed.handle = None

        def settled() -> None:
            # It may be settled within the call, before there is a handle.
            if passed.handle is not None and not passed.over:
                self._settle(passed, passed.handle)

        try:
            passed.handle = call_nowait(self._state.worker, message, settled)
        except CallError as error:  # it is too large
            passed.fail(error)
            return
        if passed.handle.settled:
            settled()

    def _settle(self, passed: PassedCall, handle: CallHandle) -> None:
        try:
            result = handle.result()
        except CallError as error:
            unread = error.code == NOT_OWNED or (error.origin == "engine" and error.code in _UNREAD)
            lost = error.code == OWNER_LOST or (error.origin == "engine" and error.code == ErrorCode.INVOCATION_STOPPED)
            if unread or (lost and passed.function_id in _REPEATABLE):
                if not unread:
                    passed.problem = error.message
                    # It may have been there for long.
                    passed.until = trio.current_time() + self._state.patience_seconds
                self._state.on_refused()
                self._wait(passed)
            else:
                passed.fail(error)
        else:
            passed.answer(bytes(result) or b"null")
