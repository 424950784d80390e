"""Heads and bodies as hostile or odd clients send them: one strict reading, an answer that names the rule, no echo."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.triggers.http import HttpConfig
from iii_trio.triggers.http.settings import HttpLimits
from tests.http_module.http_world import HttpWorld, http_world

REFUSED = {
    "lines that end with LF alone": (b"GET /f HTTP/1.1\nHost: a\n\n", 400, "BAD_REQUEST", "LF alone"),
    "one line that ends with LF alone": (b"GET /f HTTP/1.1\r\nHost: a\nX: s3cr3t\r\n\r\n", 400, "BAD_REQUEST", "LF alone"),
    "a folded line": (b"GET /f HTTP/1.1\r\nHost: a\r\nX: s3cr3t\r\n more\r\n\r\n", 400, "BAD_REQUEST", "white space"),
    "a first header that is folded": (b"GET /f HTTP/1.1\r\n Host: a\r\n\r\n", 400, "BAD_REQUEST", "white space"),
    "a name with a space": (b"GET /f HTTP/1.1\r\nHost: a\r\ns3cr3t : x\r\n\r\n", 400, "BAD_REQUEST", "`name: value`"),
    "a line without a colon": (b"GET /f HTTP/1.1\r\nHost: a\r\nBearer s3cr3t\r\n\r\n", 400, "BAD_REQUEST", "`name: value`"),
    "a null byte": (b"GET /f HTTP/1.1\r\nHost: a\r\nX: s3cr3t\0\r\n\r\n", 400, "BAD_REQUEST", "no header may have"),
    "an odd request line": (b"GET  /s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n", 400, "BAD_REQUEST", "a target and HTTP/1.1"),
    "no Host": (b"GET /f HTTP/1.1\r\nX: s3cr3t\r\n\r\n", 400, "BAD_REQUEST", "Host header is missing"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", 400, "BAD_REQUEST", "this is TLS"),
    "a length and chunks": (
        b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "BAD_REQUEST",
        "and not both",
    ),
    "chunks in HTTP/1.0": (
        b"POST /f HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "BAD_REQUEST", "HTTP/1.0"),
    "a long head": (
        b"GET /f HTTP/1.1\r\nHost: a\r\nX: " + b"s3cr3t" * 800 + b"\r\n\r\n", 431, "HEAD_TOO_LARGE", "longer than 4096"),
    "a long head without an end": (b"GET /" + b"s3cr3t" * 800, 431, "HEAD_TOO_LARGE", "longer than 4096"),
    "another coding": (
        b"POST /f HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: s3cr3t\r\n\r\n",
        501,
        "UNSUPPORTED_TRANSFER_ENCODING",
        "Transfer-Encoding: chunked",
    ),
    "another version": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "UNSUPPORTED_HTTP_VERSION", "HTTP/1.1 is spoken"),
}  # fmt: skip


async def serve_f(world: HttpWorld, methods: tuple[str, ...] = ("GET", "POST")) -> None:
    @world.worker.function("f")
    async def f() -> dict[str, str]:
        return {"body": "served"}

    for method in methods:
        await world.route("f", "/f", method)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_H8_a_head_that_breaks_a_rule_is_refused_by_its_rule_and_echoed_nowhere(
    name: str, in_pieces: bool, caplog: pytest.LogCaptureFixture
) -> None:
    raw, status, code, words = REFUSED[name]
    caplog.set_level("DEBUG")
    async with http_world(HttpConfig(limits=HttpLimits(head_bytes=4096))) as world:
        await serve_f(world)
        client = world.connect()
        pieces = [raw[at : at + 1] for at in range(len(raw))] if in_pieces and len(raw) < 200 else [raw]
        reply = await client.raw(*pieces)
        assert (reply.status, reply.whole, reply.headers["connection"]) == (status, True, "close")
        error = json.loads(reply.body)["error"]
        assert error["code"] == code and words in error["message"]
        assert b"s3cr3t" not in reply.body and "s3cr3t" not in caplog.text
        # A bystander is served.
        assert (await world.connect().request("GET", "/f")).status == 200


async def test_H8_a_request_behind_another_is_read_as_strictly_as_the_first() -> None:
    async with http_world() as world:
        await serve_f(world)
        client = world.connect()
        await client.begin("GET", "/f")
        await client.send(b"\r\nGET /f HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n")  # an empty line may stand before it
        assert (await client.reply()).status == 200
        refused = await client.raw()
        assert (refused.status, refused.whole) == (400, True)


async def test_an_empty_line_before_a_request_is_passed_over() -> None:
    async with http_world() as world:
        await serve_f(world)
        client = world.connect()
        for _ in range(3):
            assert (await client.raw(b"\r\nGET /f HTTP/1.1\r\nHost: a\r\n\r\n")).body == b'"served"'


@pytest.mark.parametrize("offered", ["h2c", "websocket", "websocket, h2c"])
async def test_an_upgrade_that_is_not_taken_is_served_as_a_request(offered: str) -> None:
    """As Java's HttpClient and `curl --http2` begin each connection (RFC 9110 section 7.8)."""
    async with http_world() as world:
        await serve_f(world)
        client = world.connect()
        for _ in range(2):
            reply = await client.raw(
                f"GET /f HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {offered}\r\n\r\n".encode()
            )
            assert (reply.status, reply.body, reply.whole) == (200, b'"served"', True)


CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("head", [CHUNKED + b"\r\n", CHUNKED + b"Content-Type: application/json\r\n\r\n"])
@pytest.mark.parametrize("body", [b"s3cr3t\r\nx", b"3\r\nabcXX3\r\n", b"3\r\nabc\r\n-1\r\n"])
async def test_H9_a_broken_body_is_answered_while_no_response_has_begun(head: bytes, body: bytes) -> None:
    told: list[str] = []
    async with http_world() as world:
        await serve_f(world, methods=("GET",))

        @world.worker.function("up")
        async def up(request_body: iii_trio.ChannelReader) -> None:
            try:
                await request_body.read_all()
            except iii_trio.ChannelBroken as error:
                told.append(error.outcome)
                raise

        await world.route("up", "/up", "POST")
        reply = await world.connect().raw(head + body)
        assert (reply.status, reply.whole, reply.headers["connection"]) == (400, True, "close")
        error = json.loads(reply.body)["error"]
        assert error["code"] == "BAD_BODY" and "RFC 9112" in error["message"] and b"s3cr3t" not in reply.body
        assert told in (["aborted"], [])  # a JSON body is read before its handler is called
        assert (await world.connect().request("GET", "/f")).status == 200


async def test_H1_a_broken_body_behind_the_head_of_the_response_cuts_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world() as world:

        @world.worker.function("echo")
        async def echo(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
            async for item in request_body:
                await response.send(item)

        await world.route("echo", "/up", "POST")
        client = world.connect()
        await client.send(CHUNKED + b"\r\n3\r\nabc\r\n")
        await trio.testing.wait_all_tasks_blocked()
        reply = await client.raw(b"no chunk\r\n")
        assert (reply.status, reply.body, reply.whole) == (200, b"abc", False)


async def test_H10_no_refusal_is_left_without_its_body_by_a_HEAD_before_it() -> None:
    async with http_world() as world:
        await serve_f(world)
        client = world.connect()
        await client.raw(b"HEAD /f HTTP/1.1\r\nHost: a\r\n\r\n", method="HEAD")
        reply = await client.raw(b"GET /f HTTP/1.1\nHost: a\n\n")
        assert (reply.status, json.loads(reply.body)["error"]["code"]) == (400, "BAD_REQUEST")


async def serve_up(world: HttpWorld) -> None:
    @world.worker.function("up")
    async def up(request_body: iii_trio.ChannelReader) -> dict[str, str]:
        return {"body": (await request_body.read_all()).decode()}

    await world.route("up", "/up", "POST")


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\r\nX: y\r\n\r\n", b";a=b\r\nX: y\r\nZ: 1\r\n\r\n"])
@pytest.mark.parametrize("cut", range(0, 9, 2))
async def test_trailers_are_ignored_and_another_request_may_follow(end: bytes, cut: int) -> None:
    raw = CHUNKED + b"\r\n2\r\nhi\r\n0" + end
    async with http_world() as world:
        await serve_up(world)
        client = world.connect()
        reply = await client.raw(*([raw[:-cut], raw[-cut:]] if cut else [raw]), method="POST")
        assert (reply.status, reply.body, reply.headers.get("connection")) == (200, b'"hi"', None)
        assert "x" not in reply.headers
        assert (await client.request("POST", "/up", b"again")).body == b'"again"'


@pytest.mark.parametrize("end", [b"\r\n\n", b"\r\nX: y\n\n", b"\r\nX: y\n\r\n", b"\r\nX: y\r\n\n"])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
@pytest.mark.parametrize("content_type", [b"text/plain", b"application/json"])
async def test_H8_a_body_whose_trailers_could_end_elsewhere_is_refused(
    end: bytes, cut: int, content_type: bytes
) -> None:
    """A proxy that wants CR LF sees a longer body, and would take the smuggled request for a part of it."""
    raw = CHUNKED + b"Content-Type: " + content_type + b"\r\n\r\n2\r\n12\r\n0" + end
    async with http_world() as world:
        await serve_up(world)
        client = world.connect()
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        reply = await client.raw(*([raw[:-cut], raw[-cut:] + smuggled] if cut else [raw + smuggled]), method="POST")
        assert (reply.status, reply.headers["connection"]) == (400, "close") and b"BAD_BODY" in reply.body
        assert await client.stream.receive_some() == b"" and world.server.unrouted.requests == 0
