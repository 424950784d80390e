"""The queue's functions at a node of a mesh. Each call is passed on to the node that owns its shard of the queues.

A call that names a queue or a topic goes to one shard. A call that names a job goes to the shard whose owner has given this
node the receipt, or else to all, because one of them has the job. Lists are asked of all shards, and merged.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, final

import msgspec
import trio

from ...errors import CallError
from ...lowlevel import InlineCall, new_id, register_inline_handler
from ...report import get_logger
from ...wire import ErrorCode, to_json
from ...worker import Worker
from .front_calls import FrontState, PassedCall, ShardCalls
from .front_merge import MERGES, AskedOfAll, merged, the_one_found
from .protocol import FORGET
from .shards import shard_of

LOGGER: Final = get_logger("iii_trio.queue")
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
ENQUEUE: Final = "engine::queue::enqueue"
_OF_TOPICS: Final = frozenset({"iii::durable::publish", "engine::queue::unsubscribe"})
_OF_JOBS: Final = frozenset({"engine::queue::wait", "engine::queue::job", "engine::queue::cancel"})
_RETRY_SECONDS: Final = 0.1
_RECEIPTS: Final = 10_000
"""How many jobs are found without asking all shards: the last ones that were enqueued at this node."""


class _Names(msgspec.Struct, frozen=True):
    """The names in a call. Functions pass over fields that are not theirs, so a value of any type may be in one."""

    queue: Any = None
    topic: Any = None
    id: Any = None
    messageReceiptId: Any = None


_names: Final = msgspec.json.Decoder(_Names)
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _text(value: Any) -> str:
    # The shard refuses another type, if the field is one of its function.
    return value if isinstance(value, str) else ""


def _with_receipt(payload: bytes, receipt: str) -> bytes:
    """Return the payload of an enqueue with a receipt. One that is not an object stays as it is, and is refused."""
    try:
        members = _members.decode(payload)
    except (ValueError, RecursionError):
        return payload
    return to_json(members | {"messageReceiptId": receipt})


@final
class Front:
    """The functions of one node."""

    def __init__(self, state: FrontState, shards: int) -> None:
        self.state = state
        self._shards = [ShardCalls(shard, state) for shard in range(shards)]
        self._receipts: OrderedDict[str, int] = OrderedDict()
        """The shards of jobs that were enqueued at this node, by receipt."""

    def offer(self, worker: Worker) -> None:
        """Offer the functions."""
        for function_id, description in FUNCTIONS.items():
            handler = functools.partial(self._called, function_id)
            register_inline_handler(worker, function_id, handler, description=description)

    def owned_by(self, owners: Sequence[str | None]) -> None:
        """Pass calls on to these nodes from now on, which own one shard each."""
        if len(owners) != len(self._shards):
            before, self._shards = self._shards, [ShardCalls(shard, self.state) for shard in range(len(owners))]
            self._receipts.clear()
            for shard in before:
                shard.close()
        for shard, owner in zip(self._shards, owners, strict=True):
            shard.owned_by(owner)

    def forget(self, topic: str, namespace: str, function_id: str) -> None:
        """Have the owner of a topic end the subscription of a subscriber, unless there are bindings of it still."""
        payload = to_json({"topic": topic, "namespace": namespace, "function_id": function_id})

        def failed(error: CallError) -> None:
            LOGGER.warning(
                "%s was to be a subscriber of %s no more, and may be one still; `iii-trio unsubscribe` ends that: %s",
                function_id, topic, error,
            )  # fmt: skip

        self._shards[shard_of(topic, len(self._shards))].take(
            PassedCall(FORGET, None, payload, lambda result: None, failed)
        )

    async def run(self) -> None:
        """Pass on the calls that wait, until cancelled."""
        state = self.state
        while True:
            await state.arrived.wait()
            while any(shard.waits for shard in self._shards):
                for shard in self._shards:
                    shard.retry()
                # The owner may offer its functions a moment after it has the lease.
                with trio.move_on_after(_RETRY_SECONDS):
                    await state.moved.wait()
                state.moved = trio.Event()
            state.arrived = trio.Event()

    def _called(self, function_id: str, call: InlineCall) -> None:
        payload = bytes(call.payload)
        if function_id in MERGES:
            AskedOfAll(function_id, call, payload, self._shards, merged)
            return
        try:
            names = _names.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            names = _Names()  # any shard refuses it
        receipt = _text(names.id)
        if function_id in _OF_JOBS and receipt:
            shard = self._receipts.get(receipt)
            if shard is None:
                AskedOfAll(function_id, call, payload, self._shards, the_one_found)
                return
        else:
            topic = _text(names.topic)
            shard = shard_of(topic if function_id in _OF_TOPICS else _text(names.queue) or topic, len(self._shards))
        # A call that is made again after its owner was lost must not keep a second job.
        if function_id == ENQUEUE and not names.messageReceiptId:
            payload = _with_receipt(payload, new_id(self.state.worker))
        self._pass_on(function_id, call, payload, shard)

    def _pass_on(self, function_id: str, call: InlineCall, payload: bytes, shard: int) -> None:
        """Pass a call on to one shard."""
        answered = call.answer_raw
        if function_id == ENQUEUE:

            def answered(result: bytes) -> None:
                self._note_receipt(result, shard)
                call.answer_raw(result)

        calls = self._shards[shard]
        passed = PassedCall(function_id, call, payload, answered, call.fail)

        def cancelled(reason: str) -> None:
            if not passed.over:
                calls.give_up(passed, reason)
                call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))

        call.when_cancelled(cancelled)
        calls.take(passed)

    def _note_receipt(self, answer: bytes, shard: int) -> None:
        try:
            receipt = _text(_names.decode(answer).messageReceiptId)
        except msgspec.DecodeError:
            return
        if receipt:
            self._receipts[receipt] = shard
            if len(self._receipts) > _RECEIPTS:
                self._receipts.popitem(last=False)
