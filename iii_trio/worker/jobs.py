"""Jobs of queues, their receipts, and the configuration of subscriptions."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from ..errors import CallError, MisuseError
from ..wire import Action, ErrorCode

SUBSCRIBER: Final = "durable:subscriber"


@attrs.frozen
class Enqueue:
    """The action of a call that becomes a job of a queue. Made by `enqueue`."""

    queue: str

    @property
    def action(self) -> Action:
        return Action("enqueue", self.queue)


def enqueue(queue: str = "default") -> Enqueue:
    """Return the action that makes a call a job: `worker.trigger(function_id, payload, action=enqueue("mail"))`.

    The value of that call is the job's `Receipt`.
    """
    return Enqueue(queue)


@attrs.frozen
class Receipt:
    """A job that a queue has stored. It will be done at least once."""

    id: str
    """The id of the job in tables, in dead letters and in the metadata of its handler."""

    @classmethod
    def from_json(cls, value: Any, function_id: str) -> Receipt:
        """Read the answer to an enqueue. Raises CallError for an answer that is no receipt."""
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
    """Return the config of a `durable:subscriber` binding. Raises MisuseError for options that cannot be meant."""
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
