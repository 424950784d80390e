"""The functions of the queue for operators: jobs by page, one job, and the verbs that change jobs."""

# Annotations are not texts here, because a start reads them and would compile each text.

from typing import Any, Final

from msgspec import Raw

from ...errors import CallError
from ...structure import FunctionInput
from ...worker import ChannelWriter, Worker
from .dispatcher import Dispatcher
from .job_rows import STATES, JobFilter, page, row
from .lane import WAITING, Job, Lane
from .operators import Operators
from .protocol import namespace_of
from .states import JobState

_CUT_BYTES: Final = 4096  # of a payload, unless more is asked for
_MAX_BYTES: Final = 512 * 1024
_LIVE: Final = WAITING | {JobState.LEASED}


class JobsInput(FunctionInput, frozen=True):
    """The payload of `engine::queue::jobs`."""

    queue: str | None = None
    topic: str | None = None
    state: str | None = None
    function_id: str | None = None
    namespace: str | None = None
    older_than_seconds: float | None = None
    newer_than_seconds: float | None = None
    after: int = 0
    limit: int = 50


class JobInput(FunctionInput, frozen=True):
    """The payload of the functions about one job."""

    id: str = ""
    payload_bytes: int = _CUT_BYTES


class LaneInput(FunctionInput, frozen=True):
    """The payload of the functions about a queue, a topic, or one subscriber of it."""

    queue: str | None = None
    topic: str | None = None
    function_id: str | None = None
    namespace: str | None = None


def register_operators(worker: Worker, dispatcher: Dispatcher, operators: Operators) -> None:
    """Offer the functions for operators, all in the namespace `default`."""
    ledger = dispatcher.ledger

    async def find(which: JobInput) -> Job:
        if not which.id:
            raise CallError("job_id_not_set", "`id` is required: the receipt of the job")
        while (job := ledger.find(which.id)) is None and dispatcher.is_loading:
            await dispatcher.wait_loaded_some()
        if job is None:
            raise CallError("job_not_found", f"there is no job {which.id}: it was done, removed, or never there")
        return job

    def over(which: JobInput) -> dict[str, Any]:
        """Describe a job that has ended of late, with its result if that was kept."""
        ended: dict[str, Any] = {"id": which.id, "state": ledger.recent_end(which.id)}
        result = dispatcher.results.get(which.id, dispatcher.timestamp.now)
        return ended if result is None else ended | {"result": Raw(result)}

    @worker.function("engine::queue::wait", description="wait until a job is done, dead or removed")
    async def wait(which: JobInput) -> dict[str, Any]:
        live = ledger.recent_end(which.id) is None and (await find(which)).current_state is not JobState.DEAD
        # A drain keeps jobs for the next engine, so none may end.
        if live and (dispatcher.hands_over or not ledger.paused):
            await dispatcher.waiters.wait(which.id)
        found = ledger.find(which.id)
        return over(which) if found is None else row(found, dispatcher.timestamp)

    @worker.function("engine::queue::jobs", description="the jobs of a queue or topic by page, the oldest first")
    async def jobs(which: JobsInput) -> dict[str, Any]:
        if which.state is not None and which.state not in STATES.values():
            states = ", ".join(dict.fromkeys(STATES.values()))
            raise CallError("state_unknown", f"`state` is {which.state!r}; give one of {states}")
        wanted = JobFilter(
            which.state, which.function_id, which.namespace, which.older_than_seconds, which.newer_than_seconds
        )
        while True:
            lanes = _lanes(dispatcher, which.queue, which.topic)
            loading = dispatcher.is_loading
            # A misspelt name would look like an empty queue. A topic of the store may not have been read yet.
            if not lanes and not loading:
                raise no_queue(which.queue or which.topic)
            found = page(lanes, wanted, which.after, which.limit, dispatcher.timestamp, loading=loading)
            if found is not None:
                return {"jobs": found[0], "after": found[1]}
            await dispatcher.wait_loaded_some()

    @worker.function("engine::queue::job", description="one job: its state, its attempts and its payload")
    async def job(which: JobInput) -> dict[str, Any]:
        if ledger.find(which.id) is None and ledger.recent_end(which.id) is not None:
            return over(which)
        return await _described(dispatcher, await find(which), min(max(0, which.payload_bytes), _MAX_BYTES))

    @worker.function("engine::queue::cancel", description="remove one job, and cancel its handler if it runs")
    async def cancel(which: JobInput) -> dict[str, Any]:
        ended = ledger.recent_end(which.id) if ledger.find(which.id) is None else None
        if ended is not None:
            raise CallError("job_not_cancellable", f"job {which.id} was {ended} already")
        found = await find(which)
        state = STATES.get(found.current_state, "storing")
        if found.current_state not in _LIVE:
            mend = "; discard it instead" if state == "dead" else ""
            raise CallError("job_not_cancellable", f"job {which.id} is {state}, and cannot be cancelled{mend}")
        await operators.cancel(found)
        return {"id": which.id, "was": state}

    async def pause_or_resume(which: LaneInput, paused: bool) -> dict[str, Any]:
        lanes = _lanes(dispatcher, which.queue, which.topic)
        if which.function_id is not None:
            function = (namespace_of(which.namespace), which.function_id)
            lanes = [lane for lane in lanes if lane.key.subscriber == function]
        if not lanes:
            raise CallError("queue_not_found", f"there is no queue, topic or subscriber {_words(which)}")
        await operators.pause(lanes, paused)
        return {"queue": which.queue or which.topic, "paused": paused, "lanes": len(lanes)}

    @worker.function("engine::queue::pause", description="start no jobs of a queue, a topic or one subscriber of it")
    async def pause(which: LaneInput) -> dict[str, Any]:
        return await pause_or_resume(which, True)

    @worker.function("engine::queue::resume", description="start the jobs again of what was paused")
    async def resume(which: LaneInput) -> dict[str, Any]:
        return await pause_or_resume(which, False)

    @worker.function("engine::queue::backup", description="write a file with all jobs, as they are now, to a channel")
    async def backup(writer: ChannelWriter) -> dict[str, Any]:
        size = await operators.backup(writer.send)
        await writer.aclose()
        return {"bytes": size}


def no_queue(name: str | None) -> CallError:
    """Return the error about a name that neither a queue nor a topic has."""
    return CallError("queue_not_found", f"there is no queue or topic {name}")


def _words(which: LaneInput) -> str:
    name = which.queue or which.topic
    return f"{name}" if which.function_id is None else f"{which.function_id} of {name}"


def _lanes(dispatcher: Dispatcher, queue: str | None, topic: str | None) -> list[Lane]:
    """Return the lanes of a name. Raises CallError where neither a queue nor a topic is given."""
    if not queue and not topic:
        raise CallError("queue_not_set", "Queue name is required")
    return dispatcher.ledger.lanes.find(queue, topic)


async def _described(dispatcher: Dispatcher, job: Job, payload_bytes: int) -> dict[str, Any]:
    """Return the row of a job, with its payload if it is not too large, else with its beginning."""
    found = row(job, dispatcher.timestamp) | {
        "max_attempts": job.lane.settings.max_attempts,
        "created_at_ms": job.record.created_at_ms,
        "died_at_ms": job.record.progress.died_at_ms,
    }
    try:
        payload = await dispatcher.payload_of(job)
    except CallError as error:
        return found | {"payload_omitted": error.message}
    if len(payload.data) <= payload_bytes:
        found["payload"] = Raw(payload.data)
    else:
        found["payload_begins"] = payload.data[:payload_bytes].decode(errors="replace")
    if payload.metadata is not None and len(payload.metadata) <= payload_bytes:
        found["metadata"] = Raw(payload.metadata)
    return found
