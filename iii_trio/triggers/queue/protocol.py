"""The payloads of the queue's functions, and the codes and texts of its refusals, as iii's clients expect them."""

# Annotations are not texts here, because a start reads them and would compile each text.

import hashlib
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Raw

from ...config.settings import MAX_SECONDS
from ...errors import CallError
from ...wire import DEFAULT_NAMESPACE, NULL, ErrorCode, bad_input, from_json, to_json
from .lane import Lane
from .record import NORMAL_PRIORITY, Options
from .settings import QueueSettings

FORGET: Final = "iii-queue::forget"
"""The function of a shard of a mesh that ends the subscription of a subscriber without bindings."""
SUBSCRIBER_JOBS: Final = 100_000
"""How many jobs wait for a subscriber, at most, unless its subscription says otherwise (Q17)."""
_MAX_ID_BYTES: Final = 1024
_SHORT_ID: Final = _MAX_ID_BYTES // 4  # characters, which have four bytes each at most; nearly all names are short
_MAX_TRACEPARENT_BYTES: Final = 256
_MAX_BAGGAGE_BYTES: Final = 8192  # the least that W3C Baggage has everybody pass on
_MAX_GROUP_BYTES: Final = 256


_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=MAX_SECONDS)]


class JobOptions(msgspec.Struct, forbid_unknown_fields=True):
    """The options of one job. Members are as `iii_trio.enqueue` describes them."""

    delay_seconds: _Seconds | None = None
    at_ms: int | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=3)] = NORMAL_PRIORITY
    unique_key: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    unique_seconds: _Seconds | None = None
    replace: bool = False
    keep_result_seconds: _Seconds | None = None

    def delay_from(self, wall_ms: int) -> float | None:
        """Return the delay in seconds that these options ask for, or None if they ask for none."""
        if self.at_ms is None:
            return self.delay_seconds
        return min(max(0.0, (self.at_ms - wall_ms) / 1000), MAX_SECONDS)

    @property
    def lasting(self) -> Options:
        """The options that are kept with the job."""
        return Options(
            self.priority,
            self.unique_key,
            _milliseconds(self.unique_seconds),
            _milliseconds(self.keep_result_seconds),
        )


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


NO_OPTIONS: Final = JobOptions()


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
    options: JobOptions | None = None


class PublishInput(msgspec.Struct):
    """The payload of `iii::durable::publish`."""

    topic: str = ""
    data: Raw | msgspec.UnsetType = msgspec.UNSET


def read(function_id: str, payload: Raw, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Decode the payload of one of the queue's functions. Raises CallError, which names the problem."""
    try:
        return decoder.decode(bytes(payload))
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_input(function_id, str(error)) from None


def check_id(function_id: str, what: str, text: str) -> None:
    """Raise CallError for a name that is too long, because names stay in memory with each job."""
    if len(text) <= _SHORT_ID:
        return
    size = len(text.encode())
    if size > _MAX_ID_BYTES:
        raise bad_input(function_id, f"`{what}` is {size} bytes, and may be at most {_MAX_ID_BYTES}")


def check_ids(called: str, function_id: str, namespace: str, receipt: str) -> None:
    """Raise CallError if the function of a job has no name, or one of the job's names is too long."""
    if not function_id or function_id.isspace():
        raise bad_input(called, "the function's id is empty: name the function that is to do the job")
    if len(function_id) + len(namespace) + len(receipt) > _SHORT_ID:
        check_id(called, "function_id", function_id)
        check_id(called, "namespace", namespace)
        check_id(called, "messageReceiptId", receipt)


def check_metadata(function_id: str, metadata: Raw) -> None:
    """Raise CallError for metadata that could not be decoded when its job is run."""
    try:
        from_json(bytes(metadata))
    except ValueError as error:
        raise bad_input(function_id, f"`metadata` cannot be decoded: {error}") from None


def trace_headers(traceparent: str | None, baggage: str | None) -> tuple[str | None, str | None]:
    """Return trace headers as a job keeps them. Those that are too long are left out, as W3C allows."""
    if traceparent is not None and len(traceparent) > _MAX_TRACEPARENT_BYTES:
        traceparent = None
    if baggage is not None and len(baggage.encode(errors="replace")) > _MAX_BAGGAGE_BYTES:
        baggage = None
    return traceparent, baggage


def namespace_of(given: str | None) -> str:
    """Return the namespace of a job's function. Raises CallError for one that is empty."""
    if given is not None and not given.strip():
        raise CallError(
            ErrorCode.INVALID_NAMESPACE, "`namespace` is empty: give it a name, or omit it to use `default`."
        )
    return given or DEFAULT_NAMESPACE


def group_of(lane: Lane, data: bytes) -> str | None:
    """Return the group of a job with this data, or None where the lane has no groups.

    Raises CallError for a queue's job that names no group. Messages of a topic that name none share one group, because
    the wishes of one subscriber must not hinder the publisher or the other subscribers.
    """
    settings, name = lane.settings, lane.key.name
    if not settings.fifo:
        return None
    field = settings.group_by
    value = _fields(data).get(field) if field is not None else None
    if value is not None and value != NULL:
        try:
            group = to_json(from_json(bytes(value))).decode()  # one spelling for equal values
        except ValueError as error:
            raise bad_input("engine::queue::enqueue", f"field '{field}' cannot be decoded: {error}") from None
        if len(group) <= _MAX_GROUP_BYTES:
            return group
        return hashlib.sha256(group.encode()).hexdigest()  # it stays in memory with its job
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


class SubscriberConfig(msgspec.Struct, frozen=True):
    """The config of a `durable:subscriber` binding."""

    topic: str
    condition: str | None
    settings: QueueSettings


def read_subscriber(text: bytes) -> SubscriberConfig:
    """Read the config of a binding. Values of a wrong type are left out, one by one, as with iii.

    Raises ValueError for text that is not JSON.
    """
    value = from_json(text)
    config: dict[str, Any] = value if isinstance(value, dict) else {}
    topic = config.get("topic") or config.get("queue")
    condition = config.get("condition_function_id")
    given = config.get("queue_config")
    return SubscriberConfig(
        topic=topic if isinstance(topic, str) else "",
        condition=condition if isinstance(condition, str) and condition else None,
        settings=_settings(given if isinstance(given, dict) else {}),
    )


def _number(value: Any, minimum: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value < 1e9


def _whole(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and _number(value, minimum)


def _settings(given: dict[str, Any]) -> QueueSettings:
    """Translate `queue_config` into our own settings. `maxRetries` does not count the first call."""
    settings: dict[str, Any] = {"missing_function_seconds": None, "max_jobs": SUBSCRIBER_JOBS}
    if _whole(given.get("maxJobs"), 1):
        settings["max_jobs"] = given["maxJobs"]
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
