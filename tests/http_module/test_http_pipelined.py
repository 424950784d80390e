"""Requests that a client sends behind one that is served: what they make the server keep, and that none is changed."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from iii_trio.http import HttpResponse

from .at_once import connect
from .http_world import http_world

Clock = trio.testing.MockClock
PIPELINED = 65_536
READ = 65_536
HEAD = b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
REQUESTS = {
    "no body": lambda n: b"GET /f?n=%d HTTP/1.1\r\nHost: h\r\n\r\n" % n,
    "an empty line before": lambda n: b"\r\nGET /f?n=%d HTTP/1.1\r\nHost: h\r\n\r\n" % n,
    "counted": lambda n: HEAD + b"Content-Length: %d\r\n\r\n%d" % (len(str(n)), n),
    "chunked": lambda n: HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%d\r\n0\r\n\r\n" % (len(str(n)), n),
}


class Counted(trio.abc.Stream):
    """A stream that counts the bytes that are read."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.got = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self.stream.receive_some(max_bytes))
        self.got += len(data)
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.stream.aclose()


@pytest.mark.parametrize("name", REQUESTS)
async def test_B4_all_that_one_client_pipelines_is_counted_and_is_65_536_bytes_and_one_read_at_most(
    name: str, autojump_clock: Clock
) -> None:
    """Each request let the server read 64 KiB more of those behind it, which counted for that request only."""
    requests = [REQUESTS[name](n) for n in range(4000, 10_000)]
    served = 50
    seen: list[int] = []
    behind: list[int] = []
    counted: list[int] = []
    async with http_world() as world:
        here, there = trio.testing.memory_stream_pair()
        stream = Counted(there)
        world.nursery.start_soon(world.server.serve, stream)

        @world.worker.function("f")
        async def f(body: Any, query_params: dict[str, Any]) -> dict[str, Any]:
            await trio.sleep(1)  # the server reads what it reads behind the request
            seen.append(int(query_params["n"]) if body is None else body)
            behind.append(stream.got - sum(map(len, requests[: len(seen)])))
            counted.append(world.server.shared.kept.total)
            return {"body": 1}

        for method in "GET", "POST":
            await world.route("f", "/f", method, channels=False)
        await here.send_all(b"".join(requests))
        replies = b""
        while replies.count(b"HTTP/1.1 200") < served:
            replies += await here.receive_some()
        # A JSON body counts as long as its request is served.
        own = [len(str(n)) if name in ("counted", "chunked") else 0 for n in seen]
        assert seen[:served] == list(range(4000, 4000 + served))
        assert counted == [one + other for one, other in zip(behind, own, strict=True)]
        assert PIPELINED < max(behind) <= PIPELINED + READ
        await here.aclose()
        await trio.sleep(5)  # it is noticed with the next answer
        assert world.server.shared.kept.total == 0


@pytest.mark.parametrize("size", [1, 7, 40, 41, 1000])
@pytest.mark.parametrize("name", REQUESTS)
async def test_H12_pipelined_requests_in_pieces_of_any_size_are_the_same(
    name: str, size: int, autojump_clock: Clock
) -> None:
    numbers = range(7, 13)
    seen: list[int] = []
    async with http_world() as world:

        @world.worker.function("f")
        async def f(body: Any, query_params: dict[str, Any]) -> dict[str, Any]:
            await trio.sleep(5)
            seen.append(int(query_params["n"]) if body is None else body)
            return {"body": 1}

        for method in "GET", "POST":
            await world.route("f", "/f", method, channels=False)
        client = world.connect()
        data = b"".join(REQUESTS[name](n) for n in numbers)
        for begin in range(0, len(data), size):
            await client.send(data[begin : begin + size])
            await trio.sleep(0.01)
        replies = b""
        while replies.count(b"HTTP/1.1 200") < len(numbers):
            replies += await client.stream.receive_some()
        assert seen == list(numbers)


@pytest.mark.parametrize("body", [b"", b"abc"])
@pytest.mark.parametrize(("status", "length"), [(200, "5"), (304, "5"), (204, None), (205, "0")])
async def test_a_204_has_no_length_and_a_205_none_but_0_whatever_their_handlers_set(
    status: int, length: str | None, body: bytes
) -> None:
    """RFC 9110 sections 8.6 and 15.3.6. A 304 may have the length that the answer would have."""
    async with http_world() as world:

        @world.worker.http("GET", "/f")
        async def f(response: HttpResponse) -> None:
            await response.start(status, {"Content-Length": "5"})
            if body:
                await response.send(body)

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        reply = await client.request("GET", "/f")
        if status != 200:
            assert reply.whole and (reply.status, reply.body) == (status, b"")
            assert reply.headers.get("content-length") == length
            assert (await client.request("GET", "/f")).status == status
        elif body:
            assert reply.headers["content-length"] == length


@pytest.mark.parametrize("asked", [b"GET /nothing", b"OPTIONS /f"])
async def test_H10_others_have_their_turns_between_requests_that_no_handler_answers(asked: bytes) -> None:
    turns = 0

    async def bystander() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with http_world() as world:
        client, _ = connect(world)
        head = asked + b" HTTP/1.1\r\nHost: h\r\nOrigin: http://a\r\nAccess-Control-Request-Method: GET\r\n\r\n"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bystander)
            await client.send(head * 300)
            replies = b""
            while replies.count(b"HTTP/1.1 ") < 300:
                replies += await client.stream.receive_some()
            nursery.cancel_scope.cancel()
        assert turns >= 290
