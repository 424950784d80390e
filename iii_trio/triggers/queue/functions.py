"""The functions of the queue, as iii's clients call them."""

# Annotations are not texts here, because a start reads them and would compile each text.

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from msgspec import Raw

from ...errors import CallError
from ...lowlevel import InlineCall, new_id, register_inline_handler
from ...structure import FunctionInput
from ...wire import NULL, bad_input
from ...worker import Worker
from .baggage import for_job
from .dispatcher import FUNCTIONS_CHANGED, OWNER_LOST, Dispatcher
from .job_rows import by_state
from .lane import WAITING, Job, Lane, depths
from .operator_functions import no_queue, register_operators
from .operators import Operators
from .protocol import (
    FORGET,
    NO_OPTIONS,
    EnqueueInput,
    PublishInput,
    check_ids,
    check_metadata,
    group_of,
    namespace_of,
    read,
    trace_headers,
)
from .record import NORMAL_PRIORITY
from .states import JobState
from .store import Payload
from .subscribers import Subscribers

_enqueue: Final = msgspec.json.Decoder(EnqueueInput)
_publish: Final = msgspec.json.Decoder(PublishInput)
_BROKER: Final = {"queue": "function_queue", "topic": "builtin"}
_INTERNAL: Final = {"internal": True}
_LIST_BYTES: Final = 768 * 1024  # of one answer, because Python SDKs before 0.25 take no more than 1 MiB


class Which(FunctionInput, frozen=True):
    """The payload of the functions about one queue, or one topic."""

    queue: str | None = None
    topic: str | None = None
    message_id: str | None = None
    function_id: str | None = None
    namespace: str | None = None
    offset: int = 0
    limit: int = 50
    payloads: bool = True
    dry_run: bool = False
    count: int | None = None
    to_function_id: str | None = None
    to_namespace: str | None = None

    @property
    def name(self) -> str:
        """The name of the queue or the topic."""
        return self.queue or self.topic or ""


def register(worker: Worker, dispatcher: Dispatcher, operators: Operators, subscribers: Subscribers) -> None:
    """Offer the queue's functions, all in the namespace `default`."""
    _register_inputs(worker, dispatcher, subscribers)
    _register_views(worker, dispatcher)
    _register_actions(worker, dispatcher, operators, subscribers)
    register_operators(worker, dispatcher, operators)

    @worker.function(FUNCTIONS_CHANGED, metadata=_INTERNAL)
    async def functions_changed(functions: list[dict[str, Any]]) -> None:
        there = {(one["namespace"], one["function_id"]) for one in functions}
        missing = dispatcher.ledger.parked.functions
        dispatcher.functions_came([function for function in missing if function in there])

    @worker.function(FORGET, metadata=_INTERNAL)
    async def forget(which: Which) -> None:
        await dispatcher.wait_loaded()
        dispatcher.check_owner()
        try:
            await subscribers.withdraw(which.name, _function_in(which))
        except CallError as error:
            raise error if dispatcher.owns() else CallError(OWNER_LOST, error.message) from None

    @worker.function("iii-queue::on-config-change", metadata=_INTERNAL)
    async def on_config_change() -> dict[str, bool]:
        return {"ok": True}


def _register_inputs(worker: Worker, dispatcher: Dispatcher, subscribers: Subscribers) -> None:
    """Offer the functions that bring jobs."""
    ledger = dispatcher.ledger

    def check_room(lanes: list[Lane], size: int) -> None:
        problem = ledger.room.problem(lanes, size)
        if problem is not None:
            raise CallError("queue_full", problem)

    def enqueue(call: InlineCall) -> None:
        dispatcher.check_owner()
        request: EnqueueInput = read("engine::queue::enqueue", call.payload, _enqueue)
        lane = ledger.lanes.queue(request.queue)
        if lane is None:
            raise CallError("queue_not_found", f"Queue '{request.queue}' not found{dispatcher.at_node}")
        namespace = namespace_of(request.namespace)
        job_id = request.messageReceiptId or new_id(worker)
        check_ids("engine::queue::enqueue", request.function_id, namespace, job_id)

        def answer() -> None:
            call.answer({"messageReceiptId": job_id})

        known = ledger.find(job_id) if request.messageReceiptId else None
        if known is not None:
            dispatcher.keep_again(known, answer, call.fail)
            return
        if ledger.was_done(job_id):
            answer()
            return
        data = bytes(request.data)
        size, metadata = len(data), None
        if request.metadata != NULL:
            check_metadata("engine::queue::enqueue", request.metadata)
            metadata = bytes(request.metadata)
            size += len(metadata)
        group = group_of(lane, data) if lane.settings.fifo else None
        options = NO_OPTIONS if request.options is None else request.options
        if options is not NO_OPTIONS and lane.settings.fifo and options.priority != NORMAL_PRIORITY:
            problem = f"queue '{request.queue}' is FIFO and keeps the order of its jobs; leave `priority` out"
            raise CallError("priority_in_fifo", problem)
        replaced: list[Job] = []
        if options.unique_key is not None:

            def again() -> None:
                try:
                    enqueue(call)
                except CallError as error:
                    call.fail(error)

            if dispatcher.is_loading:  # the job that has the key may be on disk only
                dispatcher.when_loaded(again)
                return
            holder = ledger.unique.holder(lane.text, options.unique_key, dispatcher.timestamp.now)
            there = None if holder is None else ledger.find(holder)
            if holder is not None and not options.replace:
                first = {"messageReceiptId": holder}
                if there is None:
                    call.answer(first)
                else:
                    dispatcher.keep_again(there, lambda: call.answer(first), call.fail)
                return
            if there is not None and there.current_state is JobState.STORING:
                dispatcher.after_stored(again, call.fail)
                return
            if there is not None and there.current_state in WAITING:
                replaced.append(there)
        check_room([lane], size)
        traceparent, baggage = trace_headers(request.traceparent, request.baggage)
        job = ledger.admit(
            lane,
            job_id,
            (namespace, request.function_id),
            data,
            dispatcher.timestamp,
            group=group,
            traceparent=traceparent,
            baggage=for_job(baggage, request.function_id),
            metadata=metadata,
            options=options,
        )
        dispatcher.keep([job], answer, call.fail, instead_of=replaced)

    def publish(call: InlineCall) -> None:
        dispatcher.check_owner()
        request: PublishInput = read("iii::durable::publish", call.payload, _publish)
        if not request.topic:
            raise CallError("topic_not_set", "Topic is not set")
        if request.data is msgspec.UNSET:
            raise bad_input("iii::durable::publish", "data: missing")
        data, timestamp = bytes(request.data), dispatcher.timestamp
        lanes = [(lane, group_of(lane, data)) for lane in ledger.lanes.topic(request.topic) if lane.known]
        given_up = subscribers.oldest_of_absent([lane for lane, _ in lanes])
        check_room([lane for lane, _ in lanes if lane not in given_up], len(data))
        traceparent, baggage = trace_headers(call.traceparent, call.baggage)
        jobs = [
            ledger.admit(
                lane,
                new_id(worker),
                lane.key.subscriber,
                data,
                timestamp,
                group=group,
                traceparent=traceparent,
                baggage=for_job(baggage, lane.key.function_id),
            )
            for lane, group in lanes
        ]
        dispatcher.keep(jobs, lambda: call.answer(None), call.fail, instead_of=list(given_up.values()))

    register_inline_handler(worker, "engine::queue::enqueue", enqueue, description="keep a job of a queue")
    publishing = "keep a message for each subscriber of a topic"
    register_inline_handler(worker, "iii::durable::publish", publish, description=publishing)


def _register_views(worker: Worker, dispatcher: Dispatcher) -> None:
    """Offer the functions that show queues, topics and dead letters."""

    @worker.function("engine::queue::list_topics", description="the queues, and the topics that have subscribers")
    async def list_topics() -> list[dict[str, Any]]:
        place = dispatcher.place
        return [
            {"name": name, "broker_type": _BROKER[kind], "subscriber_count": _consumers(lanes), "storage": place}
            for (kind, name), lanes in _named(dispatcher).items()
        ]

    @worker.function("engine::queue::list", description="every queue and topic, and where its jobs are")
    async def list_queues() -> dict[str, Any]:
        timestamp = dispatcher.timestamp
        rows = []
        for (kind, name), lanes in _named(dispatcher).items():
            ages = [age for lane in lanes if (age := lane.oldest_seconds(timestamp)) is not None]
            row = msgspec.structs.asdict(depths(lanes)) | {
                "name": name,
                "kind": kind,
                "consumers": _consumers(lanes),
                "done_per_second": round(sum(lane.done.at(timestamp.now) for lane in lanes), 3),
                "oldest_seconds": max(ages, default=None),
                "calls": sum(lane.calls for lane in lanes),
                "overruns": sum(lane.overruns for lane in lanes),
                "waits_for": _waits_for(dispatcher, lanes),
                "paused": bool(lanes) and all(lane.paused for lane in lanes),
            }
            if kind == "topic":
                row["subscribers"] = [_subscriber(lane) for lane in lanes]
            rows.append(row)
        return {"queues": rows, "storage": dispatcher.place, "commits": dispatcher.journal.commits}

    @worker.function("engine::queue::topic_stats", description="how many jobs of a queue or topic are where")
    async def topic_stats(which: Which) -> dict[str, Any]:
        await dispatcher.wait_loaded()
        lanes = _lanes(dispatcher, which, "topic_required")
        there = depths(lanes)
        return {"depth": there.depth, "consumer_count": _consumers(lanes), "dlq_depth": there.dead, "config": None}

    @worker.function("engine::queue::dlq_topics", description="how many dead letters each queue and topic has")
    async def dlq_topics() -> list[dict[str, Any]]:
        await dispatcher.wait_loaded()
        return [
            {"topic": name, "broker_type": _BROKER[kind], "message_count": depths(lanes).dead}
            for (kind, name), lanes in _named(dispatcher).items()
        ]

    @worker.function(
        "engine::queue::dlq_messages", description="the dead letters of a queue or topic, the newest first"
    )
    async def dlq_messages(which: Which) -> list[dict[str, Any]]:
        await dispatcher.wait_loaded()
        dead = _dead(_lanes(dispatcher, which, "topic_required"))[::-1]
        at = max(0, which.offset)
        last = min(len(dead), at + max(0, which.limit))
        rows: list[dict[str, Any]] = []
        room = _LIST_BYTES
        with _failing_as("dlq_messages_failed"):
            while at < last and (room > 0 or not rows):
                # A payload that is too large for a list is shown to those that ask for one dead letter.
                payloads = which.payloads and (dead[at].size <= room or which.limit == 1)
                row = await _dead_letter(dispatcher, dead[at], payload=payloads)
                at += 1
                if row is not None:
                    rows.append(row)
                    room -= _row_bytes(dead[at - 1], payload=payloads)
        if rows and at < len(dead):
            rows[-1]["more"] = len(dead) - at
        return rows


def _register_actions(worker: Worker, dispatcher: Dispatcher, operators: Operators, subscribers: Subscribers) -> None:
    """Offer the functions that change what becomes of jobs."""
    ledger = dispatcher.ledger

    @worker.function("iii::queue::redrive", description="give the dead letters of a queue or topic another try")
    async def redrive(which: Which) -> dict[str, Any]:
        await dispatcher.wait_loaded()
        dead = _dead(_lanes(dispatcher, which, "queue_not_set"))
        function = None
        if which.to_function_id:
            if any(job.lane.key.kind == "topic" for job in dead):
                raise CallError("redrive_failed", "the dead letters of a topic are for their subscribers only")
            function = (namespace_of(which.to_namespace), which.to_function_id)
            check_ids("iii::queue::redrive", which.to_function_id, function[0], "")
        fitting = _fitting(dispatcher, dead)[: which.count]
        with _failing_as("redrive_failed"):
            await operators.redrive(fitting, function)
        answer: dict[str, Any] = {"queue": which.name, "redriven": len(fitting)}
        if len(fitting) < len(dead):
            answer["left"] = len(dead) - len(fitting)
        return answer

    @worker.function("iii::queue::redrive_message", description="give one dead letter another try")
    async def redrive_message(which: Which) -> dict[str, Any]:
        await dispatcher.wait_loaded()
        dead = _the_one(dispatcher, which)
        if dead and not _fitting(dispatcher, dead):
            raise CallError("queue_full", f"no more jobs may be in {which.name} now: have some done or purged first")
        with _failing_as("redrive_message_failed"):
            await operators.redrive(dead)
        return {"queue": which.name, "message_id": which.message_id, "redriven": len(dead)}

    @worker.function("iii::queue::discard_message", description="discard one dead letter")
    async def discard_message(which: Which) -> dict[str, Any]:
        await dispatcher.wait_loaded()
        dead = _the_one(dispatcher, which)
        with _failing_as("discard_message_failed"):
            await operators.discard(dead)
        return {"queue": which.name, "message_id": which.message_id, "redriven": len(dead)}

    @worker.function("engine::queue::discard", description="discard all dead letters of a queue or topic")
    async def discard(which: Which) -> dict[str, Any]:
        await dispatcher.wait_loaded()
        dead = _dead(_existing(dispatcher, which))
        with _failing_as("discard_failed"):
            if not which.dry_run:
                await operators.discard(dead)
        return {"queue": which.name, "discarded": len(dead)}

    @worker.function("engine::queue::purge", description="remove the waiting jobs of a queue, topic or subscriber")
    async def purge(which: Which) -> dict[str, Any]:
        await dispatcher.wait_loaded()
        lanes = _existing(dispatcher, which)
        if which.function_id is not None:
            lanes = [lane for lane in lanes if lane.key.subscriber == _function_in(which)]
            if not lanes:
                raise CallError("queue_not_found", f"{which.function_id} is not a subscriber of {which.name}")
        counts = by_state(lane.waiting for lane in lanes)
        if not which.dry_run:
            await operators.purge(lanes)
        return {"queue": which.name, "purged": sum(counts.values()), "by_state": counts}

    @worker.function("engine::queue::unsubscribe", description="end the subscription of a subscriber that is away")
    async def unsubscribe(which: Which) -> dict[str, Any]:
        if not which.topic:
            raise CallError("topic_not_set", "Topic is not set")
        if not which.function_id:
            raise CallError("function_id_not_set", "`function_id` is required: the function of the subscriber")
        await dispatcher.wait_loaded()
        function = _function_in(which)
        found = [lane for lane in ledger.lanes.topic(which.topic) if lane.key.subscriber == function]
        if any(lane.listeners for lane in found):
            problem = f"{which.function_id} is here: end its binding instead, or stop its worker first"
            raise CallError("subscriber_not_away", problem)
        counts = by_state(lane.waiting + Counter({JobState.DEAD: depths([lane]).dead}) for lane in found)
        with _failing_as("unsubscribe_failed"):
            if not which.dry_run:
                for lane in found:
                    await subscribers.remove(lane)
        return {
            "topic": which.topic, "function_id": which.function_id, "unsubscribed": len(found),
            "purged": sum(counts.values()), "by_state": counts,
        }  # fmt: skip


def _fitting(dispatcher: Dispatcher, dead: list[Job]) -> list[Job]:
    """Return those dead letters, the oldest first, that may be jobs again without going beyond a bound."""
    room: dict[Lane, float] = {}
    whole = float("inf")
    fitting = []
    for job in dead:
        lane = job.lane
        if lane not in room:
            room[lane] = dispatcher.ledger.room.in_lane(lane)
            whole = min(whole, dispatcher.ledger.room.jobs)
        if room[lane] > 0 and whole > 0:
            room[lane] -= 1
            whole -= 1
            fitting.append(job)
    return fitting


def _named(dispatcher: Dispatcher) -> dict[tuple[str, str], list[Lane]]:
    """Return the lanes of each queue and each topic, in the order of their names."""
    found: dict[tuple[str, str], list[Lane]] = {}
    for lane in dispatcher.ledger.lanes:
        found.setdefault((lane.key.kind, lane.key.name), []).append(lane)
    return dict(sorted(found.items()))


def _lanes(dispatcher: Dispatcher, which: Which, code: str) -> list[Lane]:
    """Return the lanes of a name. Raises CallError where neither a queue nor a topic is given."""
    if not which.name:
        raise CallError(code, "Queue name is required" if code == "queue_not_set" else "Topic is required")
    return dispatcher.ledger.lanes.find(which.queue, which.topic)


def _existing(dispatcher: Dispatcher, which: Which) -> list[Lane]:
    """Return the lanes of a name. Raises CallError `queue_not_found` where it has none, which functions of iii do not."""
    lanes = _lanes(dispatcher, which, "queue_not_set")
    if not lanes:
        raise no_queue(which.name)
    return lanes


def _function_in(which: Which) -> tuple[str, str]:
    return namespace_of(which.namespace), which.function_id or ""


def _dead(lanes: list[Lane]) -> list[Job]:
    """Return the dead letters of these lanes, the oldest death first."""
    dead = [job for lane in lanes for job in lane.dead_letters()]
    return sorted(dead, key=lambda job: job.record.progress.died_at_ms or 0)


@contextmanager
def _failing_as(code: str) -> Iterator[None]:
    """Raise the failures of the store with the code of the call."""
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
    """Return the number of a topic's subscriptions, or how many jobs of a queue run side by side."""
    return sum(lane.settings.concurrency if lane.key.kind == "queue" else lane.listeners for lane in lanes)


def _subscriber(lane: Lane) -> dict[str, Any]:
    return msgspec.structs.asdict(depths([lane])) | {
        "function_id": lane.key.function_id,
        "namespace": lane.key.namespace,
        "subscribed": lane.known,
        "paused": lane.paused,
        "away_since_ms": None if lane.listeners else lane.away_since_ms,
        "dropped": lane.dropped,
    }


def _waits_for(dispatcher: Dispatcher, lanes: list[Lane]) -> list[str]:
    """Return the functions that are missing so that jobs could run."""
    functions = {function for lane in lanes for function in dispatcher.ledger.parked.missing_of(lane)}
    functions |= {lane.key.subscriber for lane in lanes if lane.jobs and not lane.open}
    return sorted(f"{function_id} in {namespace}" for namespace, function_id in functions)


def _row_bytes(job: Job, *, payload: bool) -> int:
    record = job.record
    texts = (
        record.id,
        record.progress.code,
        record.progress.message,
        record.progress.message,
        record.function_id,
        record.namespace,
    )
    return sum(len(text or "") for text in texts) + (job.size if payload else 0)


async def _dead_letter(dispatcher: Dispatcher, job: Job, *, payload: bool) -> dict[str, Any] | None:
    """Return the row of a dead letter, or None if it is none any more."""
    record = job.record
    found: Payload | None = None
    problem = None
    if payload:
        try:
            found = await dispatcher.payload_of(job)
        except CallError as error:
            if job.current_state is not JobState.DEAD:
                return None
            if error.code != "job_damaged":
                raise
            problem = error.message
    row = {
        "id": record.id,
        "payload": None if found is None else Raw(found.data),
        "error": f"{record.progress.code}: {record.progress.message}",
        "code": record.progress.code,
        "message": record.progress.message,
        "failed_at": (record.progress.died_at_ms or 0) // 1000,
        "retries": record.progress.attempts,
        "lost": record.progress.lost,
        "size_bytes": job.size,
        "function_id": record.function_id,
        "namespace": record.namespace,
    }
    if found is None:
        row["payload_omitted"] = problem or True
    return row
