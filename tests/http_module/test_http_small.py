"""Requests whose handlers use no channel, which take one task only, and handlers that use one after all."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypedDict

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.http import HttpRequest, HttpResponse, HttpResult
from iii_trio.worker.http import needs_channels
from iii_trio.worker.http_response import is_json_only

from .http_world import http_world

JSON = {"Content_Type": "application/json"}


async def test_a_small_request_starts_no_task_and_attaches_nothing() -> None:
    """A request whose handler uses no channel is served by the task of its connection."""
    async with http_world() as world:
        seen: list[tuple[int, int]] = []

        async def count() -> dict[str, Any]:
            tasks = trio.lowlevel.current_statistics().tasks_living
            seen.append((tasks, len(world.engine._shell.attached_channels)))
            return {}

        world.worker.register_function("count", count)
        world.worker.http("GET", "/count")(count)
        world.worker.http("POST", "/count")(count)
        await world.worker.wait_registered()
        client = world.connect()
        await world.worker.trigger("count")  # what a call takes without HTTP
        assert (await client.request("GET", "/count")).status == 200
        assert (await client.request("POST", "/count", b'{"a": 1}', content_type="application/json")).status == 200
        assert seen == [seen[0]] * 3 and seen[0][1] == 0


@pytest.mark.parametrize("uses", ["reads", "writes", "aborts", "returns null"])
async def test_H2_a_handler_that_uses_a_channel_late_is_still_heard(
    uses: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with http_world() as world:

        @world.worker.function("late")
        async def late(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> dict[str, Any] | None:
            await trio.sleep(5)
            match uses:
                case "reads":
                    return {"body": (await request_body.read_all()).decode()}
                case "writes":
                    await response.send(b"bytes")
                case "aborts":
                    response.abort("no more")
            return None

        await world.route("late", "/late", "POST")
        reply = await world.connect().request("POST", "/late", b'"text"', content_type="application/json")
        expected = {
            "reads": (200, b'"\\"text\\""'),
            "writes": (200, b"bytes"),
            "aborts": (500, b"response_broken"),
            "returns null": (200, b""),
        }
        status, body = expected[uses]
        assert reply.status == status and reply.whole and body in reply.body
        await trio.testing.wait_all_tasks_blocked()
        assert (world.engine.statistics().channels, world.engine.statistics().calls) == (0, 0)
        assert world.engine._shell._channel_watches == {}


@pytest.mark.parametrize("target", ["/json", "/text", "/cookies", "/nowhere", "/error", "/latin"])
async def test_a_plain_response_is_the_same_bytes_as_by_h11(target: str) -> None:
    """A client that says more about its connection than keep-alive is answered by h11."""
    async with http_world() as world:
        results = {
            "/json": {"body": {"n": 7}},
            "/text": {"headers": {"Content-Type": "text/plain"}, "status_code": 299, "body": "\u00e9"},
            "/cookies": {"headers": ["Set-Cookie: a", "set-cookie: b", "X-Empty:", "X-Bad: \x01\r\nY: z"]},
            "/error": {"status_code": 503, "body": None},
            "/latin": {"headers": {"X-Odd": "\u00ff\u00a1 \t tab"}, "body": []},
        }
        for path, result in results.items():

            async def give(result: Any = result) -> Any:
                return result

            world.worker.register_function(path[1:], give)
            await world.route(path[1:], path)
        got = []
        for connection in ("", "Connection: Keep-Alive\r\n", "Connection: keep-alive, other\r\n"):
            client = world.connect()
            request = f"GET {target} HTTP/1.1\r\nHost: h\r\n{connection}\r\n".encode()
            for _ in range(2):
                await client.send(request)
                await trio.testing.wait_all_tasks_blocked()
                raw = bytes(await client.stream.receive_some(65_536))
                assert raw.startswith(b"HTTP/1.1 ") and b"\r\n\r\n" in raw
                head, _, body = raw.partition(b"\r\n\r\n")
                got.append(([line for line in head.split(b"\r\n") if not line.startswith(b"date: ")], body))
                assert head.count(b"\r\ndate: ") == 1
        assert got == got[:1] * 6 and b"Y: z" not in b"".join(got[0][0])


async def test_H14_H16_what_ends_the_connection_or_has_no_body_is_no_plain_response() -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/f")
        async def f() -> str:
            return "text"

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        reply = await world.connect().request("HEAD", "/f")
        assert (reply.status, reply.body, reply.headers["content-length"], reply.whole) == (200, b"", "4", True)
        for line in (b"HTTP/1.1\r\nHost: h\r\nConnection: close", b"HTTP/1.0"):
            client = world.connect()
            await client.send(b"GET /f " + line + b"\r\n\r\n")
            raw = b""
            while more := bytes(await client.stream.receive_some(1000)):
                raw += more
            assert b"onnection: close\r\n" in raw and raw.endswith(b"text")
            await client.stream.aclose()
        client = world.connect()
        # The rest of an upgrade that is not taken is the next request.
        request = b"GET /f HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
        await client.send(request + request)
        await trio.testing.wait_all_tasks_blocked()
        assert bytes(await client.stream.receive_some(10_000)).count(b"HTTP/1.1 200") == 2


# --- routes without channels


async def test_a_route_without_channels_makes_none_and_says_nothing_of_them() -> None:
    async with http_world() as world:
        given: list[dict[str, Any]] = []
        channels: list[int] = []

        @world.worker.function("f")
        async def f(request: dict[str, Any]) -> dict[str, Any] | None:
            given.append(request)
            channels.append(world.engine.statistics().channels)
            return {"status_code": 201, "body": request["body"]} if request["body"] is not None else None

        await world.route("f", "/f", "POST", channels=False)
        client = world.connect()
        reply = await client.request("POST", "/f", b"[1]", **JSON)
        assert (reply.status, reply.body) == (201, b"[1]")
        # A null has no channel that could answer instead.
        reply = await client.request("POST", "/f", b"")
        assert (reply.status, reply.body) == (200, b"")
        assert channels == [0, 0]
        assert all(request.keys().isdisjoint({"request_body", "response"}) for request in given)


async def test_a_body_for_a_handler_without_channels_is_dropped_and_the_connection_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world() as world:

        @world.worker.http("POST", "/f")
        async def f() -> int:
            await trio.sleep(1)
            return 7

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        for _ in range(3):
            reply = await client.request("POST", "/f", bytes(200_000))
            assert (reply.status, reply.body) == (200, b"7") and "connection" not in reply.headers


async def test_H9_a_broken_body_for_a_handler_without_channels_is_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with http_world() as world:
        ended: list[str] = []

        @world.worker.http("POST", "/f")
        async def f() -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("cancelled")

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        head = b"POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        reply = await world.connect().raw(head, b"no length\r\n", method="POST")
        assert reply.status == 400 and b"BAD_BODY" in reply.body
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"] and world.engine.statistics().calls == 0


@pytest.mark.parametrize("sends", ["nothing more", "half of a body"])
async def test_H3_a_client_that_leaves_cancels_a_handler_without_channels(sends: str) -> None:
    async with http_world() as world:
        began, ended = trio.Event(), trio.Event()

        @world.worker.http("POST", "/f")
        async def f() -> None:
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.set()

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        length = 0 if sends == "nothing more" else 10
        await client.send(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length + bytes(length // 2))
        await began.wait()
        await client.stream.aclose()
        await ended.wait()
        await trio.testing.wait_all_tasks_blocked()
        (counters,) = world.server.counters.values()
        assert (counters.abandoned, counters.in_flight, world.engine.statistics().calls) == (1, 0, 0)


async def test_H6_a_handler_without_channels_that_is_late_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/f")
        async def f() -> None:
            await trio.sleep_forever()

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        for _ in range(2):
            assert (await client.request("GET", "/f")).status == 504
        assert world.engine.statistics().calls == 0


async def test_a_small_request_is_served_where_no_channel_can_be_had() -> None:
    config = iii_trio.EngineConfig(limits=iii_trio.Limits(channels=1))
    async with http_world(engine_config=config) as world, world.worker.create_channel():

        @world.worker.http("GET", "/f")
        async def f() -> str:
            return "served"

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.connect().request("GET", "/f")).body == b"served"


async def test_a_handler_that_returns_bytes_against_its_annotation_is_told_so() -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/f")
        async def f() -> str:
            return b"bytes"  # type: ignore[return-value]

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        reply = await world.connect().request("GET", "/f")
        assert reply.status == 500 and b"annotate what it returns" in reply.body


@attrs.frozen
class _Attrs:
    n: int = 7


@dataclasses.dataclass
class _Data:
    n: int = 7


class _Typed(TypedDict):
    n: int


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        *((kind, True) for kind in (None, str, int, float, bool, dict, list, tuple, _Attrs, _Data, _Typed)),
        *((kind, True) for kind in (dict[str, Any], list[bytes], tuple[int, ...], str | None, int | _Attrs)),
        *(
            (kind, False)
            for kind in (Any, object, bytes, bytearray, memoryview, bytes | None, HttpResult, Sequence[int])
        ),
        (HttpResult | None, False),
    ],
    ids=repr,
)
def test_only_a_result_that_cannot_be_bytes_needs_no_channel(annotation: Any, expected: bool) -> None:
    assert is_json_only(annotation) is expected


async def _nothing_said():  # type: ignore[no-untyped-def]
    ...


async def _a_response(response: HttpResponse) -> None: ...


async def _a_request(request: HttpRequest) -> None: ...


async def _a_reader(anything: iii_trio.ChannelReader) -> None: ...


async def _by_name(response, request_body) -> None: ...  # type: ignore[no-untyped-def]


async def _bytes(name: str) -> bytes:
    return b""


async def _plain(name: str, body: dict[str, Any], limit: int = 3) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize(
    ("handler", "expected"),
    [*((one, True) for one in (_nothing_said, _a_response, _a_request, _a_reader, _by_name, _bytes)), (_plain, False)],
)
def test_a_handler_that_takes_an_end_needs_channels(handler: Callable[..., Awaitable[Any]], expected: bool) -> None:
    assert needs_channels(handler) is expected
