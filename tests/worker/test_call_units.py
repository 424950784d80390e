"""Calls, answers, jobs and byte streams of a worker, without an engine: each option, bound and text, exactly."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from msgspec import Raw

from iii_trio.errors import CallError, ChannelBroken, MisuseError
from iii_trio.http import HttpError, HttpResponse, HttpResult
from iii_trio.transport.link import EndReason
from iii_trio.wire import (
    MAX_MESSAGE_BYTES,
    CancelInvocation,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    Ping,
    decode,
)
from iii_trio.worker.calls import CallHandle, PendingCall, WorkerSession, checked, error_in
from iii_trio.worker.context import CallInfo
from iii_trio.worker.http_response import pairs, refused, respond
from iii_trio.worker.inline import InlineCall
from iii_trio.worker.jobs import Receipt, enqueue, subscription
from iii_trio.worker.payload import encode_payload
from iii_trio.worker.registration import given_json
from iii_trio.worker.replies import reply_error, reply_result
from iii_trio.worker.streams import ReaderStream, WriterStream


@attrs.define(eq=False)
class FakeLink:
    sent: list[bytes] = attrs.field(factory=list)
    ended: EndReason | None = None
    rooms: int = 0

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        self.rooms += 1

    @property
    def messages(self) -> list[Any]:
        return [decode(text) for text in self.sent]


def session_on(link: FakeLink, extensions: bool = True) -> WorkerSession:
    return WorkerSession(link, "w", "token", "secret", extensions)  # type: ignore[arg-type]


def pending(called: list[str] | None = None) -> PendingCall:
    return PendingCall("f", "i", (lambda: called.append("settled")) if called is not None else (lambda: None))


# --- calls


@pytest.mark.parametrize(
    ("settled", "expected"),
    [
        ({"answer": InvocationResult("i", "f", Raw(b'{"a":1}'))}, {"a": 1}),
        ({"answer": InvocationResult("i", "f")}, None),
        ({"answer": InvocationResult("i", "f", Raw(b"0"), error=Raw(b"null"))}, 0),
        ({"answer": InvocationResult("i", "f", Raw(b"0"), error=Raw(b"false"))}, 0),
        (
            {"answer": InvocationResult("i", "f", error=Raw(b'{"code":"c","message":"m","stacktrace":"s"}'))},
            ("c", "m", "s", "handler"),
        ),
        (
            {"answer": InvocationResult("i", "f", error=Raw(b'{"code":"c","message":"m"}'), by_engine=True)},
            ("c", "m", None, "engine"),
        ),
        ({"answer": InvocationResult("i", "f", error=Raw(b'"odd"'))}, ("UNKNOWN", '"odd"', None, "handler")),
        (
            {"lost": "reset"},
            (ErrorCode.INVOCATION_STOPPED, "the link to the engine was lost before the answer: reset", None, "link"),
        ),
        (
            {"unread": "no JSON"},
            (ErrorCode.DESERIALIZATION_ERROR, "the answer cannot be read: no JSON", None, "handler"),
        ),
    ],
)
def test_what_a_settled_call_gives(settled: dict[str, Any], expected: Any) -> None:
    called: list[str] = []
    call = pending(called)
    assert not call.settled
    call.settle(**settled)
    assert call.settled and called == ["settled"]
    if not isinstance(expected, tuple):
        assert call.value() == expected
        return
    for read in (call.value, call.result):
        with pytest.raises(CallError) as caught:
            read()
        error = caught.value
        assert (error.code, error.message, error.stacktrace, error.origin) == expected
        assert (error.function_id, error.invocation_id) == ("f", "i")


def test_an_answer_that_is_no_json_fails_where_it_is_read() -> None:
    call = pending()
    call.settle(InvocationResult("i", "f", Raw(b"{")))
    assert call.result() == Raw(b"{")
    with pytest.raises(CallError, match="the answer cannot be read: ") as caught:
        call.value()
    assert caught.value.code == ErrorCode.DESERIALIZATION_ERROR


async def test_the_callback_of_a_call_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("odd")

    call = PendingCall("f", "i", fail)
    call.settle(lost="x")
    assert call.settled and "the callback of a call raised" in caplog.text


async def wait_and_give_up(call: PendingCall) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.wait_settled)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_waiting_for_a_call_is_a_checkpoint_and_can_be_given_up() -> None:
    call = pending()
    await wait_and_give_up(call)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.wait_settled)
        await trio.testing.wait_all_tasks_blocked()
        call.settle(lost="x")
    with trio.testing.assert_checkpoints():
        await call.wait_settled()


async def test_a_call_wakes_the_task_that_waits_for_it_instead_of_calling_back() -> None:
    called: list[str] = []
    awaited, given_up = pending(called), pending(called)
    await wait_and_give_up(given_up)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(awaited.wait_settled)
        await trio.testing.wait_all_tasks_blocked()
        awaited.settle(lost="x")
        given_up.settle(lost="x")
    assert awaited.settled and given_up.settled and called == []


def test_a_call_is_pending_until_it_is_given_up() -> None:
    for extensions in (True, False):
        link = FakeLink()
        session, called = session_on(link, extensions), []  # type: ignore[var-annotated]
        call = pending(called)
        session.send(call, b"the call")
        assert link.sent == [b"the call"] and session.pending == {"i": call} and not call.settled
        handle = CallHandle(session, call)
        assert not handle.settled
        handle.give_up("why \ud800")
        handle.give_up("again")
        assert session.pending == {} and called == []
        assert len(link.sent) == (2 if extensions else 1)
        if extensions:
            cancel = decode(link.sent[1])
            assert isinstance(cancel, CancelInvocation) and cancel.invocation_id == "i"
        call.settle(InvocationResult("i", "f", Raw(b"1")))
        assert handle.settled and handle.value() == 1 and handle.result() == Raw(b"1")


def test_a_call_on_a_lost_link_is_lost_at_once() -> None:
    link = FakeLink(ended=EndReason(None, "reset"))
    session = session_on(link)
    call = pending()
    session.send(call, b"x")
    assert session.pending == {} and call.lost == "reset"


async def test_a_ping_waits_for_its_pong_or_the_loss() -> None:
    link = FakeLink()
    session = session_on(link)
    answers: list[bool] = []

    async def ping() -> None:
        answers.append(await session.ping())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping)
        nursery.start_soon(ping)
        await trio.testing.wait_all_tasks_blocked()
        assert link.rooms == 2 and link.messages == [Ping(), Ping()] and answers == []
        session.pings.popleft().set()
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [True]
        link.ended = EndReason(None, "reset")
        session.lose("reset")
    assert answers == [True, False]
    assert await session.ping() is False, "no pong comes on a lost link"


def test_a_lost_link_settles_its_calls_and_cancels_its_handlers() -> None:
    session = session_on(FakeLink())
    calls = [PendingCall("f", str(index)) for index in range(3)]
    for call in calls:
        session.send(call, b"x")
    reasons: list[str] = []

    @attrs.define(eq=False)
    class Running:
        name: str

        def cancel(self, reason: str | None = None) -> None:
            session.running.pop(self.name)
            reasons.append(str(reason))

    session.running = {name: Running(name) for name in "ab"}
    event = session.outcomes["c"] = trio.Event()
    session.lose("reset")
    assert [call.lost for call in calls] == ["reset"] * 3 and session.pending == {} and event.is_set()
    assert reasons == ["the link to the engine was lost: reset"] * 2


def test_small_helpers_of_calls() -> None:
    assert bytes(given_json({"a": 1}, "it")) == b'{"a":1}' and not given_json(None, "it")
    assert error_in(Raw(b"")) is None and error_in(Raw(b"null")) is None and error_in(Raw(b"false")) is None
    wrong = error_in(Raw(b"[1]"))
    assert wrong is not None and (wrong.code, wrong.message) == ("UNKNOWN", "[1]")
    assert len(checked(bytes(MAX_MESSAGE_BYTES), "f")) == MAX_MESSAGE_BYTES
    with pytest.raises(CallError, match=f"the call is {MAX_MESSAGE_BYTES + 1} bytes") as caught:
        checked(bytes(MAX_MESSAGE_BYTES + 1), "f")
    assert caught.value.code == ErrorCode.PAYLOAD_TOO_LARGE and caught.value.function_id == "f"


# --- answers


CALL = InvokeFunction("f", "i")


def error_of(link: FakeLink) -> tuple[Any, bool]:
    (answer,) = link.messages
    assert isinstance(answer, InvocationResult) and (answer.invocation_id, answer.function_id) == ("i", "f")
    return json.loads(bytes(answer.error)), answer.by_engine


def test_a_result_is_sent_as_it_is_and_only_to_who_waits() -> None:
    link = FakeLink()
    reply_result(session_on(link), CALL, b'{"a": 1}')
    (answer,) = link.messages
    assert (
        bytes(answer.result) == b'{"a": 1}'
        and not answer.error
        and (answer.invocation_id, answer.function_id) == ("i", "f")
    )
    reply_result(session_on(link), InvokeFunction("f"), b"1")
    reply_error(session_on(link), InvokeFunction("f"), ValueError("x"))
    assert len(link.sent) == 1


@pytest.mark.parametrize(
    ("error", "code", "message", "stack", "by_engine"),
    [
        (CallError("c", "m"), "c", "m", None, False),
        (CallError("c", "m", stacktrace="s"), "c", "m", "s", False),
        (CallError("c", "m", origin="engine"), "c", "m", None, True),
        (CallError("c", "m", origin="link"), "c", "m", None, True),
        (ChannelBroken("aborted", "why", code="k"), "k", "why", ..., False),
        (ValueError("v"), "invocation_failed", "ValueError: v", ..., False),
        (KeyError("k"), "invocation_failed", "KeyError: 'k'", ..., False),
    ],
)
def test_an_error_travels_with_its_code_text_and_origin(
    error: Exception, code: str, message: str, stack: Any, by_engine: bool
) -> None:
    link = FakeLink()
    reply_error(session_on(link), CALL, error)
    body, engines = error_of(link)
    assert (body["code"], body["message"], engines) == (code, message, by_engine)
    if stack is ...:
        assert type(error).__name__ in body["stacktrace"]
    else:
        assert body.get("stacktrace") == stack


def test_an_answer_of_exactly_the_limit_is_sent() -> None:
    link = FakeLink()
    reply_result(session_on(link), CALL, b'""')
    fitting = MAX_MESSAGE_BYTES - len(link.sent[0])
    for size in (fitting, fitting + 1):
        link.sent.clear()
        reply_result(session_on(link), CALL, b'"' + b"x" * size + b'"')
        if size == fitting:
            assert len(link.sent[0]) == MAX_MESSAGE_BYTES
    body, _ = error_of(link)
    assert body["code"] == ErrorCode.PAYLOAD_TOO_LARGE
    assert body["message"].startswith(f"Serialized JSON envelope is {MAX_MESSAGE_BYTES + 1} bytes; limit is ")


def test_an_inline_call_is_watched_until_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    session, told = session_on(FakeLink()), []  # type: ignore[var-annotated]
    message = InvokeFunction("f", "i", data=Raw(b"[1]"), traceparent="t", baggage="b", metadata=Raw(b'{"m":1}'))
    call = InlineCall(session, message)
    assert (call.invocation_id, call.payload, call.traceparent, call.baggage, call.metadata) == (
        "i", Raw(b"[1]"), "t", "b", Raw(b'{"m":1}')
    )  # fmt: skip
    assert InlineCall(session, CALL).payload == Raw(b"null") and not InlineCall(session, CALL).metadata
    assert session.running == {}
    call.when_cancelled(told.append)
    session.running["i"].cancel("why")
    session.running["i"].cancel()
    assert told == ["why", "cancelled"]
    call.answer({"a": 1})
    assert session.running == {}
    # A call that is not watched takes nobody else's entry away, and a void call cannot be cancelled.
    other = session.running["i"] = attrs.make_class("Other", [])()
    InlineCall(session, CALL).fail(ValueError("x"))
    assert session.running == {"i": other}
    InlineCall(session, InvokeFunction("f")).when_cancelled(told.append)
    assert session.running == {"i": other}

    def raises(reason: str) -> None:
        raise ValueError(reason)

    watched = InlineCall(session, InvokeFunction("f", "j"))
    watched.when_cancelled(raises)
    session.running["j"].cancel("x")
    assert "the cancellation of a call raised" in caplog.text


# --- jobs

AT = datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "travels"),
    [
        ({}, {}),
        ({"delay_seconds": 0}, {"delay_seconds": 0}),
        ({"delay_seconds": 1e9}, {"delay_seconds": 1e9}),
        ({"at": AT}, {"at_ms": round(AT.timestamp() * 1000)}),
        ({"at": AT.astimezone(timezone(timedelta(hours=5)))}, {"at_ms": round(AT.timestamp() * 1000)}),
        ({"priority": 0}, {"priority": 0}),
        ({"priority": 3}, {"priority": 3}),
        ({"unique_key": "k"}, {"unique_key": "k"}),
        (
            {"unique_key": "k", "unique_seconds": 5, "replace": True},
            {"unique_key": "k", "unique_seconds": 5, "replace": True},
        ),
        ({"unique_key": "k", "replace": False}, {"unique_key": "k"}),
        ({"keep_result_seconds": 7.5}, {"keep_result_seconds": 7.5}),
    ],
)
def test_the_options_of_a_job_travel_if_they_are_given(options: dict[str, Any], travels: dict[str, Any]) -> None:
    made = enqueue("mail", **options)
    assert made.queue == "mail" and made.options == travels
    assert made.action.type == "enqueue" and made.action.queue == "mail"
    assert (json.loads(bytes(made.action.options)) if made.action.options else {}) == travels
    assert enqueue().queue == "default"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"at": AT, "delay_seconds": 0}, "a job has a delay or a time"),
        ({"at": datetime(2026, 1, 2)}, "has no time zone"),
        ({"unique_seconds": 0}, "give one"),
        ({"unique_key": ""}, "`unique_key` has 0 characters"),
        ({"replace": True}, "give one"),
        ({"priority": -1}, "`priority` is -1"),
        ({"priority": 4}, "`priority` is 4"),
        ({"priority": "1"}, "`priority` is '1'; give 0, 1, 2 or 3"),
        ({"priority": True}, "`priority` is True; give 0, 1, 2 or 3"),
        ({"priority": 1.0}, "`priority` is 1.0; give 0, 1, 2 or 3"),
        ({"unique_key": "\ud800"}, r"`unique_key` is '\ud800' and cannot be sent: '\ud800' is half a character"),
        ({"queue": "mail\udfff"}, r"the name of the queue is 'mail\udfff' and cannot be sent"),
        ({"delay_seconds": -0.1}, "`delay_seconds` is -0.1"),
        ({"delay_seconds": "soon"}, "`delay_seconds` is 'soon'; give a number of seconds"),
        ({"at": "tomorrow"}, "`at` is 'tomorrow'; give a datetime with a time zone"),
        ({"unique_key": 5}, "`unique_key` is 5; give a string"),
        ({"delay_seconds": 1e9 + 0.5}, "`delay_seconds` is 1e+09"),
        ({"unique_key": "k", "unique_seconds": float("nan")}, "`unique_seconds` is nan"),
        ({"keep_result_seconds": float("inf")}, "`keep_result_seconds` is inf; give a number of seconds from 0 to 1e"),
    ],
)
def test_options_that_cannot_be_meant_are_a_misuse(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(MisuseError) as refused_:
        enqueue(**options)
    assert problem in str(refused_.value)


@pytest.mark.parametrize("queue", ["", " ", None])
def test_a_job_is_for_a_queue_that_has_a_name(queue: Any) -> None:
    with pytest.raises(MisuseError, match="is not a name of a queue; the one that is always there is 'default'"):
        enqueue(queue)


async def test_a_receipt_asks_for_its_job_until_it_is_over() -> None:
    asked: list[Any] = []
    states = [{"state": "waiting"}, {"state": "running"}, {"state": "done", "result": 5}]

    async def call(function_id: str, payload: dict[str, str]) -> Any:
        await trio.lowlevel.checkpoint()
        asked.append((function_id, payload))
        return states.pop(0)

    receipt = Receipt.from_json({"messageReceiptId": "j"}, "f", call)
    assert receipt == Receipt("j") and await receipt.status() == {"state": "waiting"}
    assert await receipt.wait() == 5
    assert asked == [(f"engine::queue::{verb}", {"id": "j"}) for verb in ("job", "wait", "wait")]
    states[:] = [{"state": "done"}]
    assert await receipt.wait() is None
    states[:] = [{"state": "dead", "code": "c", "message": "m"}]
    with pytest.raises(CallError) as caught:
        await receipt.wait()
    assert (caught.value.code, caught.value.message) == ("c", "m")
    states[:] = [{"state": "removed"}]
    with pytest.raises(CallError, match="the job j was cancelled or purged") as caught:
        await receipt.wait()
    assert caught.value.code == "job_removed"
    with pytest.raises(MisuseError, match="was not made by a worker"):
        await Receipt("j").status()
    for value in (None, 5, {}, {"messageReceiptId": 5}, "j"):
        with pytest.raises(CallError, match="is not a receipt") as caught:
            Receipt.from_json(value, "f")
        assert caught.value.function_id == "f" and caught.value.code == ErrorCode.DESERIALIZATION_ERROR


NO_OPTIONS: dict[str, Any] = dict.fromkeys(
    (
        "max_attempts", "concurrency", "group_by", "backoff_seconds", "backoff", "visibility_timeout_seconds",
        "delay_seconds", "condition",
    )
) | {"fifo": False}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ({}, None),
        ({"fifo": True}, {"type": "fifo"}),
        ({"group_by": "g"}, {"type": "fifo", "messageGroupField": "g"}),
        ({"group_by": ""}, {"type": "fifo", "messageGroupField": ""}),
        ({"max_attempts": 1}, {"maxRetries": 0}),
        ({"max_attempts": 5, "concurrency": 1}, {"maxRetries": 4, "concurrency": 1}),
        ({"backoff_seconds": 1.5, "backoff": "fixed"}, {"backoffDelayMs": 1500, "backoffType": "fixed"}),
        ({"visibility_timeout_seconds": 3, "delay_seconds": 0}, {"visibilityTimeout": 3, "delaySeconds": 0}),
    ],
)
def test_the_config_of_a_subscription(options: dict[str, Any], config: dict[str, Any] | None) -> None:
    expected: dict[str, Any] = {"topic": "t"} | ({} if config is None else {"queue_config": config})
    assert subscription("t", **{**NO_OPTIONS, **options}) == expected
    expected["condition_function_id"] = "c"
    assert subscription("t", **{**NO_OPTIONS, **options, "condition": "c"}) == expected


@pytest.mark.parametrize(("name", "value"), [("max_attempts", 0), ("concurrency", 0), ("concurrency", -1)])
def test_a_subscription_that_would_handle_nothing_is_a_misuse(name: str, value: int) -> None:
    with pytest.raises(MisuseError, match=f"{name} is {value}; give at least 1"):
        subscription("t", **{**NO_OPTIONS, name: value})
    with pytest.raises(MisuseError, match="the name of a topic"):
        subscription("", **NO_OPTIONS)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"a": [1, {"b": float("nan")}]}, "a"),
        ({"a": float("inf")}, "a"),
        ([1, b"x"], "1"),
        ({"a": {"b": object()}}, "a.b"),
        ({1: 2}, ""),
    ],
)
def test_a_payload_that_cannot_be_sent_is_named_with_its_place(payload: Any, problem: str) -> None:
    with pytest.raises(CallError, match="the payload cannot be sent as JSON: ") as caught:
        encode_payload(payload, "the payload")
    assert caught.value.code == ErrorCode.SERIALIZATION_ERROR and problem in caught.value.message


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"a": float("nan"), "b": b"x"}, "a: nan is not JSON"),
        ({"a": b"x", "b": float("nan")}, "a: bytes are not JSON"),
        ({"a": [float("nan")], "b": b"x"}, "a[0]: nan is not JSON"),
        ([[b"x"], {"b": {"c": float("nan")}}], "[0][0]: bytes are not JSON"),
    ],
)
def test_the_first_of_two_faults_is_named_with_its_own_reason(payload: Any, problem: str) -> None:
    with pytest.raises(CallError) as caught:
        encode_payload(payload, "the payload")
    assert caught.value.message.startswith(f"the payload cannot be sent as JSON: {problem}")


# --- byte streams


@attrs.define(eq=False)
class Items:
    """Both ends of a channel, as lists."""

    items: list[bytes | str] = attrs.field(factory=list)
    calls: list[str] = attrs.field(factory=list)
    raises: Exception | None = None
    waits: bool = False

    async def _do(self, call: str) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        if self.waits:
            await trio.sleep_forever()
        if self.raises is not None:
            raise self.raises

    async def send(self, value: bytes | str) -> None:
        await self._do("send")
        self.items.append(value)

    async def wait_room(self) -> None:
        await self._do("wait_room")

    async def aclose(self) -> None:
        await self._do("aclose")

    async def receive(self) -> bytes | str:
        await self._do("receive")
        if not self.items:
            raise trio.EndOfChannel
        return self.items.pop(0)

    def put_back(self, item: bytes | str) -> None:
        self.items.insert(0, item)


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 131_072, 131_073])
async def test_bytes_are_cut_into_items_of_64_KiB(size: int) -> None:
    channel = Items()
    data = bytes(index % 251 for index in range(size))
    await WriterStream(channel).send_all(bytearray(data))
    assert b"".join(channel.items) == data  # type: ignore[arg-type]
    assert [len(item) for item in channel.items[:-1]] == [65_536] * ((size - 1) // 65_536)
    assert 0 < len(channel.items[-1]) <= 65_536


async def test_an_empty_send_notices_the_end_and_sends_nothing() -> None:
    channel = Items()
    await WriterStream(channel).send_all(b"")
    await WriterStream(channel).wait_send_all_might_not_block()
    await WriterStream(channel).send_eof()
    assert channel.calls == ["wait_room", "wait_room", "aclose"] and channel.items == []


@pytest.mark.parametrize("first", ["send_all", "wait_send_all_might_not_block", "send_eof"])
async def test_one_task_sends_at_a_time(first: str) -> None:
    channel = Items(waits=True)
    stream = WriterStream(channel)
    arguments = (b"x",) if first == "send_all" else ()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(getattr(stream, first), *arguments)
        await trio.testing.wait_all_tasks_blocked()
        for use in (lambda: stream.send_all(b"y"), stream.wait_send_all_might_not_block, stream.send_eof):
            with pytest.raises(trio.BusyResourceError):
                await use()
        nursery.cancel_scope.cancel()
    channel.waits = False
    await stream.send_all(b"z")
    assert channel.items == [b"z"]


@pytest.mark.parametrize(("outcome", "told", "raised"), [
    ("reader_cancelled", False, False), ("reader_cancelled", True, False),
    ("reader_lost", False, True), ("reader_lost", True, False),
])  # fmt: skip
async def test_a_close_tells_an_end_that_nothing_told_before(outcome: str, told: bool, raised: bool) -> None:
    channel = Items(raises=ChannelBroken(outcome, "why"))  # type: ignore[arg-type]
    stream = WriterStream(channel)
    if told:
        with pytest.raises(ChannelBroken):
            await stream.send_all(b"x")
    if raised:
        with pytest.raises(ChannelBroken):
            await stream.aclose()
    else:
        await stream.aclose()
    assert channel.calls[-1] == "aclose"


async def test_bytes_are_received_in_any_portions() -> None:
    channel = Items([b"", b"abc", b"", b"de"])
    stream = ReaderStream(channel)
    assert [await stream.receive_some(2) for _ in range(4)] == [b"ab", b"c", b"de", b""]
    channel.items = [b"abc", b"de"]
    assert await stream.receive_some(3) == b"abc" and channel.items == [b"de"]
    assert await stream.receive_some() == b"de" and await stream.receive_some() == b""
    channel.items = ["text", b"x"]
    with pytest.raises(TypeError, match="take it with receive"):
        await stream.receive_some()
    assert channel.items == ["text", b"x"]
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            await stream.receive_some(wrong)
    channel.items = [b"x"]
    assert await stream.receive_some(1) == b"x"
    await stream.aclose()
    assert channel.calls[-1] == "aclose"


# --- responses


TYPE = "content-type: text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (None, {"status_code": 204, "headers": [TYPE], "body": None}),
        ("text", {"status_code": 200, "headers": [TYPE], "body": "text"}),
        ({"a": 1}, {"status_code": 200, "headers": [], "body": {"a": 1}}),
        (HttpResult(201, {"A": "b"}, [1]), {"status_code": 201, "headers": ["A: b"], "body": [1]}),
        (
            HttpResult(200, [("Content-Type", "x/y")], "t"),
            {"status_code": 200, "headers": ["Content-Type: x/y"], "body": "t"},
        ),
    ],
)
async def test_what_becomes_of_a_handlers_value(value: Any, answer: dict[str, Any]) -> None:
    channel = Items()
    assert await respond(value, HttpResponse(channel)) == answer  # type: ignore[arg-type]
    assert channel.items == []


@pytest.mark.parametrize(
    ("value", "status", "headers"),
    [
        (b"abc", None, {"content-type": "application/octet-stream", "content-length": "3"}),
        (bytearray(b"abc"), None, {"content-type": "application/octet-stream", "content-length": "3"}),
        (
            HttpResult(203, {"Content-Type": "x/y"}, memoryview(b"abc")),
            203,
            {"Content-Type": "x/y", "content-length": "3"},
        ),
    ],
)
async def test_bytes_are_a_stream_with_their_length(value: Any, status: int | None, headers: dict[str, str]) -> None:
    channel = Items()
    assert await respond(value, HttpResponse(channel)) is None  # type: ignore[arg-type]
    *head, body = channel.items
    assert body == b"abc"
    said = [json.loads(one) for one in head]
    assert said == ([{"type": "set_status", "status_code": status}] if status else []) + [
        {"type": "set_headers", "headers": headers}
    ]


async def test_a_response_is_started_once() -> None:
    channel = Items()
    response = HttpResponse(channel)  # type: ignore[arg-type]
    assert not response.started
    with pytest.raises(MisuseError, match="'a' twice"):
        await response.start(200, [("A", "1"), ("a", "2")])
    assert not response.started
    await response.start(200)
    assert response.started and channel.items == []
    with pytest.raises(MisuseError, match="started already"):
        await response.start()
    await response.send("é")
    await response.flush()
    assert channel.items == ["é".encode(), b""]
    assert await respond(None, response) is None
    with pytest.raises(MisuseError, match="returned a value too"):
        await respond(0, response)
    for use in ("flush", "aclose"):
        fresh = HttpResponse(Items())  # type: ignore[arg-type]
        await getattr(fresh, use)()
        assert fresh.started


def test_an_error_is_a_response() -> None:
    error = HttpError(418, "TEAPOT", "short and stout", {"A": "b"})
    assert str(error) == "418 TEAPOT: short and stout" and pairs(error.headers) == [("A", "b")]
    assert refused(error) == HttpResult(418, [("A", "b")], {"error": {"code": "TEAPOT", "message": "short and stout"}})
    assert pairs([("A", "1"), ("A", "2")]) == [("A", "1"), ("A", "2")] and pairs(()) == []


def test_what_a_handler_is_told_of_its_call_cannot_be_changed() -> None:
    info: Any = CallInfo("i", "f", "w", None, None, None)
    with pytest.raises(AttributeError):
        info.function_id = "g"
    assert info == CallInfo("i", "f", "w", None, None, None) and hash(info) == hash(info)
