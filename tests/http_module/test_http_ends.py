"""When requests, handlers and connections end: promises H3, H6 and H16 of docs/http.md."""

from __future__ import annotations

import h11
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.triggers.http import HttpConfig, Middleware

from .http_world import http_world


async def test_H6_a_middleware_that_is_late_has_a_code_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    config = HttpConfig(default_timeout=2000, middleware=(Middleware("gate"),))
    async with http_world(config) as world:

        @world.worker.function("gate")
        async def gate() -> None:
            await trio.sleep_forever()

        @world.worker.function("never")
        async def never() -> None:
            raise AssertionError("the middleware did not let it pass")

        await world.route("never", "/never")
        reply = await world.connect().request("GET", "/never")
        assert reply.status == 504 and b'"code":"MIDDLEWARE_TIMEOUT"' in reply.body and b"gate" in reply.body


async def test_H6_a_handler_that_returns_null_and_never_answers_gets_504(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:
        kept: list[iii_trio.ChannelWriter] = []

        @world.worker.function("silent")
        async def silent(response: iii_trio.ChannelWriter) -> None:
            kept.append(response.detach())

        await world.route("silent", "/silent")
        began = trio.current_time()
        reply = await world.connect().request("GET", "/silent")
        assert (reply.status, reply.whole) == (504, True) and trio.current_time() - began == pytest.approx(2)


async def test_H6_a_long_upload_is_not_late_while_it_moves(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:

        @world.worker.function("upload")
        async def upload(request_body: iii_trio.ChannelReader) -> dict[str, int]:
            return {"body": len(await request_body.read_all())}

        await world.route("upload", "/upload", "POST")
        client = world.connect()
        await client.send(b"POST /upload HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await trio.sleep(1.5)
            await client.send(b"x")
        client._h11.send(h11.Request(method="POST", target="/upload", headers=[("Host", "here")]))
        reply = await client.reply()
        assert (reply.status, reply.body) == (200, b"10")


async def test_H6_a_json_body_that_comes_too_slowly_is_the_clients_fault(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:

        @world.worker.function("json")
        async def never() -> None:
            raise AssertionError("its body did not come")

        await world.route("json", "/json", "POST")
        client = world.connect()
        await client.send(
            b"POST /json HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        client._h11.send(h11.Request(method="POST", target="/json", headers=[("Host", "here")]))
        reply = await client.reply()
        assert reply.status == 408 and reply.headers["connection"] == "close"


async def test_H3_a_handler_goes_on_behind_its_response(autojump_clock: trio.testing.MockClock) -> None:
    """Also when the client has left with the complete response."""
    async with http_world() as world:
        taken: list[bytes] = []
        ended = trio.Event()

        @world.worker.function("early")
        async def early(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
            await response.send('{"type": "set_status", "status_code": 202}')
            await response.aclose()
            await trio.sleep(3)
            taken.append(await request_body.read_all())
            ended.set()

        await world.route("early", "/early", "POST")
        client = world.connect()
        reply = await client.request("POST", "/early", b"the upload")
        assert (reply.status, reply.whole) == (202, True)
        await client.stream.aclose()
        with trio.fail_after(10):
            await ended.wait()
            await trio.testing.wait_all_tasks_blocked()
        assert taken == [b"the upload"]
        (counters,) = world.server.counters.values()
        assert (counters.in_flight, counters.abandoned) == (0, 0)


async def test_H6_a_handler_that_does_not_end_behind_its_response_is_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:
        cancelled = trio.Event()

        @world.worker.function("endless")
        async def endless(response: iii_trio.ChannelWriter) -> None:
            await response.send(b"whole")
            await response.aclose()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        await world.route("endless", "/endless")
        client = world.connect()
        began = trio.current_time()
        assert (await client.request("GET", "/endless")).whole
        assert (await client.request("GET", "/endless")).whole  # the connection serves the next one then
        assert cancelled.is_set() and trio.current_time() - began == pytest.approx(2)


async def test_H16_a_server_that_drains_ends_idle_connections_and_finishes_requests(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world() as world:
        gate = trio.Event()

        @world.worker.function("slow")
        async def slow() -> dict[str, str]:
            await gate.wait()
            return {"body": "done"}

        await world.route("slow", "/slow")
        idle, busy = world.connect(), world.connect()
        await busy.begin("GET", "/slow")
        await trio.testing.wait_all_tasks_blocked()
        world.server.drain()
        assert await idle.stream.receive_some(1) == b""
        gate.set()
        reply = await busy.reply()
        assert (reply.body, reply.headers["connection"], reply.whole) == (b'"done"', "close", True)
        await world.server.wait_idle()
        assert await busy.stream.receive_some(1) == b""
        assert world.server.connections == 0
