"""Jobs and requests in traces: promises O5 and O6 of docs/observability.md."""

from __future__ import annotations

import functools
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11
import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.http import HttpConfig
from iii_trio.triggers.queue import MemoryStore
from tests.http_module.http_world import Client

from .observed import PARENT, SAMPLED, TRACE, UNSAMPLED, VIRTUAL, names, observed, open_observed, spans, tree, walk

MAIL = QueueConfig(queues={"mail": QueueSettings(max_attempts=3, backoff_seconds=5)})


def about(row: dict[str, Any]) -> dict[str, str]:
    return dict(map(tuple, row["attributes"]))


async def test_O5_a_job_is_one_trace_from_the_call_that_sent_it_to_its_last_attempt(
    autojump_clock: MockClock,
) -> None:
    async with open_observed(queue=MAIL) as (_, app):
        seen = []

        @app.function("mail::send")
        async def send(to: str) -> None:
            seen.append(iii_trio.current_call().traceparent)
            if len(seen) < 3:
                raise iii_trio.CallError("smtp_down", f"{to} is not told")

        receipt = await app.trigger("mail::send", {"to": "ada"}, action=iii_trio.enqueue("mail"), traceparent=SAMPLED)
        await receipt.wait()
        (root,) = await tree(app)
        assert root["name"] == "enqueue mail::send → mail" and root["parent_span_id"] == PARENT
        assert about(root)["iii.job.id"] == receipt.id
        assert names(root["children"]) == [["fn_queue mail", ["call mail::send"]]] * 3
        attempts = root["children"]
        assert [about(row)["attempt"] for row in attempts] == ["1", "2", "3"]
        assert [about(row)["iii.job.outcome"] for row in attempts] == ["failed", "failed", "succeeded"]
        assert [row["status"] for row in attempts] == ["error", "error", "ok"]
        assert [about(row).get("error.type") for row in attempts] == ["smtp_down", "smtp_down", None]
        assert {about(row)["iii.job.id"] for row in attempts} == {receipt.id}
        calls = [row["children"][0]["span_id"] for row in attempts]
        assert seen == [f"00-{TRACE}-{span_id}-01" for span_id in calls]
        # The pauses between the attempts are visible, and belong to none of them.
        starts = [row["start_time_unix_nano"] for row in attempts]
        assert all(later - earlier >= 5e9 for earlier, later in itertools.pairwise(starts))
        assert all(row["end_time_unix_nano"] - row["start_time_unix_nano"] < 1e9 for row in attempts)


async def test_O5_a_job_without_a_trace_begins_one_where_it_is_sent(autojump_clock: MockClock) -> None:
    async with open_observed(queue=MAIL) as (_, app):

        @app.function("mail::send")
        async def send() -> None: ...

        await (await app.trigger("mail::send", action=iii_trio.enqueue("mail"))).wait()
        found = await spans(app)
        assert len({span["trace_id"] for span in found}) == 1
        found = await tree(app, found[0]["trace_id"])
        assert names(found) == [["enqueue mail::send → mail", ["fn_queue mail", ["call mail::send"]]]]


async def test_O5_a_job_of_a_trace_that_is_not_recorded_is_not_either(autojump_clock: MockClock) -> None:
    async with open_observed(queue=MAIL) as (_, app):

        @app.function("mail::send")
        async def send() -> str | None:
            return iii_trio.current_call().traceparent

        receipt = await app.trigger("mail::send", action=iii_trio.enqueue("mail"), traceparent=UNSAMPLED)
        await receipt.wait()
        assert await spans(app) == []


async def test_O5_an_attempt_that_is_stopped_is_a_span_without_a_fault(autojump_clock: MockClock) -> None:
    async with open_observed(queue=MAIL) as (_, app):
        began = trio.Event()

        @app.function("mail::send")
        async def send() -> None:
            began.set()
            await trio.sleep_forever()

        receipt = await app.trigger("mail::send", action=iii_trio.enqueue("mail"), traceparent=SAMPLED)
        await began.wait()
        await app.trigger("engine::queue::cancel", {"id": receipt.id})
        await trio.testing.wait_all_tasks_blocked()
        (root,) = await tree(app)
        assert names([root]) == [["enqueue mail::send → mail", ["fn_queue mail", ["call mail::send"]]]]
        (attempt,) = root["children"]
        assert about(attempt)["iii.job.outcome"] == "stopped" and attempt["status"] == "unset"


async def test_O5_a_topic_carries_the_trace_of_its_publisher_to_each_subscriber(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), engine.open_worker("audit") as audit:
        told = trio.Event()

        @audit.function("audit::note")
        async def note() -> None:
            told.set()

        audit.register_trigger("durable:subscriber", "audit::note", config={"topic": "orders"})
        await audit.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        await app.trigger("iii::durable::publish", {"topic": "orders", "data": {"id": 1}}, traceparent=SAMPLED)
        await told.wait()
        await trio.testing.wait_all_tasks_blocked()
        (root,) = await tree(app)
        assert names([root]) == [["call iii::durable::publish", ["queue orders", ["call audit::note"]]]]


async def test_O5_the_trace_of_a_job_goes_on_after_a_restart_of_the_engine(autojump_clock: MockClock) -> None:
    engine_of = functools.partial(iii_trio.open_engine, environment=VIRTUAL)
    store = MemoryStore()
    config = iii_trio.EngineConfig(modules={"observability": observed(), "queue": MAIL})
    async with engine_of(config, stores={"queue": store}) as engine, engine.open_worker("app") as app:
        receipt = await app.trigger("mail::send", action=iii_trio.enqueue("mail"), traceparent=SAMPLED)
        (first,) = await spans(app, name="enqueue")
    async with engine_of(config, stores={"queue": store}) as engine, engine.open_worker("app") as app:

        @app.function("mail::send")
        async def send() -> None: ...

        await trio.sleep(60)
        (attempt,) = await tree(app)
        assert names([attempt]) == [["fn_queue mail", ["call mail::send"]]]
        assert attempt["parent_span_id"] == first["span_id"]
        assert about(attempt)["iii.job.id"] == receipt.id


# --- HTTP


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[iii_trio.Worker, Client]]:
    """An engine that serves HTTP, its worker, and a client."""
    async with open_observed(http=HttpConfig(port=0)) as (engine, app), trio.open_nursery() as nursery:
        theirs, ours = trio.testing.memory_stream_pair()
        server = engine.modules["http"].server  # type: ignore[attr-defined]
        nursery.start_soon(server.serve, theirs)
        yield app, Client(ours)
        await ours.aclose()
        nursery.cancel_scope.cancel()


async def _route(app: iii_trio.Worker, function: str, path: str, method: str = "GET") -> None:
    app.register_trigger("http", function, config={"api_path": path, "http_method": method})
    await app.wait_registered()
    await trio.testing.wait_all_tasks_blocked()


async def test_O6_a_request_is_a_span_with_its_channels_and_its_handler_below(autojump_clock: MockClock) -> None:
    async with serving() as (app, client):

        @app.function("shop::order")
        async def order() -> dict[str, Any]:
            return {"status_code": 201, "body": {"given": iii_trio.current_call().traceparent}}

        await _route(app, "shop::order", "/orders/:id", "POST")
        reply = await client.request("POST", "/orders/7?token=hunter2", b"{}", traceparent=SAMPLED)
        assert reply.status == 201
        await trio.testing.wait_all_tasks_blocked()
        (root,) = await tree(app)
        assert root["name"] == "POST /orders/:id" and root["parent_span_id"] == PARENT and root["status"] == "ok"
        assert about(root) == {
            "http.request.method": "POST", "http.route": "/orders/:id", "function_id": "shop::order",
            "http.request.body.size": "2", "http.response.status_code": "201",
        }  # fmt: skip
        below = sorted(row["name"] for row in root["children"])
        assert below == ["call engine::channels::create"] * 2 + ["call shop::order"] + ["channel"] * 2
        assert "hunter2" not in str(root)


async def test_O6_a_request_without_a_trace_begins_one(autojump_clock: MockClock) -> None:
    async with serving() as (app, client):

        @app.function("shop::order")
        async def order() -> dict[str, Any]:
            return {"body": {"given": iii_trio.current_call().traceparent}}

        await _route(app, "shop::order", "/orders")
        assert (await client.request("GET", "/orders")).status == 200
        await trio.testing.wait_all_tasks_blocked()
        (root,) = await spans(app, search_all_spans=False)
        assert root["name"] == "GET /orders"
        rows = list(walk(await tree(app, root["trace_id"])))
        assert "call shop::order" in [row["name"] for row in rows]


@pytest.mark.parametrize(
    ("ending", "code"), [("fails", "500"), ("client leaves", "client_left"), ("is cut", "truncated")]
)
async def test_O6_a_request_that_fails_has_the_status_of_an_error(
    ending: str, code: str, autojump_clock: MockClock
) -> None:
    async with serving() as (app, client):
        seen = trio.Event()

        @app.function("shop::stream")
        async def stream(response: iii_trio.ChannelWriter) -> None:
            if ending == "fails":
                raise ValueError("the text of the handler")
            await response.send(b"half")
            if ending == "is cut":
                await seen.wait()
                response.abort("no more")
                return
            await trio.sleep_forever()

        await _route(app, "shop::stream", "/stream")
        await client.begin("GET", "/stream", traceparent=SAMPLED)
        if ending == "fails":
            await client.reply()
        else:
            while not isinstance(await client.event(), h11.Response):
                pass
            await trio.testing.wait_all_tasks_blocked()
            seen.set()
            if ending == "client leaves":
                await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        (root,) = await tree(app)
        assert root["status"] == "error" and root["status_description"] == code
        assert "the text of the handler" not in str(root)
