"""The queue of an engine in the hands of a program: a method for each function that operators have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias, final

import trio

from ..errors import CallError, ChannelBroken, MisuseError
from ..nursery import open_service_nursery
from ..records import frozen
from ..wire import ErrorCode
from .jobs import wait_over
from .worker import Worker

Kind: TypeAlias = Literal["queue", "topic"]
Rows: TypeAlias = list[dict[str, Any]]


@final
@frozen
class Queues:
    """The queues and topics of a worker's engine: `iii_trio.Queues(worker)`.

    `queue` is the name of a queue, and where there is none of that name, of a topic. With `kind` it is one of that kind.
    `function` is one subscriber of a topic, by the id of its function. Every method raises CallError, with the codes that
    docs/queue.md lists. If cancelled: a change may have been made. The constructor raises MisuseError without a worker.
    """

    _worker: Worker

    def __attrs_post_init__(self) -> None:
        # An engine has queues, but only its workers can ask for them.
        if not hasattr(self._worker, "trigger"):
            raise MisuseError(
                f"Queues takes a worker, not a value of type {type(self._worker).__name__}: "
                "write `async with iii_trio.open_worker(engine) as worker`, and Queues(worker)"
            )

    async def list(self) -> Rows:
        """Return a row for each queue and topic: how many jobs are where, and what they wait for."""
        answer = await self._call("list", {})
        rows: Rows = answer["queues"]
        return rows

    async def jobs(
        self,
        queue: str,
        *,
        kind: Kind | None = None,
        state: str | None = None,
        function: str | None = None,
        older_than_seconds: float | None = None,
        newer_than_seconds: float | None = None,
        after: int = 0,
        limit: int = 50,
    ) -> tuple[Rows, int | None]:
        """Return a page of jobs, the oldest first, and the `after` of the next page. None: it was the last."""
        answer = await self._call(
            "jobs",
            {
                **_which(queue, kind), "state": state, "function_id": function, "older_than_seconds": older_than_seconds,
                "newer_than_seconds": newer_than_seconds, "after": after, "limit": limit,
            },
        )  # fmt: skip
        return answer["jobs"], answer["after"]

    async def job(self, job_id: str, *, payload_bytes: int = 4096) -> dict[str, Any]:
        """Return one job: its state, its attempts, its last error, its trace and its payload, cut to a size."""
        return await self._row("job", {"id": job_id, "payload_bytes": payload_bytes})

    async def wait(self, job_id: str) -> dict[str, Any]:
        """Wait until a job is done, dead or removed, and return its row. It may be the next engine that ends it."""
        return await wait_over(lambda: self._row("wait", {"id": job_id}))

    async def cancel(self, job_id: str) -> str:
        """Remove one job that waits or runs, and return the state that it was in."""
        return str((await self._call("cancel", {"id": job_id}))["was"])

    async def purge(
        self,
        queue: str,
        *,
        kind: Kind | None = None,
        function: str | None = None,
        namespace: str | None = None,
        dry_run: bool = False,
    ) -> int:
        """Remove the jobs that wait, and return their number. With `dry_run` they stay."""
        about = _which(queue, kind) | _subscriber(function, namespace)
        return int((await self._call("purge", {**about, "dry_run": dry_run}))["purged"])

    async def pause(
        self, queue: str, *, kind: Kind | None = None, function: str | None = None, namespace: str | None = None
    ) -> None:
        """Start no more jobs, also after a restart. Jobs that run go on."""
        await self._call("pause", _which(queue, kind) | _subscriber(function, namespace))

    async def resume(
        self, queue: str, *, kind: Kind | None = None, function: str | None = None, namespace: str | None = None
    ) -> None:
        """Start the jobs again of a paused queue, topic or subscriber."""
        await self._call("resume", _which(queue, kind) | _subscriber(function, namespace))

    async def unsubscribe(
        self, topic: str, function: str, *, namespace: str | None = None, dry_run: bool = False
    ) -> int:
        """End the subscription of a subscriber that is away, and return the number of its jobs. With `dry_run` it stays."""
        about = {"topic": topic, **_subscriber(function, namespace), "dry_run": dry_run}
        return int((await self._call("unsubscribe", about))["purged"])

    async def dead_letters(
        self, queue: str, *, kind: Kind | None = None, offset: int = 0, limit: int = 50, payloads: bool = True
    ) -> Rows:
        """Return dead letters, the newest first."""
        about = {**_which(queue, kind), "offset": offset, "limit": limit, "payloads": payloads}
        rows: Rows = await self._call("dlq_messages", about)
        if not rows:
            await self._check_exists(queue, kind)
        return rows

    async def redrive(
        self,
        queue: str,
        job_id: str | None = None,
        *,
        kind: Kind | None = None,
        count: int | None = None,
        to_function: str | None = None,
        to_namespace: str | None = None,
    ) -> int:
        """Make dead letters jobs again: one, or the oldest `count`, or all. Return their number.

        A queue's jobs may go to another function.
        """
        which = _which(queue, kind)
        if job_id is not None:
            answer = await self._worker.trigger("iii::queue::redrive_message", {**which, "message_id": job_id})
        else:
            about = {**which, "count": count, "to_function_id": to_function, "to_namespace": to_namespace}
            answer = await self._worker.trigger("iii::queue::redrive", about)
        return await self._counted(answer["redriven"], queue, kind)

    async def discard(
        self, queue: str, job_id: str | None = None, *, kind: Kind | None = None, dry_run: bool = False
    ) -> int:
        """Throw dead letters away: one, or all. Return their number. With `dry_run`, which is for all, they stay."""
        which = _which(queue, kind)
        if job_id is not None:
            answer = await self._worker.trigger("iii::queue::discard_message", {**which, "message_id": job_id})
            return await self._counted(answer["redriven"], queue, kind)
        return int((await self._call("discard", {**which, "dry_run": dry_run}))["discarded"])

    async def backup(self, take: Callable[[bytes], Awaitable[object]]) -> int:
        """Give the pieces of a file with all jobs, as they are at one moment, to `take`. Return the number of bytes.

        The file is whole only when this returns. `iii_trio.triggers.queue.check_backup` checks it.
        Raises ChannelBroken too, if the stream is cut.
        """
        cut: ChannelBroken | None = None
        size = 0
        answers: list[dict[str, Any]] = []
        errors: list[CallError] = []
        async with self._worker.create_channel() as channel, open_service_nursery() as nursery:

            async def ask() -> None:
                try:
                    answers.append(await self._call("backup", {"writer": channel.writer_ref}))
                except CallError as error:
                    errors.append(error)
                    reading.cancel()

            with trio.CancelScope() as reading:
                nursery.start_soon(ask)
                try:
                    async for item in channel.reader:
                        assert isinstance(item, bytes)
                        size += len(item)
                        await take(item)
                except ChannelBroken as error:
                    cut = error  # the answer of the call says why
        if errors:
            raise errors[0]
        if cut is not None:
            raise cut
        return size

    async def _call(self, verb: str, payload: dict[str, Any]) -> Any:
        return await self._worker.trigger(f"engine::queue::{verb}", payload)

    async def _counted(self, count: int, queue: str, kind: Kind | None) -> int:
        """Return a count of dead letters. Raises CallError `queue_not_found` if it is 0 because of a misspelt name."""
        if not count:
            await self._check_exists(queue, kind)
        return count

    async def _check_exists(self, queue: str, kind: Kind | None) -> None:
        """Raise CallError `queue_not_found` if there is no such queue or topic. iii's own functions call it empty."""
        try:
            await self._call("jobs", {**_which(queue, kind), "limit": 1})
        except CallError as error:
            # An engine of iii cannot tell, and one with access rules may not.
            if error.code not in (ErrorCode.FUNCTION_NOT_FOUND, ErrorCode.FORBIDDEN):
                raise

    async def _row(self, verb: str, payload: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = await self._call(verb, payload)
        return row


def _which(queue: str, kind: Kind | None) -> dict[str, Any]:
    return {kind or "queue": queue}


def _subscriber(function: str | None, namespace: str | None) -> dict[str, Any]:
    if function is None:
        return {}
    return {"function_id": function} | ({} if namespace is None else {"namespace": namespace})
