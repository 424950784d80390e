"""When requests, handlers and connections end: promises H3, H6 and H16 of docs/http.md."""

from __future__ import annotations

import logging

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


@pytest.mark.parametrize("target", ["http://[", "http://[]/", "http://", "http:///x", "*", "http://h?q=1"])
async def test_a_target_of_any_form_is_answered(target: str, autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:
        reply = await world.connect().request("GET", target)
        assert (reply.status, reply.whole) == (404, True)


async def test_a_logging_handler_that_raises_ends_no_request(autojump_clock: trio.testing.MockClock) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("the disk is full")

    logger, handler = logging.getLogger("iii_trio.http"), Broken()
    logger.addHandler(handler)
    try:
        async with http_world() as world:

            @world.worker.function("fails")
            async def fails() -> None:
                raise ValueError("as it has to")

            await world.route("fails", "/fails")
            assert (await world.connect().request("GET", "/fails")).status == 500
    finally:
        logger.removeHandler(handler)


_HEAD_OF_FIVE = '{"type": "set_headers", "headers": {"content-length": "5"}}'


async def test_H3_a_client_that_ends_with_the_last_byte_of_a_counted_body_has_not_left() -> None:
    """The end of the handler's channel comes later than the last byte, and the client need not wait for it."""
    async with http_world() as world:
        client_is_gone, outcomes = trio.Event(), []

        @world.worker.function("counted")
        async def counted(response: iii_trio.ChannelWriter) -> None:
            await response.send(_HEAD_OF_FIVE)
            await response.send(b"whole")
            await client_is_gone.wait()
            await response.aclose()
            outcomes.append("done")

        await world.route("counted", "/counted")
        client = world.connect()
        reply = await client.request("GET", "/counted")
        assert (reply.body, reply.whole) == (b"whole", True)
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        client_is_gone.set()
        await trio.testing.wait_all_tasks_blocked()
        (counters,) = world.server.counters.values()
        assert (outcomes, counters.abandoned, counters.truncated, counters.in_flight) == (["done"], 0, 0, 0)
        assert world.engine.statistics().channels == 0 and world.server.connections == 0
        ended = (await world.worker.trigger("engine::channels::ended", {}))["channels"]
        assert [row["reason"] for row in ended if row["outcome"] == "reader_cancelled"] in ([], ["the request is over"])


@pytest.mark.parametrize("takes_all", [True, False], ids=["the last chunk", "half"])
async def test_H3_a_client_that_ends_with_the_last_chunk_has_not_left_and_one_that_ends_before_has(
    takes_all: bool,
) -> None:
    """The server's write returns only when the end of the client has been read."""
    async with http_world() as world:

        @world.worker.function("chunked")
        async def chunked(response: iii_trio.ChannelWriter) -> None:
            await response.send(b"whole")
            await response.aclose()

        await world.route("chunked", "/chunked")
        here, there = trio.testing.memory_stream_pair()
        sent, got = trio.testing.MemorySendStream(), bytearray()

        async def hold() -> None:
            got.extend(sent.get_data_nowait())
            is_last = got.endswith(b"\r\n0\r\n\r\n")
            if is_last or not takes_all:
                await here.aclose()
                await trio.testing.wait_all_tasks_blocked()
            if not is_last and not takes_all:
                raise trio.BrokenResourceError

        sent.send_all_hook = hold
        world.nursery.start_soon(world.server.serve, trio.StapledStream(sent, there.receive_stream))
        await here.send_all(b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        (counters,) = world.server.counters.values()
        assert (counters.requests, counters.in_flight, counters.abandoned) == (1, 0, 0 if takes_all else 1)


@pytest.mark.parametrize("sent", [b"who", b"whole"], ids=["early", "whole"])
async def test_H3_a_handler_behind_a_client_that_left_is_cancelled_at_once_or_when_it_is_late(
    sent: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with http_world(HttpConfig(default_timeout=2000)) as world:
        cancelled = trio.Event()

        @world.worker.function("endless")
        async def endless(response: iii_trio.ChannelWriter) -> None:
            try:
                await response.send(_HEAD_OF_FIVE)
                await response.send(sent)
                await trio.sleep_forever()
            finally:
                cancelled.set()

        await world.route("endless", "/endless")
        client = world.connect()
        await client.begin("GET", "/endless")
        assert (await client.event()).status_code == 200
        assert bytes((await client.event()).data) == sent
        await client.stream.aclose()
        left_at = trio.current_time()
        await cancelled.wait()
        is_whole = sent == b"whole"
        assert trio.current_time() - left_at == pytest.approx(2 if is_whole else 0)
        await trio.testing.wait_all_tasks_blocked()
        (counters,) = world.server.counters.values()
        assert (counters.in_flight, counters.abandoned) == (0, 0 if is_whole else 1)
        assert world.engine.statistics().channels == 0
