"""The functions of the queue, as iii's clients call them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import InlineCall, new_id, register_inline_handler
from ...wire import ErrorCode
from ...worker import Worker
from .baggage import for_job
from .dispatcher import FUNCTIONS_CHANGED, Dispatcher
from .lane import Job, Lane, depths
from .protocol import NULL, EnqueueInput, PublishInput, group_of, namespace_of, read
from .states import JobState

_enqueue: Final = msgspec.json.Decoder(EnqueueInput)
_publish: Final = msgspec.json.Decoder(PublishInput)
_BROKER: Final = {"queue": "function_queue", "topic": "builtin"}
_INTERNAL: Final = {"internal": True}


@attrs.frozen
class Which:
    """The payload of the functions about one queue, or one topic."""

    queue: str | None = None
    topic: str | None = None
    message_id: str | None = None
    offset: int = 0
    limit: int = 50

    @property
    def name(self) -> str:
        return self.queue or self.topic or ""


def register(worker: Worker, dispatcher: Dispatcher) -> None:
    """Offer the queue's functions, all in the namespace `default`."""
    ledger = dispatcher.ledger

    def check_room(jobs: int) -> None:
        if ledger.unfinished + jobs > ledger.config.jobs:
            problem = f"there are {ledger.unfinished} jobs that are not done, and at most {ledger.config.jobs} may be"
            raise CallError("queue_full", problem)

    # --- what brings jobs

    def enqueue(call: InlineCall) -> None:
        wanted: EnqueueInput = read("engine::queue::enqueue", call.payload, _enqueue)
        lane = ledger.lanes.queue(wanted.queue)
        if lane is None:
            raise CallError("queue_not_found", f"Queue '{wanted.queue}' not found")
        namespace = namespace_of(wanted.namespace)
        data, metadata = bytes(wanted.data), bytes(wanted.metadata)
        group = group_of(lane, data)
        check_room(1)
        job = ledger.admit(
            lane,
            wanted.messageReceiptId or new_id(worker),
            (namespace, wanted.function_id),
            data,
            dispatcher.timestamp,
            group=group,
            traceparent=wanted.traceparent,
            baggage=for_job(wanted.baggage, wanted.function_id),
            metadata=None if wanted.metadata == NULL else metadata,
        )
        dispatcher.keep([job], lambda: call.answer({"messageReceiptId": job.record.id}), call.fail)

    def publish(call: InlineCall) -> None:
        wanted: PublishInput = read("iii::durable::publish", call.payload, _publish)
        if not wanted.topic:
            raise CallError("topic_not_set", "Topic is not set")
        if wanted.data is msgspec.UNSET:
            problem = "Failed to deserialize input for iii::durable::publish: data: missing"
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, problem)
        data, timestamp = bytes(wanted.data), dispatcher.timestamp
        lanes = [(lane, group_of(lane, data)) for lane in ledger.lanes.topic(wanted.topic) if lane.known]
        check_room(len(lanes))
        jobs = [
            ledger.admit(
                lane,
                new_id(worker),
                lane.key.subscriber,
                data,
                timestamp,
                group=group,
                traceparent=call.traceparent,
                baggage=for_job(call.baggage, lane.key.function_id),
            )
            for lane, group in lanes
        ]
        dispatcher.keep(jobs, lambda: call.answer(None), call.fail)

    register_inline_handler(worker, "engine::queue::enqueue", enqueue, description="keep a job of a queue")
    publishing = "keep a message for each subscriber of a topic"
    register_inline_handler(worker, "iii::durable::publish", publish, description=publishing)

    # --- what people ask

    @worker.function("engine::queue::list_topics", description="the queues, and the topics that have subscribers")
    async def list_topics() -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "broker_type": _BROKER[kind],
                "subscriber_count": _consumers(lanes),
                "storage": dispatcher.place,
            }
            for (kind, name), lanes in _named(dispatcher).items()
        ]

    @worker.function("engine::queue::list", description="every queue and topic, and where its jobs are")
    async def list_queues() -> dict[str, Any]:
        timestamp = dispatcher.timestamp
        rows = []
        for (kind, name), lanes in _named(dispatcher).items():
            ages = [age for lane in lanes if (age := lane.oldest_seconds(timestamp)) is not None]
            row = attrs.asdict(depths(lanes)) | {
                "name": name,
                "kind": kind,
                "consumers": _consumers(lanes),
                "done_per_second": round(sum(lane.done.at(timestamp.now) for lane in lanes), 3),
                "oldest_seconds": max(ages, default=None),
                "waits_for": _waits_for(lanes),
            }
            rows.append(row)
        return {"queues": rows, "storage": dispatcher.place}

    @worker.function("engine::queue::topic_stats", description="how many jobs of a queue or topic are where")
    async def topic_stats(which: Which) -> dict[str, Any]:
        lanes = _lanes(dispatcher, which, "topic_required")
        there = depths(lanes)
        return {"depth": there.depth, "consumer_count": _consumers(lanes), "dlq_depth": there.dead, "config": None}

    @worker.function("engine::queue::dlq_topics", description="how many dead letters each queue and topic has")
    async def dlq_topics() -> list[dict[str, Any]]:
        return [
            {"topic": name, "broker_type": _BROKER[kind], "message_count": depths(lanes).dead}
            for (kind, name), lanes in _named(dispatcher).items()
        ]

    @worker.function(
        "engine::queue::dlq_messages", description="the dead letters of a queue or topic, the newest first"
    )
    async def dlq_messages(which: Which) -> list[dict[str, Any]]:
        lanes = _lanes(dispatcher, which, "topic_required")
        dead = _dead(lanes)[::-1]
        shown = dead[max(0, which.offset) :][: max(0, which.limit)]
        with _failing_as("dlq_messages_failed"):
            rows = [await _dead_letter(dispatcher, job) for job in shown]
        return [row for row in rows if row is not None]

    # --- what people do about dead letters

    @worker.function("iii::queue::redrive", description="give all dead letters of a queue or topic another try")
    async def redrive(which: Which) -> dict[str, Any]:
        dead = _dead(_lanes(dispatcher, which, "queue_not_set"))
        with _failing_as("redrive_failed"):
            await dispatcher.redrive(dead)
        return {"queue": which.name, "redriven": len(dead)}

    @worker.function("iii::queue::redrive_message", description="give one dead letter another try")
    async def redrive_message(which: Which) -> dict[str, Any]:
        dead = _the_one(dispatcher, which)
        with _failing_as("redrive_message_failed"):
            await dispatcher.redrive(dead)
        return {"queue": which.name, "message_id": which.message_id, "redriven": len(dead)}

    @worker.function("iii::queue::discard_message", description="throw one dead letter away")
    async def discard_message(which: Which) -> dict[str, Any]:
        dead = _the_one(dispatcher, which)
        with _failing_as("discard_message_failed"):
            await dispatcher.discard(dead)
        return {"queue": which.name, "message_id": which.message_id, "redriven": len(dead)}

    @worker.function("engine::queue::discard", description="throw all dead letters of a queue or topic away")
    async def discard(which: Which) -> dict[str, Any]:
        dead = _dead(_lanes(dispatcher, which, "queue_not_set"))
        with _failing_as("discard_failed"):
            await dispatcher.discard(dead)
        return {"queue": which.name, "discarded": len(dead)}

    # --- for ourselves

    @worker.function(FUNCTIONS_CHANGED, metadata=_INTERNAL)
    async def functions_changed(functions: list[dict[str, Any]]) -> None:
        there = {(one["namespace"], one["function_id"]) for one in functions}
        dispatcher.functions_came([function for function in ledger.missing_functions if function in there])

    @worker.function("iii-queue::on-config-change", metadata=_INTERNAL)
    async def on_config_change() -> dict[str, bool]:
        return {"ok": True}


def _named(dispatcher: Dispatcher) -> dict[tuple[str, str], list[Lane]]:
    """The lanes of each queue and each topic, in the order of their names."""
    found: dict[tuple[str, str], list[Lane]] = {}
    for lane in dispatcher.ledger.lanes:
        found.setdefault((lane.key.kind, lane.key.name), []).append(lane)
    return dict(sorted(found.items()))


def _lanes(dispatcher: Dispatcher, which: Which, code: str) -> list[Lane]:
    """The lanes that a name means: a configured queue's, else a topic's. Raises CallError where no name is given."""
    if not which.name:
        raise CallError(code, "Queue name is required" if code == "queue_not_set" else "Topic is required")
    named = _named(dispatcher)
    return named.get(("queue", which.name)) or named.get(("topic", which.name)) or []


def _dead(lanes: list[Lane]) -> list[Job]:
    """Their dead letters, the oldest death first."""
    dead = [job for lane in lanes for job in lane.dead_letters()]
    return sorted(dead, key=lambda job: job.record.died_at_ms or 0)


@contextmanager
def _failing_as(code: str) -> Iterator[None]:
    """What the store cannot do fails the call by the code that it has for that."""
    try:
        yield
    except CallError as error:
        raise CallError(code, error.message) from None


def _the_one(dispatcher: Dispatcher, which: Which) -> list[Job]:
    lanes = _lanes(dispatcher, which, "queue_not_set")
    if not which.message_id:
        raise CallError("message_id_not_set", "Message ID is required")
    return [job for job in _dead(lanes) if job.record.id == which.message_id]


def _consumers(lanes: list[Lane]) -> int:
    """A topic's subscriptions; of a queue, how many jobs run side by side."""
    return sum(lane.settings.concurrency if lane.key.kind == "queue" else lane.listeners for lane in lanes)


def _waits_for(lanes: list[Lane]) -> list[str]:
    """What is missing so that its jobs could run."""
    missing = {
        f"{job.record.function_id} in {job.record.namespace}" for lane in lanes for job in lane.waiting_for_function()
    }
    missing |= {f"{lane.key.function_id} in {lane.key.namespace}" for lane in lanes if lane.jobs and not lane.open}
    return sorted(missing)


async def _dead_letter(dispatcher: Dispatcher, job: Job) -> dict[str, Any] | None:
    """None if it is none any more."""
    record = job.record
    try:
        data = await dispatcher.data_of(job)
    except CallError:
        if job.current_state is not JobState.DEAD:
            return None
        raise
    return {
        "id": record.id,
        "payload": Raw(data),
        "error": f"{record.code}: {record.message}",
        "code": record.code,
        "message": record.message,
        "failed_at": (record.died_at_ms or 0) // 1000,
        "retries": record.attempts,
        "lost": record.lost,
        "size_bytes": job.size,
        "function_id": record.function_id,
        "namespace": record.namespace,
    }
