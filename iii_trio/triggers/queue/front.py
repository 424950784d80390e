"""The queue's functions at a node of a mesh. Each call is passed on to the node that owns the queues.

A call that no owner has read is kept until there is one. A call that was lost with its owner is made again where that does
no harm: reading, waiting, and enqueueing, because each job has its receipt before it is kept (Q21).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, final

import attrs
import trio
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import CallHandle, InlineCall, call_nowait, can_call, register_inline_handler
from ...wire import ErrorCode, InvokeFunction
from ...worker import Worker
from .dispatcher import NOT_OWNED, OWNER_LOST

UNAVAILABLE: Final = "queue_unavailable"

FUNCTIONS: Final = {
    "engine::queue::enqueue": "keep a job of a queue",
    "iii::durable::publish": "keep a message for each subscriber of a topic",
    "engine::queue::list_topics": "the queues, and the topics that have subscribers",
    "engine::queue::list": "every queue and topic, and where its jobs are",
    "engine::queue::topic_stats": "how many jobs of a queue or topic are where",
    "engine::queue::dlq_topics": "how many dead letters each queue and topic has",
    "engine::queue::dlq_messages": "the dead letters of a queue or topic, the newest first",
    "iii::queue::redrive": "give the dead letters of a queue or topic another try",
    "iii::queue::redrive_message": "give one dead letter another try",
    "iii::queue::discard_message": "discard one dead letter",
    "engine::queue::discard": "discard all dead letters of a queue or topic",
    "engine::queue::purge": "remove the waiting jobs of a queue, topic or subscriber",
    "engine::queue::unsubscribe": "end the subscription of a subscriber that is away",
    "engine::queue::wait": "wait until a job is done, dead or removed",
    "engine::queue::jobs": "the jobs of a queue or topic by page, the oldest first",
    "engine::queue::job": "one job: its state, its attempts and its payload",
    "engine::queue::cancel": "remove one job, and cancel its handler if it runs",
    "engine::queue::pause": "start no jobs of a queue, a topic or one subscriber of it",
    "engine::queue::resume": "start the jobs again of what was paused",
    "engine::queue::backup": "write a file with all jobs, as they are now, to a channel",
}
"""The functions of a queue, with their descriptions."""
_REPEATABLE: Final = frozenset(
    {
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
_RETRY_SECONDS: Final = 0.1
_MAX_CALLS: Final = 10_000
_MAX_BYTES: Final = 64 * 1024 * 1024


def namespace_of_node(node: str) -> str:
    """Return the namespace in which a node that owns the queues offers their functions to the mesh."""
    return f"iii-queue.{node}"


@attrs.define(eq=False)
class _Passed:
    """A call on its way. Its number says when it came."""

    number: int
    function_id: str
    call: InlineCall
    payload: bytes
    until: float
    handle: CallHandle | None = None
    problem: str = ""
    answered: bool = False


@final
class Front:
    """The functions of one node. `on_refused` is called when the owner turns out not to be the owner."""

    def __init__(self, worker: Worker, on_refused: Callable[[], object]) -> None:
        self.owner: str | None = None
        self.patience_seconds = 20.0
        """How long a call waits for an owner."""
        self._worker = worker
        self._on_refused = on_refused
        self._calls = 0
        self._waiting: list[_Passed] = []
        self._bytes = 0
        self._arrived = trio.Event()
        """Set when a call waits."""
        self._moved = trio.Event()
        """Set when there is another owner."""

    def offer(self) -> None:
        """Offer the functions."""
        for function_id, description in FUNCTIONS.items():
            handler = functools.partial(self._called, function_id)
            register_inline_handler(self._worker, function_id, handler, description=description)

    def owned_by(self, node: str | None) -> None:
        """Pass calls on to this node from now on."""
        if node != self.owner:
            self.owner = node
            self._moved.set()

    async def run(self) -> None:
        """Pass on the calls that wait, until cancelled."""
        while True:
            await self._arrived.wait()
            while self._waiting:
                self._expire()
                if self.owner is not None and can_call(self._worker):
                    waiting, self._waiting, self._bytes = self._waiting, [], 0
                    for passed in sorted(waiting, key=lambda passed: passed.number):
                        if not passed.answered:
                            self._send(passed)
                # The owner may offer its functions a moment after it has the lease.
                with trio.move_on_after(_RETRY_SECONDS):
                    await self._moved.wait()
                self._moved = trio.Event()
            self._arrived = trio.Event()

    def _called(self, function_id: str, call: InlineCall) -> None:
        self._calls += 1
        until = trio.current_time() + self.patience_seconds
        passed = _Passed(self._calls, function_id, call, bytes(call.payload), until)
        call.when_cancelled(functools.partial(self._cancelled, passed))
        # A later call must not overtake one that waits.
        if self.owner is None or self._waiting or not can_call(self._worker):
            self._wait(passed)
        else:
            self._send(passed)

    def _wait(self, passed: _Passed) -> None:
        full = len(self._waiting) >= _MAX_CALLS or self._bytes + len(passed.payload) > _MAX_BYTES
        if full or trio.current_time() >= passed.until:
            self._fail(passed, self._unavailable(passed))
            return
        self._waiting.append(passed)
        self._bytes += len(passed.payload)
        self._arrived.set()

    def _expire(self) -> None:
        now = trio.current_time()
        for passed in [passed for passed in self._waiting if now >= passed.until]:
            self._waiting.remove(passed)
            self._bytes -= len(passed.payload)
            self._fail(passed, self._unavailable(passed))

    def _unavailable(self, passed: _Passed) -> CallError:
        owner = (
            "no node owns the queues" if self.owner is None else f"node {self.owner}, which owns the queues, is away"
        )
        return CallError(UNAVAILABLE, passed.problem or f"{owner}: try again later")

    def _send(self, passed: _Passed) -> None:
        assert self.owner is not None
        call = passed.call
        message = InvokeFunction(
            passed.function_id,
            data=Raw(passed.payload),
            traceparent=call.traceparent,
            baggage=call.baggage,
            metadata=call.metadata,
            namespace=namespace_of_node(self.owner),
        )
        passed.handle = None

        def settled() -> None:
            # It may be settled within the call, before there is a handle.
            if passed.handle is not None and not passed.answered:
                self._settle(passed, passed.handle)

        try:
            passed.handle = call_nowait(self._worker, message, settled)
        except CallError as error:  # it is too large
            self._fail(passed, error)
            return
        if passed.handle.settled:
            settled()

    def _settle(self, passed: _Passed, handle: CallHandle) -> None:
        try:
            result = handle.result()
        except CallError as error:
            unread = error.code == NOT_OWNED or (error.origin == "engine" and error.code in _UNREAD)
            lost = error.code == OWNER_LOST or (error.origin == "engine" and error.code == ErrorCode.INVOCATION_STOPPED)
            if unread or (lost and passed.function_id in _REPEATABLE):
                if not unread:
                    passed.problem = error.message
                    passed.until = trio.current_time() + self.patience_seconds  # it may have been there for long
                self._on_refused()
                self._wait(passed)
            else:
                self._fail(passed, error)
        else:
            passed.answered = True
            passed.call.answer_raw(bytes(result) or b"null")

    def _fail(self, passed: _Passed, error: CallError) -> None:
        passed.answered = True
        passed.call.fail(error)

    def _cancelled(self, passed: _Passed, reason: str) -> None:
        if passed.answered:
            return
        if passed.handle is not None:
            passed.handle.give_up(reason)
        if passed in self._waiting:
            self._waiting.remove(passed)
            self._bytes -= len(passed.payload)
        self._fail(passed, CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))
