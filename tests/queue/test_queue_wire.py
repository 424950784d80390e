"""The queue's words on the wire, as iii's clients expect them: requests, answers, codes and texts, as JSON."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import QueueSettings
from iii_trio.transport.link import Link
from iii_trio.triggers.queue.protocol import read_subscriber
from tests.helpers.queue_world import queueing

Clock = trio.testing.MockClock
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Raw:
    """A peer that says and hears JSON, and adds nothing."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.unheard: list[dict[str, Any]] = []

    def say(self, type_: str, **about: Any) -> None:
        self.link.send(json.dumps({"type": type_, **about}).encode())

    async def hear(self, type_: str, **about: Any) -> dict[str, Any]:
        """The next message that is like this."""
        with trio.fail_after(10_000):
            while True:
                for message in self.unheard:
                    if message.items() >= {"type": type_, **about}.items():
                        self.unheard.remove(message)
                        return message
                text = await self.link.receive()
                assert text is not None, self.link.ended
                self.unheard.append(json.loads(text))
        raise AssertionError  # fail_after raises

    async def call(self, function_id: str, data: Any, **about: Any) -> dict[str, Any]:
        """The answer to a call, without what only repeats the question."""
        ident = str(uuid.uuid4())
        self.say("invokefunction", invocation_id=ident, function_id=function_id, data=data, **about)
        answer = await self.hear("invocationresult", invocation_id=ident)
        for repeated in ("type", "invocation_id", "function_id", "traceparent", "baggage"):
            answer.pop(repeated, None)
        return answer

    async def enqueue(self, function_id: str, data: Any, queue: str = "mail", **about: Any) -> dict[str, Any]:
        return await self.call(function_id, data, action={"type": "enqueue", "queue": queue}, **about)

    async def answer(self, **about: Any) -> dict[str, Any]:
        """Take the next call, and answer it; the call as it came."""
        call = await self.hear("invokefunction")
        self.say("invocationresult", invocation_id=call["invocation_id"], function_id=call["function_id"], **about)
        return call


@asynccontextmanager
async def peer(engine: iii_trio.Engine, name: str, *functions: str, namespace: str | None = None) -> AsyncIterator[Raw]:
    async with trio.open_nursery() as nursery:
        raw = Raw(await nursery.start(engine.address.connect))
        await raw.hear("workerregistered")
        about = {"name": name} | ({"namespace": namespace} if namespace else {})
        await raw.call("engine::workers::register", about)
        for function_id in functions:
            raw.say("registerfunction", id=function_id)
        yield raw
        nursery.cancel_scope.cancel()


MAIL = QueueSettings(max_attempts=2, backoff_seconds=1, concurrency=1)
LEDGER = QueueSettings(fifo=True, group_by="account")


@asynccontextmanager
async def wire(*functions: str) -> AsyncIterator[Raw]:
    async with queueing(mail=MAIL, ledger=LEDGER) as engine, peer(engine, "peer", *functions) as raw:
        yield raw


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """An error's code and message; whoever says it is left out."""
    assert "error" in answer, answer
    return {"error": {key: answer["error"][key] for key in ("code", "message")}}


# --- enqueue


async def test_a_job_is_answered_with_its_receipt_and_called_bare(autojump_clock: Clock) -> None:
    async with wire("mail::send") as raw:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        answer = await raw.enqueue(
            "mail::send",
            {"to": "a@b.c"},
            metadata={"tenant": 7},
            traceparent=trace,
            baggage="user=7,iii.function.id=caller::f,iii.tag.kind=x,iii.tag.display_name=y,iii.tag.hidden=1",
        )
        receipt = answer["result"]["messageReceiptId"]
        assert answer == {"result": {"messageReceiptId": receipt}}
        assert UUID.fullmatch(receipt)
        call = await raw.answer(result={"ignored": True})
        assert call["data"] == {"to": "a@b.c"}
        assert call["function_id"] == "mail::send"
        assert call["baggage"] == "user=7,iii.function.id=mail::send"
        assert call["traceparent"].split("-")[1] == trace.split("-")[1]
        assert call["metadata"] == {
            "tenant": 7,
            "job": {"id": receipt, "attempt": 1, "max_attempts": 2, "queue": "mail"},
        }
        assert "action" not in call


@pytest.mark.parametrize("data", [None, 0, "text", [1, {"a": []}], {}, {"_": {"deep": 1.5}}])
async def test_any_json_is_data(autojump_clock: Clock, data: Any) -> None:
    async with wire("mail::send") as raw:
        await raw.enqueue("mail::send", data)
        assert (await raw.answer(result=None))["data"] == data


async def test_the_existence_of_the_function_is_not_asked_when_it_is_enqueued(autojump_clock: Clock) -> None:
    async with wire() as raw:
        assert "result" in await raw.enqueue("mail::nobody", 1)


async def test_a_job_is_done_in_the_namespace_that_its_caller_named(autojump_clock: Clock) -> None:
    async with (
        queueing(mail=MAIL) as engine,
        peer(engine, "a", "mail::send") as default,
        peer(engine, "b", "mail::send", namespace="orders") as orders,
    ):
        await default.enqueue("mail::send", 1, namespace="orders")
        assert (await orders.answer(result=1))["data"] == 1
        await orders.enqueue("mail::send", 2)  # no namespace is the default one
        assert (await default.answer(result=1))["data"] == 2


async def test_without_an_invocation_id_nothing_is_answered_and_the_job_is_done(autojump_clock: Clock) -> None:
    async with wire("mail::send") as raw:
        raw.say("invokefunction", function_id="mail::send", data=1, action={"type": "enqueue", "queue": "mail"})
        raw.say("invokefunction", function_id="mail::send", data=2, action={"type": "enqueue", "queue": "male"})
        assert (await raw.answer(result=1))["data"] == 1
        await trio.sleep(10)
        raw.say("ping")
        await raw.hear("pong")
        assert raw.unheard == []


MISSING = "FIFO queue 'ledger' requires field 'account' in data, but it was not found"


@pytest.mark.parametrize(
    ("queue", "data", "text"),
    [
        ("male", 1, "queue_not_found: Queue 'male' not found"),
        ("ledger", {"other": 1}, f"fifo_group_missing: {MISSING}"),
        ("ledger", "account", f"fifo_group_missing: {MISSING}"),
        ("ledger", None, f"fifo_group_missing: {MISSING}"),
        ("ledger", {"account": None}, "fifo_group_missing: FIFO queue 'ledger': field 'account' must not be null"),
    ],
)
async def test_what_is_not_taken_is_told_as_an_enqueue_error(
    autojump_clock: Clock, queue: str, data: Any, text: str
) -> None:
    async with wire() as raw:
        assert told(await raw.enqueue("f", data, queue=queue)) == error("enqueue_error", text)


async def test_a_direct_call_of_the_provider(autojump_clock: Clock) -> None:
    """As a bridge, or an engine of another make, might make it."""
    async with wire("mail::send") as raw:
        job = {
            "queue": "mail", "function_id": "mail::send", "data": {"a": 1}, "messageReceiptId": "mine",
            "traceparent": None, "baggage": None, "who knows": "what",
        }  # fmt: skip
        assert "error" not in await raw.call("engine::queue::enqueue", job)
        assert (await raw.answer(result=1))["metadata"]["job"]["id"] == "mine"
        assert told(await raw.call("engine::queue::enqueue", {**job, "queue": "male"})) == error(
            "queue_not_found", "Queue 'male' not found"
        )
        for nothing in ("", " "):
            refused = told(await raw.call("engine::queue::enqueue", {**job, "function_id": nothing}))["error"]
            assert refused["code"] == "deserialization_error" and "the function's id is empty" in refused["message"]
        assert told(await raw.call("engine::queue::enqueue", {**job, "namespace": " "}))["error"]["code"] == (
            "INVALID_NAMESPACE"
        )
        for wrong in ({}, {"queue": "mail"}, {**job, "queue": 7}, [], None):
            refusal = told(await raw.call("engine::queue::enqueue", wrong))["error"]
            assert refusal["code"] == "deserialization_error"
            assert refusal["message"].startswith("Failed to deserialize input for engine::queue::enqueue:")


# --- what people ask and do


async def two_dead_letters(raw: Raw) -> list[str]:
    """Of the queue `mail`; their ids, the older first."""
    idents = []
    for n in (1, 2):
        answer = await raw.enqueue("mail::send", {"n": n})
        idents.append(answer["result"]["messageReceiptId"])
        for _ in range(2):
            await raw.answer(error={"code": "smtp", "message": f"no such address {n}"})
        await trio.sleep(2)
    return idents


async def test_what_is_asked_about_queues_and_topics(autojump_clock: Clock) -> None:
    async with wire("mail::send", "mail::on_order") as raw:
        older, newer = await two_dead_letters(raw)
        for ident in ("one", "another"):
            raw.say(
                "registertrigger", id=ident, trigger_type="durable:subscriber", function_id="mail::on_order",
                config={"topic": "orders"},
            )  # fmt: skip
        await trio.sleep(1)
        where = {"storage": "memory"}
        assert await raw.call("engine::queue::list_topics", {}) == {
            "result": [
                {"name": "default", "broker_type": "function_queue", "subscriber_count": 10} | where,
                {"name": "ledger", "broker_type": "function_queue", "subscriber_count": 10} | where,
                {"name": "mail", "broker_type": "function_queue", "subscriber_count": 1} | where,
                {"name": "orders", "broker_type": "builtin", "subscriber_count": 2} | where,
            ]
        }
        for asked in ({"topic": "mail"}, {"queue": "mail"}, {"queue": "mail", "more": 1}):
            assert await raw.call("engine::queue::topic_stats", asked) == {
                "result": {"depth": 0, "consumer_count": 1, "dlq_depth": 2, "config": None}
            }
        assert await raw.call("engine::queue::topic_stats", {"topic": "orders"}) == {
            "result": {"depth": 0, "consumer_count": 2, "dlq_depth": 0, "config": None}
        }
        assert await raw.call("engine::queue::topic_stats", {"topic": "nobody's"}) == {
            "result": {"depth": 0, "consumer_count": 0, "dlq_depth": 0, "config": None}
        }
        listed = (await raw.call("engine::queue::dlq_topics", {}))["result"]
        assert {"topic": "mail", "broker_type": "function_queue", "message_count": 2} in listed
        assert {"topic": "orders", "broker_type": "builtin", "message_count": 0} in listed
        assert len(listed) == 4

        answer = await raw.call("engine::queue::dlq_messages", {"topic": "mail"})
        first, second = answer["result"]
        assert (first["id"], second["id"]) == (newer, older)
        failed_at = first.pop("failed_at")
        assert isinstance(failed_at, int)
        assert abs(failed_at - time.time()) < 3600  # seconds since the epoch
        assert first == {
            "id": newer, "payload": {"n": 2}, "error": "smtp: no such address 2", "code": "smtp", "lost": 0,
            "message": "no such address 2", "retries": 2, "size_bytes": len(json.dumps({"n": 2})),
            "function_id": "mail::send", "namespace": "default",
        }  # fmt: skip
        for page, expected in (
            ({"offset": 1}, [older]),
            ({"limit": 1}, [newer]),
            ({"offset": 2}, []),
            ({"limit": 0}, []),
            ({"offset": 1, "limit": 5}, [older]),
        ):
            answer = await raw.call("engine::queue::dlq_messages", {"queue": "mail", **page})
            assert [row["id"] for row in answer["result"]] == expected


async def test_what_is_done_about_dead_letters(autojump_clock: Clock) -> None:
    async with wire("mail::send") as raw:
        older, newer = await two_dead_letters(raw)
        one = {"queue": "mail", "message_id": older}
        again = {"topic": "mail", "message_id": newer}
        for function in ("redrive_message", "discard_message"):
            nobody = {"queue": "mail", "message_id": "nobody"}
            assert await raw.call(f"iii::queue::{function}", nobody) == {"result": {**nobody, "redriven": 0}}
        assert await raw.call("iii::queue::redrive_message", one) == {"result": {**one, "redriven": 1}}
        assert await raw.call("iii::queue::redrive_message", one) == {"result": {**one, "redriven": 0}}
        call = await raw.answer(result=1)
        assert (call["data"], call["metadata"]["job"]) == (
            {"n": 1},
            {"id": older, "attempt": 1, "max_attempts": 2, "queue": "mail"},
        )
        assert await raw.call("iii::queue::discard_message", again) == {
            "result": {"queue": "mail", "message_id": newer, "redriven": 1}
        }
        assert await raw.call("iii::queue::redrive", {"queue": "mail"}) == {"result": {"queue": "mail", "redriven": 0}}
        idents = await two_dead_letters(raw)
        assert await raw.call("iii::queue::redrive", {"topic": "mail"}) == {"result": {"queue": "mail", "redriven": 2}}
        assert [(await raw.answer(result=1))["metadata"]["job"]["id"] for _ in idents] == idents  # the oldest first
        await trio.sleep(1)
        assert (await raw.call("engine::queue::topic_stats", {"queue": "mail"}))["result"]["depth"] == 0


ONE = {"message_id": "x"}
NO_NAME = error("queue_not_set", "Queue name is required")
NO_ID = error("message_id_not_set", "Message ID is required")
NO_TOPIC = error("topic_required", "Topic is required")


@pytest.mark.parametrize(
    ("function", "given", "expected"),
    [
        ("iii::durable::publish", {"topic": "", "data": 1}, error("topic_not_set", "Topic is not set")),
        ("iii::durable::publish", {"data": 1}, error("topic_not_set", "Topic is not set")),
        ("iii::queue::redrive", {}, NO_NAME),
        ("iii::queue::redrive", {"queue": ""}, NO_NAME),
        ("iii::queue::redrive_message", ONE, NO_NAME),
        ("iii::queue::redrive_message", {"queue": "mail"}, NO_ID),
        ("iii::queue::redrive_message", {"topic": "mail", "message_id": ""}, NO_ID),
        ("iii::queue::discard_message", ONE, NO_NAME),
        ("iii::queue::discard_message", {"queue": "mail"}, NO_ID),
        ("engine::queue::discard", {}, NO_NAME),
        ("engine::queue::topic_stats", {}, NO_TOPIC),
        ("engine::queue::topic_stats", {"topic": ""}, NO_TOPIC),
        ("engine::queue::dlq_messages", {}, NO_TOPIC),
    ],
)
async def test_what_is_missing_is_told_by_its_code(
    autojump_clock: Clock, function: str, given: Any, expected: dict[str, Any]
) -> None:
    async with wire() as raw:
        assert told(await raw.call(function, given)) == expected


@pytest.mark.parametrize(
    ("function", "given"),
    [
        ("iii::durable::publish", {"topic": "t"}),
        ("iii::durable::publish", {"topic": 7, "data": 1}),
        ("iii::durable::publish", None),
        ("iii::queue::redrive", {"queue": 7}),
        ("iii::queue::redrive_message", {"queue": "mail", "message_id": 7}),
        ("engine::queue::topic_stats", {"topic": ["mail"]}),
        ("engine::queue::dlq_messages", {"topic": "mail", "limit": "ten"}),
    ],
)
async def test_what_is_of_a_wrong_shape_is_told_with_the_functions_name(
    autojump_clock: Clock, function: str, given: Any
) -> None:
    async with wire() as raw:
        refusal = told(await raw.call(function, given))["error"]
        assert refusal["code"] == "deserialization_error"
        assert refusal["message"].startswith(f"Failed to deserialize input for {function}:")


@pytest.mark.parametrize("function", ["list_topics", "dlq_topics"])
@pytest.mark.parametrize("given", [None, {}, {"any": "thing"}, [1], "text"])
async def test_functions_that_ask_nothing_take_anything(autojump_clock: Clock, function: str, given: Any) -> None:
    async with wire() as raw:
        assert "result" in await raw.call(f"engine::queue::{function}", given)


async def test_the_functions_of_a_queue_that_is_configured_anew(autojump_clock: Clock) -> None:
    async with wire() as raw:
        assert await raw.call("iii-queue::on-config-change", {"any": "thing"}) == {"result": {"ok": True}}


async def test_publishing_has_no_value(autojump_clock: Clock) -> None:
    async with wire() as raw:
        for data in (None, {"n": 1}):
            assert await raw.call("iii::durable::publish", {"topic": "news", "data": data}) == {"result": None}


# --- subscriptions


async def test_a_message_is_called_bare_in_the_subscribers_namespace(autojump_clock: Clock) -> None:
    async with (
        queueing() as engine,
        peer(engine, "a", "news::hear") as a,
        peer(engine, "b", "news::hear", namespace="b") as b,
    ):
        for raw, where in ((a, {}), (b, {"namespace": "b"})):
            raw.say(
                "registertrigger", id=f"of {where}", trigger_type="durable:subscriber", function_id="news::hear",
                config={"topic": "news"}, metadata={"not": "delivered"}, **where,
            )  # fmt: skip
        await trio.sleep(1)
        await a.call("iii::durable::publish", {"topic": "news", "data": {"n": 1}}, baggage="user=7,iii.function.id=x")
        for raw in (a, b):
            call = await raw.answer(result=None)
            assert call["data"] == {"n": 1}
            assert call["baggage"] == "user=7,iii.function.id=news::hear"
            job = call["metadata"].pop("job")
            assert call["metadata"] == {}
            assert UUID.fullmatch(job.pop("id"))
            assert job == {"attempt": 1, "max_attempts": 3, "queue": "news"}


@pytest.mark.parametrize("config", [{}, {"topic": ""}, {"topic": 7}, None, [], {"topic": None, "queue": ""}])
async def test_a_subscription_without_a_topic_is_taken_and_never_fires(autojump_clock: Clock, config: Any) -> None:
    async with wire("f") as raw:
        raw.say("registertrigger", id="x", trigger_type="durable:subscriber", function_id="f", config=config)
        await trio.sleep(10)
        for topic in ("7", "None", "[]"):
            await raw.call("iii::durable::publish", {"topic": topic, "data": 1})
        raw.say("unregistertrigger", id="x", trigger_type="durable:subscriber")
        await trio.sleep(10)
        raw.say("ping")
        await raw.hear("pong")
        assert raw.unheard == []


@pytest.mark.parametrize(("max_retries", "calls"), [(None, 3), (0, 1), (1, 2), (4, 5), ("3", 3), (-1, 3), (1.5, 3)])
async def test_a_topics_max_retries_follow_the_first_call(autojump_clock: Clock, max_retries: Any, calls: int) -> None:
    async with wire("f") as raw:
        queue_config = {} if max_retries is None else {"maxRetries": max_retries}
        config = {"topic": "news", "queue_config": queue_config}
        raw.say("registertrigger", id="x", trigger_type="durable:subscriber", function_id="f", config=config)
        await trio.sleep(1)
        await raw.call("iii::durable::publish", {"topic": "news", "data": 1})
        times, began = [], trio.current_time()
        for _ in range(calls):
            await raw.answer(error={"code": "c", "message": "m"})
            times.append(round(trio.current_time() - began, 3))
        assert times == [2**k - 1 for k in range(calls)]  # a pause of a second, that doubles
        await trio.sleep(1000)
        assert (await raw.call("engine::queue::topic_stats", {"topic": "news"}))["result"]["dlq_depth"] == 1
        [dead] = (await raw.call("engine::queue::dlq_messages", {"topic": "news"}))["result"]
        assert (dead["retries"], dead["error"]) == (calls, "c: m")


PLAIN = QueueSettings(missing_function_seconds=None, max_jobs=100_000)


@pytest.mark.parametrize(
    ("queue_config", "read"),
    [
        ({"type": "fifo"}, {"fifo": True}),
        ({"type": "FIFO"}, {}),
        ({"type": "fifo", "messageGroupField": "g"}, {"fifo": True, "group_by": "g"}),
        ({"messageGroupField": "g"}, {}),
        ({"concurrency": 4}, {"concurrency": 4}),
        ({"backoffDelayMs": 250}, {"backoff_seconds": 0.25}),
        ({"backoffDelayMs": 0}, {"backoff_seconds": 0.0}),
        ({"backoffType": "fixed"}, {"backoff": "fixed"}),
        ({"visibilityTimeout": 30}, {"visibility_timeout_seconds": 30.0}),
        ({"delaySeconds": 1.5}, {"delay_seconds": 1.5}),
        ({"maxPriority": 5, "what": "else"}, {}),
    ],
)  # fmt: skip
def test_what_a_subscription_may_say(queue_config: dict[str, Any], read: dict[str, Any]) -> None:
    config = {"topic": "t", "queue_config": queue_config}
    assert read_subscriber(json.dumps(config).encode()).settings == attrs.evolve(PLAIN, **read)


WRONG = [None, "text", [], {}, True, -1, 1e300, "5"]


@pytest.mark.parametrize("key", ["type", "maxRetries", "concurrency", "visibilityTimeout", "delaySeconds", "backoffType",
                                 "backoffDelayMs", "messageGroupField", "maxLostDeliveries"])  # fmt: skip
def test_what_is_of_a_wrong_type_is_left_out_and_nothing_else(key: str) -> None:
    others = {"concurrency": 7} if key != "concurrency" else {"delaySeconds": 7}
    right = read_subscriber(json.dumps({"topic": "t", "queue_config": others}).encode())
    for wrong in WRONG:
        if key == "messageGroupField" and isinstance(wrong, str):
            continue  # any text names a field
        config = {"topic": "t", "condition_function_id": 7, "queue_config": {**others, key: wrong}}
        assert read_subscriber(json.dumps(config).encode()) == right, wrong


def test_a_topic_may_be_called_a_queue() -> None:
    assert read_subscriber(b'{"queue":"t"}').topic == "t"
    assert read_subscriber(b'{"queue":"t","topic":"u"}').topic == "u"
    assert read_subscriber(b'{"topic":"t","queue_config":7}').settings == PLAIN
