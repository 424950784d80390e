"""Background work: the receipt of a job, and what a subscription says."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from ..errors import CallError, MisuseError
from ..wire import Action, ErrorCode

SUBSCRIBER: Final = "durable:subscriber"


@attrs.frozen
class Enqueue:
    """How a call is made that is kept by a queue, and done later. Made by `enqueue`."""

    queue: str

    @property
    def action(self) -> Action:
        return Action("enqueue", self.queue)


def enqueue(queue: str = "default") -> Enqueue:
    """For `Worker.trigger(function_id, payload, action=enqueue("mail"))`: the call becomes a job of this queue, and its
    value is the job's `Receipt`."""
    return Enqueue(queue)


@attrs.frozen
class Receipt:
    """A job that a queue has taken: it is kept, and will be done at least once."""

    id: str
    """What the job is called in tables, dead letters and the metadata of its handler."""

    @classmethod
    def from_json(cls, value: Any, function_id: str) -> Receipt:
        """Raises CallError for an answer that is no receipt."""
        receipt = value.get("messageReceiptId") if isinstance(value, dict) else None
        if not isinstance(receipt, str):
            problem = f"the answer to an enqueue is no receipt: {value!r}"
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, problem, function_id=function_id)
        return cls(receipt)


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
    """The config of a `durable:subscriber` binding. Raises MisuseError for what cannot be meant."""
    if not topic:
        raise MisuseError("a subscription needs the name of a topic")
    for name, value, least in (("max_attempts", max_attempts, 1), ("concurrency", concurrency, 1)):
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
