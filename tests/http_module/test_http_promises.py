"""The promises of the HTTP module (docs/http.md), in memory and virtual time, by raw clients."""

from __future__ import annotations

import json
import logging
from typing import Any

import h11
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.http import HttpRequest, HttpResponse
from iii_trio.triggers.http import HttpConfig, HttpLimits, Middleware

from .http_world import http_world


async def test_H1_a_response_whose_writer_aborts_is_cut_without_its_last_chunk() -> None:
    async with http_world() as world:
        seen = trio.Event()

        @world.worker.function("download")
        async def download(response: iii_trio.ChannelWriter) -> None:
            await response.send(b"half of it")
            await seen.wait()
            raise iii_trio.CallError("disk", "the disk broke")

        await world.route("download", "/download")
        client = world.connect()
        await client.begin("GET", "/download")
        assert (await client.event()).status_code == 200
        assert bytes((await client.event()).data) == b"half of it"
        seen.set()
        with trio.fail_after(1):
            assert not (await client.reply()).whole
        (counters,) = world.server.counters.values()
        assert counters.truncated == 1


async def test_H1_a_response_whose_worker_leaves_is_cut_without_its_last_chunk() -> None:
    async with http_world() as world:
        client = world.connect()
        async with world.engine.open_worker("leaving") as leaving:

            @leaving.function("download")
            async def download(response: iii_trio.ChannelWriter) -> None:
                await response.send(b"half of it")
                await trio.sleep_forever()

            leaving.register_trigger("http", "download", config={"api_path": "/download"})
            await leaving.wait_registered()
            await trio.testing.wait_all_tasks_blocked()
            await client.begin("GET", "/download")
            assert (await client.event()).status_code == 200
        with trio.fail_after(1):
            assert not (await client.reply()).whole


@pytest.mark.parametrize("body", [b"", b"too short", b"much longer than what was declared"])
async def test_H1_a_body_that_does_not_fit_its_content_length_is_cut(body: bytes) -> None:
    async with http_world() as world:

        @world.worker.function("counted")
        async def counted(response: iii_trio.ChannelWriter) -> None:
            await response.send('{"type": "set_headers", "headers": {"Content-Length": "20"}}')
            await response.send(body)

        await world.route("counted", "/counted")
        reply = await world.connect().request("GET", "/counted")
        assert reply.headers["content-length"] == "20" and not reply.whole


async def test_H1_a_whole_response_has_its_last_chunk() -> None:
    async with http_world() as world:

        @world.worker.function("download")
        async def download(response: iii_trio.ChannelWriter) -> None:
            for _ in range(10):
                await response.send(bytes(100_000))

        await world.route("download", "/download")
        reply = await world.connect().request("GET", "/download")
        assert reply.whole and len(reply.body) == 1_000_000


async def test_H2_the_status_and_the_headers_come_from_control_messages() -> None:
    async with http_world() as world:

        @world.worker.function("made")
        async def made(response: iii_trio.ChannelWriter) -> None:
            for text in (
                '{"type": "set_status", "status_code": 207}',
                '{"type": "set_headers", "headers": {"X-A": "1", "x-b": "2", "bad name": "3", "x-c": 4}}',
                '{"type": "set_headers", "headers": {"x-a": "5", "Connection": "keep-alive"}}',
                "not JSON",
            ):
                await response.send(text)
            await response.send(b"body")

        await world.route("made", "/made")
        reply = await world.connect().request("GET", "/made")
        assert (reply.status, reply.body) == (207, b"body")
        assert reply.headers["x-a"] == "5" and reply.headers["x-b"] == "2" and "x-c" not in reply.headers
        assert "connection" not in reply.headers


@pytest.mark.parametrize(
    ("result", "status", "content_type", "body"),
    [
        ({"status_code": 201, "body": {"ok": True}}, 201, "application/json", b'{"ok":true}'),
        ({"statusCode": 404, "body": "x"}, 404, "application/json", b'"x"'),
        ({"headers": {"Content-Type": "text/xml"}, "body": "<a/>"}, 200, "text/xml", b"<a/>"),
        ({"headers": ["Content-Type: text/plain", "X-A: 1"], "body": 7}, 200, "text/plain", b"7"),
        ({"headers": {"content-type": "text/plain"}, "body": None}, 200, "text/plain", b""),
        ({"status_code": 99, "body": None}, 200, "application/json", b"null"),
        ({"status_code": True}, 200, "application/json", b"{}"),
        (["a", "list"], 200, "application/json", b"{}"),
        ({"status_code": 204, "body": "x"}, 204, "application/json", b""),
        ({"status_code": 205, "body": "x"}, 205, "application/json", b""),
    ],
)
async def test_H2_a_result_is_a_whole_response(result: Any, status: int, content_type: str, body: bytes) -> None:
    async with http_world() as world:

        @world.worker.function("result")
        async def give() -> Any:
            return result

        await world.route("result", "/result")
        client = world.connect()
        for _ in range(2):
            reply = await client.request("GET", "/result")
            assert (reply.status, reply.headers["content-type"], reply.body) == (status, content_type, body)
            assert reply.headers.get("content-length") == (str(len(body)) if status != 204 else None)


async def test_H3_a_client_that_leaves_cancels_its_handler_and_frees_both_channels() -> None:
    async with http_world() as world:
        cancelled = trio.Event()

        @world.worker.function("endless")
        async def endless(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
            try:
                await response.send(b"begun")
                await trio.sleep_forever()
            finally:
                cancelled.set()

        await world.route("endless", "/endless")
        client = world.connect()
        await client.begin("GET", "/endless")
        assert (await client.event()).status_code == 200
        await client.stream.aclose()
        with trio.fail_after(1):
            await cancelled.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert world.engine.statistics().channels == 0 and world.server.connections == 0
        (counters,) = world.server.counters.values()
        assert counters.abandoned == 1 and counters.in_flight == 0


async def test_H3_a_client_that_leaves_during_its_upload_is_an_abort_for_the_handler() -> None:
    async with http_world() as world:
        seen: list[str] = []

        @world.worker.function("upload")
        async def upload(request_body: iii_trio.ChannelReader) -> None:
            try:
                await request_body.read_all()
            except iii_trio.ChannelBroken as error:
                seen.append(error.outcome)
                raise
            except trio.Cancelled:
                seen.append("cancelled")
                raise

        await world.route("upload", "/upload", "POST")
        client = world.connect()
        await client.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert seen in (["aborted"], ["cancelled"]) and world.engine.statistics().channels == 0


async def test_H4_a_client_that_does_not_read_makes_the_handler_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:
        sent = 0

        @world.worker.function("flood")
        async def flood(response: iii_trio.ChannelWriter) -> None:
            nonlocal sent
            for _ in range(100):
                await response.send(bytes(65_536))
                sent += 65_536

        await world.route("flood", "/flood")
        client = world.connect(max_buffer=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.begin, "GET", "/flood")
            await trio.testing.wait_all_tasks_blocked()
            assert 0 < sent < 3 * 1024 * 1024
            with trio.fail_after(50):
                reply = await client.reply()
            assert reply.whole and len(reply.body) == 6_553_600


async def test_H4_a_handler_that_does_not_read_makes_the_client_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:

        @world.worker.function("slow")
        async def slow(request_body: iii_trio.ChannelReader) -> dict[str, Any]:
            await trio.sleep(5)
            return {"body": len(await request_body.read_all())}

        await world.route("slow", "/slow", "POST")
        client = world.connect(max_buffer=0)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            await client.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n")
            for _ in range(160):
                await client.send(bytes(65_536))
                sent += 65_536

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await trio.sleep(1)
            assert sent < 3 * 1024 * 1024
            client._h11.send(h11.Request(method="POST", target="/slow", headers=[("Host", "a")]))
            reply = await client.reply()
        assert reply.body == b"10485760"


async def test_H5_events_leave_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:

        @world.worker.function("events")
        async def events(response: iii_trio.ChannelWriter) -> None:
            await response.send('{"type":"set_headers","headers":{"content-type":"text/event-stream"}}')
            for number in range(4):
                await response.send(b"data: %d\n\n" % number)
                await trio.sleep(1)

        await world.route("events", "/events")
        client = world.connect()
        await client.begin("GET", "/events")
        began = trio.current_time()
        assert (await client.event()).status_code == 200
        for number in range(4):
            assert bytes((await client.event()).data) == b"data: %d\n\n" % number
            assert trio.current_time() - began == pytest.approx(number)


async def test_H6_a_handler_that_is_late_is_cancelled_and_answered_with_504(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:
        cancelled = trio.Event()

        @world.worker.function("late")
        async def late() -> None:
            try:
                await trio.sleep(100)
            finally:
                cancelled.set()

        await world.route("late", "/late")
        began = trio.current_time()
        reply = await world.connect().request("GET", "/late")
        assert reply.status == 504 and b'"code":"TIMEOUT"' in reply.body
        assert trio.current_time() - began == pytest.approx(2)
        assert cancelled.is_set() and reply.headers["access-control-allow-origin"] == "*"


async def test_H6_a_stream_that_has_begun_has_no_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:

        @world.worker.function("long")
        async def long(response: iii_trio.ChannelWriter) -> None:
            await response.send(b"a")
            await trio.sleep(100)
            await response.send(b"b")

        await world.route("long", "/long")
        reply = await world.connect().request("GET", "/long")
        assert reply.whole and reply.body == b"ab"


async def test_H7_repeated_query_keys_and_headers_lose_nothing() -> None:
    async with http_world() as world:

        @world.worker.function("echo")
        async def echo(query_params: dict[str, Any], headers: dict[str, Any], path_params: dict[str, Any]) -> Any:
            return {"body": [query_params, headers, path_params]}

        await world.route("echo", "/echo/:name/*rest")
        client = world.connect()
        await client.send(
            b"GET /echo/a%2Fb%20c/d/e%3F?q=1&q=2&r=%C3%A9+x&s= HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\n"
            b"Cookie: a=1\r\nCookie: b=2\r\n\r\n"
        )
        client._h11.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client._h11.send(h11.EndOfMessage())

        query, headers, path = json.loads((await client.reply()).body)
        assert query == {"q": ["1", "2"], "r": "é x", "s": ""}
        assert headers["x-a"] == "1, 2" and headers["cookie"] == "a=1; b=2"
        assert path == {"name": "a/b c", "rest": "d/e?"}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /up HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"POST /up HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
        (b"GET  /up HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # a TLS client
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    ],
)
async def test_H8_a_request_that_could_be_smuggled_or_read_in_two_ways_is_refused(raw: bytes, status: int) -> None:
    async with http_world() as world:

        @world.worker.function("up")
        async def up() -> None:
            raise AssertionError("reached")

        await world.route("up", "/up", "POST")
        client = world.connect()
        await client.send(raw)
        client._h11.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client._h11.send(h11.EndOfMessage())
        reply = await client.reply()
        assert reply.status == status and reply.headers["connection"] == "close"


async def test_H9_an_error_before_the_head_has_an_envelope_and_the_connection_goes_on() -> None:
    async with http_world() as world:

        @world.worker.function("fails")
        async def fails() -> None:
            raise iii_trio.CallError("no_stock", "There is none left.")

        await world.route("fails", "/fails")
        client = world.connect()
        for _ in range(2):
            reply = await client.request("GET", "/fails")
            assert reply.status == 500 and b'"code":"no_stock"' in reply.body and b"There is none left." in reply.body
        assert (await client.request("GET", "/nowhere")).status == 404
        reply = await client.request("DELETE", "/fails")
        assert reply.status == 405 and reply.headers["allow"] == "GET, HEAD"


async def test_H10_a_json_body_is_bounded_and_given_parsed_and_raw() -> None:
    async with http_world(HttpConfig(limits=HttpLimits(json_bytes=1000))) as world:

        @world.worker.function("json")
        async def give(
            body: Any, request_body: iii_trio.ChannelReader, body_error: str | None = None
        ) -> dict[str, Any]:
            raw = await request_body.read_all()
            return {"body": [body, raw.decode(), body_error is not None]}

        await world.route("json", "/json", "POST")
        client = world.connect()
        for content_type in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"):
            reply = await client.request("POST", "/json", b'{"a": 1}', Content_Type=content_type)
            assert reply.body == b'[{"a":1},"{\\"a\\": 1}",false]'
        reply = await client.request("POST", "/json", b"{bad", Content_Type="application/json")
        assert reply.body == b'[null,"{bad",true]'
        reply = await client.request("POST", "/json", b"[1]", Content_Type="text/plain")
        assert reply.body == b'[null,"[1]",false]'
        reply = await client.request("POST", "/json", b"[" + b"1," * 1000 + b"1]", Content_Type="application/json")
        assert reply.status == 413 and b"1000 bytes" in reply.body


async def test_H10_requests_beyond_the_limit_wait_and_are_then_refused(autojump_clock: trio.testing.MockClock) -> None:
    config = HttpConfig(concurrency_request_limit=1, limits=HttpLimits(wait_seconds=3))
    async with http_world(config) as world:

        @world.worker.function("slow")
        async def slow(query_params: dict[str, str]) -> dict[str, Any] | None:
            await trio.sleep(float(query_params["s"]))
            return {}

        await world.route("slow", "/slow")
        statuses: list[tuple[int, float]] = []

        async def ask(seconds: float) -> None:
            reply = await world.connect().request("GET", f"/slow?s={seconds}")
            statuses.append((reply.status, trio.current_time() - began))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 2)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, 4)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, 1)
        assert [(status, round(at)) for status, at in statuses] == [(200, 2), (503, 3), (200, 6)]


async def test_H10_a_head_that_comes_too_slowly_is_answered_and_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world(HttpConfig(limits=HttpLimits(head_seconds=5))) as world:
        client = world.connect()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def dribble() -> None:
                try:
                    for letter in b"GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
                        await client.send(bytes([letter]))
                        await trio.sleep(1)
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(dribble)
            data = b""
            while more := await client.stream.receive_some():
                data += more
            assert data.startswith(b"HTTP/1.1 408 ") and trio.current_time() - began <= 8


async def test_H10_an_idle_connection_is_ended_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world(HttpConfig(limits=HttpLimits(idle_seconds=7))) as world:
        client = world.connect()
        assert (await client.request("GET", "/")).status == 404
        began = trio.current_time()
        assert await client.stream.receive_some() == b"" and trio.current_time() - began == pytest.approx(7)


async def test_H11_a_later_identical_route_replaces_an_earlier_one_and_its_end_does_not_bring_it_back() -> None:
    async with http_world() as world, world.engine.open_worker("other") as other:

        @world.worker.function("first")
        async def first() -> dict[str, Any]:
            return {"body": 1}

        @other.function("second")
        async def second() -> dict[str, Any]:
            return {"body": 2}

        await world.route("first", "/same")
        binding = other.register_trigger("http", "second", config={"api_path": "same"})
        await other.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        assert (await client.request("GET", "/same")).body == b"2"
        binding.unregister()
        await other.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert (await client.request("GET", "/same")).status == 404


async def test_H11_routes_that_differ_in_the_names_of_parameters_are_refused() -> None:
    async with http_world() as world:
        await world.route("f", "/a/:x")
        outcome: list[Any] = []
        binding = world.worker.register_trigger("http", "g", config={"api_path": "/a/:y"})
        await trio.testing.wait_all_tasks_blocked()
        outcome.append(binding)
        assert len(world.server.router) == 1


async def test_H12_pipelined_requests_are_answered_in_their_order(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:

        @world.worker.function("wait")
        async def wait(path_params: dict[str, str]) -> dict[str, Any]:
            await trio.sleep(float(path_params["s"]))
            return {"body": path_params["s"]}

        await world.route("wait", "/wait/:s")
        client = world.connect()
        for seconds in "3", "1", "2":
            await client.send(b"GET /wait/%b HTTP/1.1\r\nHost: a\r\n\r\n" % seconds.encode())
        data = b""
        while data.count(b"HTTP/1.1 200") < 3 or not data.endswith(b'"2"'):
            data += await client.stream.receive_some()
        assert data.index(b'"3"') < data.index(b'"1"') < data.index(b'"2"')


async def test_H13_middleware_and_conditions_decide_in_their_order() -> None:
    order: list[str] = []
    config = HttpConfig(middleware=(Middleware("late", 5), Middleware("early", -1)))
    async with http_world(config) as world:

        def passing(name: str) -> None:
            @world.worker.function(name)
            async def middleware(phase: str, request: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
                order.append(name)
                assert request["method"] == "GET" and request["path_params"] == {"id": "7"} and phase == "preHandler"
                return {"action": "continue"}

        for name in "early", "late", "own":
            passing(name)

        @world.worker.function("condition")
        async def condition(query_params: dict[str, str]) -> Any:
            order.append("condition")
            return query_params.get("open") != "no" and None

        @world.worker.function("deny")
        async def deny() -> dict[str, Any]:
            return {"action": "respond", "response": {"status_code": 403, "body": {"no": 1}, "headers": {"x-a": "b"}}}

        @world.worker.function("handler")
        async def handler() -> dict[str, Any]:
            order.append("handler")
            return {}

        await world.route("handler", "/m/:id", condition_function_id="condition", middleware_function_ids=["own"])
        await world.route("handler", "/d/:id", middleware_function_ids=["deny"])
        client = world.connect()
        assert (await client.request("GET", "/m/7")).status == 200
        assert order == ["early", "late", "condition", "own", "handler"]
        reply = await client.request("GET", "/m/7?open=no")
        assert reply.status == 422 and b'"skipped":true' in reply.body and b"CONDITION_NOT_MET" in reply.body
        order.clear()
        reply = await client.request("GET", "/d/7")
        assert (reply.status, reply.body, reply.headers["x-a"]) == (403, b'{"no":1}', "b") and "handler" not in order


async def test_H14_a_head_request_is_served_by_get_without_a_body() -> None:
    async with http_world() as world:

        @world.worker.function("page")
        async def page(method: str) -> dict[str, Any]:
            return {"headers": {"x-method": method}, "body": "x" * 100}

        await world.route("page", "/page")
        client = world.connect()
        reply = await client.request("HEAD", "/page")
        assert reply.status == 200 and reply.body == b"" and reply.headers["content-length"] == "102"
        assert (await client.request("GET", "/page")).status == 200  # the connection is still in order


async def test_H15_cors_is_permissive_by_default_and_follows_its_setting() -> None:
    async with http_world() as world:
        reply = await world.connect().request("GET", "/nowhere", Origin="https://a.example")
        assert reply.headers["access-control-allow-origin"] == "*"
        reply = await world.connect().request(
            "OPTIONS", "/x", Origin="https://a.example", Access_Control_Request_Method="PUT"
        )
        assert reply.status == 200 and reply.headers["access-control-allow-methods"] == "*"


async def test_a_100_continue_is_said_only_when_the_body_is_wanted() -> None:
    async with http_world() as world:

        @world.worker.function("up")
        async def up(request_body: iii_trio.ChannelReader) -> dict[str, Any]:
            return {"body": len(await request_body.read_all())}

        await world.route("up", "/up", "POST")
        client = world.connect()
        await client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await client.send(b"abc")
        answer = b""
        while not answer.endswith(b"3"):
            answer += await client.stream.receive_some()
        assert answer.startswith(b"HTTP/1.1 200 ")
        client = world.connect()
        await client.send(b"POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 404 ")


async def test_a_small_request_attaches_no_end_of_its_worker_and_leaves_no_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with http_world() as world:
        used: list[object] = []

        @world.worker.http("GET", "/small")
        async def small(request: HttpRequest, response: HttpResponse) -> str:
            used.extend((request.reader, response._writer))
            return "small"

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        caplog.set_level(logging.INFO)
        assert (await world.connect().request("GET", "/small")).body == b"small"
        await trio.testing.wait_all_tasks_blocked()
        assert world.engine.statistics().channels == 0 and caplog.messages == []
        assert [end._settled.is_set() for end in used] == [False, False]  # type: ignore[attr-defined]


async def test_many_requests_leave_nothing() -> None:
    async with http_world() as world:

        @world.worker.function("tiny")
        async def tiny() -> dict[str, Any]:
            return {}

        await world.route("tiny", "/tiny")
        client = world.connect()
        for _ in range(500):
            assert (await client.request("GET", "/tiny")).status == 200
        await trio.testing.wait_all_tasks_blocked()
        statistics = world.engine.statistics()
        assert (statistics.channels, statistics.calls) == (0, 0) and len(world.server.counters) == 1


@pytest.mark.parametrize(("levels", "readable"), [(510, True), (511, False), (600, False), (5000, False)])
async def test_a_body_that_is_nested_too_deeply_for_the_engine_is_a_body_error(levels: int, readable: bool) -> None:
    async with http_world() as world:

        @world.worker.function("post")
        async def post(body: Any, body_error: str | None = None) -> dict[str, Any]:
            return {"body": [body is not None, body_error]}

        await world.route("post", "/post", "POST")
        reply = await world.connect().request(
            "POST", "/post", b"[" * levels + b"]" * levels, content_type="application/json"
        )
        error = None if readable else "the body is nested too deeply: more than 510 levels"
        assert (reply.status, json.loads(reply.body)) == (200, [readable, error])
