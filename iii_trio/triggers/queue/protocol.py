"""What the queue's functions are asked, and how they refuse: codes and texts as iii's clients expect them."""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from ...errors import CallError
from ...wire import DEFAULT_NAMESPACE, ErrorCode, from_json, to_json
from .lane import Lane
from .settings import QueueSettings

NULL: Final = Raw(b"null")


class EnqueueInput(msgspec.Struct):
    """The payload of `engine::queue::enqueue`, as the engine makes it of a call whose action is `enqueue`."""

    queue: str
    function_id: str
    data: Raw = NULL
    messageReceiptId: str | None = None
    traceparent: str | None = None
    baggage: str | None = None
    namespace: str | None = None
    metadata: Raw = NULL


class PublishInput(msgspec.Struct):
    """The payload of `iii::durable::publish`."""

    topic: str = ""
    data: Raw | msgspec.UnsetType = msgspec.UNSET


def read(function_id: str, payload: Raw, decoder: msgspec.json.Decoder[Any]) -> Any:
    """The payload of one of the queue's functions. Raises CallError, naming what is wrong with it."""
    try:
        message = decoder.decode(bytes(payload))
        if isinstance(message, EnqueueInput):
            from_json(bytes(message.metadata))  # it is read again at every attempt
        return message
    except (ValueError, RecursionError) as error:
        problem = f"Failed to deserialize input for {function_id}: {error}"
        raise CallError(ErrorCode.DESERIALIZATION_ERROR, problem) from None


def namespace_of(given: str | None) -> str:
    """Where a job's function is. Raises CallError for one that was named and left blank."""
    if given is not None and not given.strip():
        raise CallError(
            ErrorCode.INVALID_NAMESPACE, "`namespace` is empty: give it a name, or omit it to use `default`."
        )
    return given or DEFAULT_NAMESPACE


def group_of(lane: Lane, data: bytes) -> str | None:
    """The group of a job with this data; None where there are none.

    Raises CallError for a queue's job that does not say. A topic's message that does not is of one group with all such:
    what one subscriber wants to see in it must not hinder whoever publishes, nor the others.
    """
    settings, name = lane.settings, lane.key.name
    if not settings.fifo:
        return None
    field = settings.group_by
    value = _fields(data).get(field) if field is not None else None
    if value is not None and value != NULL:
        try:
            return to_json(from_json(bytes(value))).decode()  # one spelling for equal values
        except ValueError as error:
            problem = f"FIFO queue '{name}': field '{field}' cannot be read: {error}"
            raise CallError(ErrorCode.DESERIALIZATION_ERROR, problem) from None
    if lane.key.kind == "topic":
        return ""
    if field is None:
        text = f"FIFO queue '{name}' requires 'message_group_field' to be configured"
        raise CallError("fifo_group_not_configured", text)
    if value is None:
        text = f"FIFO queue '{name}' requires field '{field}' in data, but it was not found"
        raise CallError("fifo_group_missing", text)
    raise CallError("fifo_group_missing", f"FIFO queue '{name}': field '{field}' must not be null")


_object: Final = msgspec.json.Decoder(dict[str, Raw])


def _fields(data: bytes) -> dict[str, Raw]:
    try:
        return _object.decode(data)
    except msgspec.DecodeError:
        return {}  # no object: it has no fields


@attrs.frozen
class SubscriberConfig:
    """What a `durable:subscriber` binding says."""

    topic: str
    condition: str | None
    settings: QueueSettings


def read_subscriber(text: bytes) -> SubscriberConfig:
    """The config of a binding, of its JSON. What is of a wrong type is left out, one by one, as with iii."""
    said = from_json(text)
    config: dict[str, Any] = said if isinstance(said, dict) else {}
    topic = config.get("topic") or config.get("queue")
    condition = config.get("condition_function_id")
    given = config.get("queue_config")
    return SubscriberConfig(
        topic=topic if isinstance(topic, str) else "",
        condition=condition if isinstance(condition, str) and condition else None,
        settings=_settings(given if isinstance(given, dict) else {}),
    )


def _number(value: Any, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < 1e9


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and _number(value, least)


def _settings(given: dict[str, Any]) -> QueueSettings:
    """`queue_config` in the words of our own settings. `maxRetries` counts what follows the first call."""
    settings: dict[str, Any] = {"missing_function_seconds": None}
    if _whole(given.get("maxRetries"), 0):
        settings["max_attempts"] = given["maxRetries"] + 1
    if _whole(given.get("concurrency"), 1):
        settings["concurrency"] = given["concurrency"]
    if given.get("type") == "fifo":
        settings["fifo"] = True
        if isinstance(given.get("messageGroupField"), str) and given["messageGroupField"]:
            settings["group_by"] = given["messageGroupField"]
    if _number(given.get("backoffDelayMs"), 0):
        settings["backoff_seconds"] = given["backoffDelayMs"] / 1000
    if given.get("backoffType") in ("fixed", "exponential"):
        settings["backoff"] = given["backoffType"]
    if _number(given.get("visibilityTimeout"), 0) and given["visibilityTimeout"] > 0:
        settings["visibility_timeout_seconds"] = float(given["visibilityTimeout"])
    if _number(given.get("delaySeconds"), 0):
        settings["delay_seconds"] = float(given["delaySeconds"])
    if _whole(given.get("maxLostDeliveries"), 1):
        settings["max_lost_deliveries"] = given["maxLostDeliveries"]
    return QueueSettings(**settings)
