"""Faults that were found on worker listeners, tried on the HTTP listener: one request ends at most its sender's work."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.http import HttpResponse, HttpResult
from iii_trio.triggers.http import HttpConfig, HttpLimits, open_http_server
from iii_trio.triggers.http.request import check_body

from .http_world import Client, HttpWorld, http_world

Clock = trio.testing.MockClock
JSON = {"Content_Type": "application/json"}


async def _offer(world: HttpWorld) -> None:
    """Serve `/echo`, which returns the body that it was given, and its error."""

    @world.worker.function("echo")
    async def echo(request: dict[str, Any]) -> dict[str, Any]:
        body = {"body": request["body"], "body_error": request.get("body_error")}
        return {"status_code": 200, "body": body}

    await world.route("echo", "/echo", "POST")


BODIES = {
    "a number out of range": b'{"n":1e999}',
    "an integer of 5,000 digits": b"[" + b"9" * 5000 + b"]",
    "a lone surrogate": b'["\\ud800"]',
    "no UTF-8": b'["\xff"]',
    "many brackets": b"[" * 200_000,
    "many quotes": b'"' * 1_000_000,
    "a truncated text": b'{"a": "b',
    "NaN": b"[NaN]",
    "a byte order mark": b"\xef\xbb\xbf[1]",
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_json_body_that_cannot_be_read_is_a_body_error_and_nothing_else(name: str) -> None:
    async with http_world() as world:
        await _offer(world)
        client = world.connect()
        reply = await client.request("POST", "/echo", BODIES[name], **JSON)
        assert reply.status == 200 and b'"body":null' in reply.body and b'"body_error":null' not in reply.body
        # The connection and the engine go on.
        assert (await client.request("POST", "/echo", b"[1]", **JSON)).body == b'{"body":[1],"body_error":null}'


PADDING = b'"' + b"x" * 300_000 + b'",'
LARGE_BODIES = {
    "a lone surrogate": b'["\\ud800",' + PADDING + b"1]",
    "no UTF-8": b'["\xff",' + PADDING + b"1]",
    "a truncated list": b"[" + PADDING + b"1",
    "NaN": b"[" + PADDING + b"NaN]",
    "many brackets": b"[" * 511 + PADDING[:-1] + b"]" * 511,
}


@pytest.mark.parametrize("name", LARGE_BODIES)
async def test_a_large_json_body_that_cannot_be_read_is_a_body_error_too(name: str) -> None:
    async with http_world() as world:
        await _offer(world)
        client = world.connect()
        reply = await client.request("POST", "/echo", LARGE_BODIES[name], **JSON)
        assert reply.status == 200 and b'"body":null' in reply.body and b'"body_error":null' not in reply.body
        reply = await client.request("POST", "/echo", b"[" + PADDING + '"é"]'.encode(), **JSON)
        assert reply.body == b'{"body":[' + PADDING + '"é"],"body_error":null}'.encode()


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
async def test_a_number_out_of_range_in_a_large_body_is_an_error_of_its_request_only(number: bytes) -> None:
    """The numbers of payloads that are only passed on are not looked at (decision 0014)."""
    async with http_world() as world:
        await _offer(world)
        client = world.connect()
        reply = await client.request("POST", "/echo", b"[" + PADDING + number + b"]", **JSON)
        assert reply.status == 500 and reply.whole and b"deserialization_error" in reply.body
        assert (await client.request("POST", "/echo", b"[1]", **JSON)).body == b'{"body":[1],"body_error":null}'


def test_a_json_body_is_passed_on_as_it_came() -> None:
    """To make values of it and JSON again would stop the engine for seconds."""
    for body in (b'{"a" : 1.10}', b"[" + PADDING + b" 1 ]"):
        passed, error = check_body(body)
        assert passed is not None and bytes(passed) == body and error is None


async def test_a_body_cannot_name_its_caller_or_a_channel_of_another() -> None:
    """A JSON body is data, also where it looks like what the engine adds (fault B13)."""
    async with http_world() as world:
        given: list[Any] = []

        @world.worker.function("look")
        async def look(request: dict[str, Any]) -> dict[str, Any]:
            given.append((request["body"], iii_trio.current_call().caller))
            return {"status_code": 204}

        await world.route("look", "/look", "POST")
        body = b'{"_caller_worker_id":"forged","n":1}'
        assert (await world.connect().request("POST", "/look", body, **JSON)).status == 204
        assert given[0][0] == {"_caller_worker_id": "forged", "n": 1} and given[0][1] != "forged"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-evil": "a\r\nset-cookie: b"},
        {"x-evil\r\nset-cookie": "b"},
        {"x-evil": "a\x00b"},
        {"": "b"},
        {"content-length": "3"},
        {"transfer-encoding": "chunked"},
        {"connection": "upgrade"},
    ],
)
async def test_a_handler_cannot_break_the_head_of_its_response(headers: dict[str, str]) -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/result")
        async def result() -> HttpResult:
            return HttpResult(200, headers, "body")

        @world.worker.http("GET", "/stream")
        async def stream(response: HttpResponse) -> None:
            await response.start(200, headers)
            await response.send(b"body")

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        for path in ("/result", "/stream"):
            client = world.connect()
            reply = await client.request("GET", path)
            assert reply.status == 200 and "set-cookie" not in reply.headers
            if "content-length" not in headers:
                assert reply.whole and reply.body == b"body"
                assert (await client.request("GET", path)).status == 200


@pytest.mark.parametrize(
    "error", [ValueError("bad\udcff"), SystemExit(3), KeyError(), ValueError("two\nlines \x1b[31m")], ids=repr
)
async def test_any_exception_of_a_handler_is_one_answer(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/fail")
        async def fail() -> None:
            raise error

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        caplog.set_level(logging.WARNING, "iii_trio.http")
        client = world.connect()
        for _ in range(2):
            reply = await client.request("GET", "/fail")
            assert reply.status == 500 and reply.whole
            reply.body.decode()
        # A line of the log is one line, and commands nothing of a terminal (fault B11).
        for message in caplog.messages:
            assert "\n" not in message and "\x1b" not in message


async def test_H10_the_json_bodies_of_all_clients_together_are_bounded(autojump_clock: Clock) -> None:
    limits = HttpLimits(json_bytes=1000, json_total_bytes=1500)
    async with http_world(HttpConfig(limits=limits)) as world:
        await _offer(world)
        body = b'"' + b"a" * 898 + b'"'
        head = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n"
        first, second = world.connect(), world.connect()
        await first.send(head + body[:800])
        await trio.testing.wait_all_tasks_blocked()
        await second.send(head + body)
        reply = await _reply(second)
        assert reply.startswith(b"HTTP/1.1 503") and b"TOO_MANY_BODIES" in reply and b"retry-after: 1" in reply
        # The other client's body was not harmed, and what it took is free again.
        await first.send(body[800:])
        assert (await _reply(first)).startswith(b"HTTP/1.1 200")
        assert (await world.connect().request("POST", "/echo", body, **JSON)).status == 200
        await trio.testing.wait_all_tasks_blocked()
        assert world.server.shared.kept.total == 0


async def _reply(client: Client) -> bytes:
    with trio.fail_after(5):
        got = b""
        while b"}" not in got:
            got += bytes(await client.stream.receive_some(10_000))
    return got


async def test_a_route_with_control_characters_cannot_command_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    async with http_world() as world:

        @world.worker.function("odd")
        async def odd() -> dict[str, int]:
            raise iii_trio.CallError("bad\x1b[2J", "worse\r\n\x1b]52;c;AAAA\x07")

        await world.route("odd", "/a\x1b[31m\nb")
        assert (await world.connect().request("GET", "/a%1B[31m%0Ab")).status in (404, 500)
        await world.route("odd", "/b")
        assert (await world.connect().request("GET", "/b")).status == 500
        world.worker.register_trigger("http", "odd", config={"api_path": "/b", "http_method": "GET"})
        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
    assert len(caplog.messages) >= 2
    assert all(message.isprintable() for message in caplog.messages), caplog.messages


async def test_a_request_for_which_there_are_no_channels_is_503_and_leaves_none() -> None:
    config = iii_trio.EngineConfig(limits=iii_trio.Limits(channels=1))
    async with (
        iii_trio.open_engine(config) as engine,
        open_http_server(engine.address) as server,
        engine.open_worker("app") as worker,
        trio.open_nursery() as nursery,
    ):
        world = HttpWorld(engine, worker, server, nursery)
        await _offer(world)
        client = world.connect()
        for _ in range(2):
            reply = await client.request("POST", "/echo", b"[1]", **JSON)
            assert reply.status == 503 and b"channel_limit_reached" in reply.body
            assert engine.statistics().channels == 0
        nursery.cancel_scope.cancel()
