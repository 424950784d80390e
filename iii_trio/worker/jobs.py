"""Jobs of queues, their receipts, and the configuration of subscriptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

import attrs
import msgspec
import trio
from msgspec import Raw

from ..errors import CallError, MisuseError
from ..records import frozen
from ..wire import Action, ErrorCode, to_json
from .payload import check_text

SUBSCRIBER: Final = "durable:subscriber"
_MAX_SECONDS: Final = 1e9
_MAX_KEY_CHARACTERS: Final = 256
_OVER: Final = frozenset({"done", "dead", "removed"})
_AGAIN_SECONDS: Final = 0.2


NO_OPTIONS: Final = "the engine knows no options of jobs ({}): leave them out, or use an engine of iii-trio"


class Enqueue(msgspec.Struct, frozen=True):
    """The action of a call that becomes a job of a queue. Made by `enqueue`."""

    queue: str
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """The options that differ from their defaults, as they travel."""

    @property
    def action(self) -> Action:
        """The action as it travels."""
        return (
            Action("enqueue", self.queue, Raw(to_json(dict(self.options))))
            if self.options
            else Action("enqueue", self.queue)
        )


def enqueue(
    queue: str = "default",
    *,
    delay_seconds: float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    unique_key: str | None = None,
    unique_seconds: float | None = None,
    replace: bool = False,
    keep_result_seconds: float | None = None,
) -> Enqueue:
    """Return the action that makes a call a job: `worker.trigger(function_id, payload, action=enqueue("mail"))`.

    The value of that call is the job's `Receipt`. The job starts after `delay_seconds`, or `at` a time with a time zone.
    `priority` is from 0 to 3, and 1 by default. While a job with the same `unique_key` waits or runs, and for
    `unique_seconds` after it came, there is no second one. Its receipt is returned, or with `replace` the new job takes the
    place of one that waits. `keep_result_seconds` keeps the result for `Receipt.wait`.

    Raises MisuseError for options that cannot be meant.
    """
    if not isinstance(queue, str) or not queue.strip():
        raise MisuseError(f"{queue!r} is not a name of a queue; the one that is always there is 'default'")
    check_text(queue, "the name of the queue")
    if at is not None:
        if not isinstance(at, datetime):
            raise MisuseError(f"`at` is {at!r}; give a datetime with a time zone")
        # The engine would have to prefer one of two contradicting times.
        if delay_seconds is not None:
            raise MisuseError("a job has a delay or a time: leave out `delay_seconds` or `at`")
        # The engine may stand in another time zone.
        if at.tzinfo is None:
            raise MisuseError(f"the time {at} has no time zone; give one, for example datetime.now(timezone.utc)")
    if unique_key is not None and not isinstance(unique_key, str):
        raise MisuseError(f"`unique_key` is {unique_key!r}; give a string")
    if unique_key is not None and not 0 < len(unique_key) <= _MAX_KEY_CHARACTERS:
        raise MisuseError(f"`unique_key` has {len(unique_key)} characters; give 1 to {_MAX_KEY_CHARACTERS}")
    if unique_key is not None:
        check_text(unique_key, "`unique_key`")
    # Without a key there is no other job to compare with.
    if unique_key is None and (unique_seconds is not None or replace):
        raise MisuseError("`unique_seconds` and `replace` are about jobs with a `unique_key`: give one")
    # True and 1.0 would count as 1, and the engine takes whole numbers only.
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 3):
        raise MisuseError(f"`priority` is {priority!r}; give 0, 1, 2 or 3")
    seconds = {
        "delay_seconds": delay_seconds, "unique_seconds": unique_seconds, "keep_result_seconds": keep_result_seconds
    }  # fmt: skip
    for name, value in seconds.items():
        if value is not None and not isinstance(value, int | float):
            raise MisuseError(f"`{name}` is {value!r}; give a number of seconds")
        # A bound far below the largest float also refuses infinity and NaN.
        if value is not None and not 0 <= value <= _MAX_SECONDS:
            raise MisuseError(f"`{name}` is {value:g}; give a number of seconds from 0 to {_MAX_SECONDS:g}")
    options = {
        **seconds,
        "at_ms": None if at is None else round(at.timestamp() * 1000),
        "priority": priority,
        "unique_key": unique_key,
        "replace": replace or None,
    }
    return Enqueue(queue, {name: value for name, value in options.items() if value is not None})


@frozen
class Receipt:
    """A job that a queue has stored. It will be done at least once."""

    id: str
    """The id of the job in tables, in dead letters and in the metadata of its handler."""
    _call: Callable[[str, dict[str, str]], Awaitable[Any]] | None = attrs.field(default=None, eq=False, repr=False)

    @classmethod
    def from_json(
        cls, value: Any, function_id: str, call: Callable[[str, dict[str, str]], Awaitable[Any]] | None = None
    ) -> Receipt:
        """Read the answer to an enqueue. Raises CallError for an answer that is not a receipt."""
        receipt = value.get("messageReceiptId") if isinstance(value, dict) else None
        # An engine that does not know the action answers with the value of the handler.
        if not isinstance(receipt, str):
            problem = f"the answer to an enqueue is not a receipt: {value!r}"
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, problem, function_id=function_id)
        return cls(receipt, call)

    async def status(self) -> dict[str, Any]:
        """Return the job's state, its failed calls and its last error, as `engine::queue::job` describes them.

        Raises CallError, `job_not_found` for a job that was over long ago. If cancelled: nothing changes.
        """
        status: dict[str, Any] = await self._ask("engine::queue::job")
        return status

    async def wait(self) -> Any:
        """Wait until the job is done, and return its result if the queue has kept it, else None.

        Raises CallError: the job's last error if it is a dead letter, and `job_removed` if it was cancelled or purged.
        If cancelled: the job goes on.
        """
        status = await wait_over(lambda: self._ask("engine::queue::wait"))
        match status["state"]:
            case "done":
                return status.get("result")
            case "dead":
                raise CallError(status["code"], status["message"])
        raise CallError("job_removed", f"the job {self.id} was cancelled or purged")

    async def _ask(self, function_id: str) -> Any:
        # A receipt may be built from stored data, without a worker.
        if self._call is None:
            raise MisuseError("this receipt was not made by a worker, and has no engine to ask")
        return await self._call(function_id, {"id": self.id})


async def wait_over(ask: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Ask for the end of a job until it is done, dead or removed, and return its row.

    Raises CallError. If cancelled: the job goes on.
    """
    while True:
        try:
            status = await ask()
        except CallError as error:
            # A lost engine keeps its jobs, and the next one is asked.
            if error.origin != "link":
                raise
        else:
            if status["state"] in _OVER:
                return status
        # An engine that drains answers at once, and keeps the job for the next engine.
        await trio.sleep(_AGAIN_SECONDS)


def subscription(
    topic: str,
    *,
    max_attempts: int | None,
    concurrency: int | None,
    fifo: bool,
    group_by: str | None,
    backoff_seconds: float | None,
    backoff: Literal["exponential", "fixed"] | None,
    visibility_timeout_seconds: float | None,
    delay_seconds: float | None,
    condition: str | None,
) -> dict[str, Any]:
    """Return the config of a `durable:subscriber` binding. Raises MisuseError for options that cannot be meant."""
    if not topic:
        raise MisuseError("a subscription needs the name of a topic")
    for name, value, least in (("max_attempts", max_attempts, 1), ("concurrency", concurrency, 1)):
        # No message would ever be handled with less.
        if value is not None and value < least:
            raise MisuseError(f"{name} is {value}; give at least {least}")
    queue_config = {
        "type": "fifo" if fifo or group_by is not None else None,
        "messageGroupField": group_by,
        "maxRetries": None if max_attempts is None else max_attempts - 1,
        "concurrency": concurrency,
        "backoffDelayMs": None if backoff_seconds is None else backoff_seconds * 1000,
        "backoffType": backoff,
        "visibilityTimeout": visibility_timeout_seconds,
        "delaySeconds": delay_seconds,
    }
    given = {key: value for key, value in queue_config.items() if value is not None}
    config: dict[str, Any] = {"topic": topic}
    if condition is not None:
        config["condition_function_id"] = condition
    return config | ({"queue_config": given} if given else {})
