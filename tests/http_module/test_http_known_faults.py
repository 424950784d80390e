"""Faults A5 to B17 of worker listeners, tried on the HTTP listener. Each test is named after its fault.

Without a counterpart here:

- A10, a damaged row of a store: the module stores nothing. The configurations of routes are tried instead.
- A11, a commit that is shared with a culprit: requests share nothing but bounds. Numbers out of range are tried instead.
- B4, `/otel`: this listener has no such path. The bytes that it keeps of heads and bodies are tried instead.
- B9, events of coming and going workers: the module has no such events. Its list of routes is tried instead.
- B17, trust that is not documented: docs/security.md says it. `test_B17` holds what it says of routes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.config.file import parse_config
from iii_trio.errors import ConfigError, MisuseError
from iii_trio.http import HttpError, HttpResponse, HttpResult, open_events
from iii_trio.testing.world import open_world
from iii_trio.transport.memory_budget import MemoryBudget
from iii_trio.triggers.http import HttpConfig, HttpLimits, open_http, open_http_server
from iii_trio.triggers.http.kept_bytes import KeptBytes
from iii_trio.triggers.http.places import Places, address_of
from iii_trio.triggers.table import MODULES

from .http_world import Client, Reply, http_world

Clock = trio.testing.MockClock
ODD = "bad\udcff"
JSON = {"Content_Type": "application/json"}
GET = b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n"


async def _answer() -> dict[str, Any]:
    return {"status_code": 204}


async def _abort(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
    response.abort(ODD, ODD)


async def _abort_behind_bytes(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
    await response.send(b"begun")
    await trio.testing.wait_all_tasks_blocked()
    response.abort(ODD)


async def _raise_in_the_block(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
    async with response:
        raise ValueError(ODD)


async def _cancel(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> dict[str, Any]:
    request_body.cancel(ODD)
    return {"status_code": 204}


async def _fail(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> None:
    raise iii_trio.CallError(ODD, ODD)


async def _return(request_body: iii_trio.ChannelReader, response: iii_trio.ChannelWriter) -> dict[str, Any]:
    return {"headers": {"x-odd": ODD}, "body": {ODD: ODD}}


ODD_HANDLERS: dict[str, tuple[Callable[..., Awaitable[Any]], int, bytes]] = {
    "aborts": (_abort, 500, b"response_broken"),
    "aborts behind bytes": (_abort_behind_bytes, 200, b"begun"),
    "raises in the block": (_raise_in_the_block, 500, b"ValueError: bad?"),
    "cancels": (_cancel, 204, b""),
    "fails": (_fail, 500, b'"code":"bad?"'),
    "returns": (_return, 500, b"serialization_error"),
}


@pytest.mark.parametrize("name", ODD_HANDLERS)
async def test_A5_a_lone_surrogate_of_a_handler_ends_its_request_only(name: str) -> None:
    handler, status, text = ODD_HANDLERS[name]
    async with http_world() as world:
        world.worker.register_function("odd", handler)
        await world.route("odd", "/odd", "POST")
        for _ in range(2):
            reply = await world.connect().request("POST", "/odd", b"some")
            assert (reply.status, reply.whole) == (status, name != "aborts behind bytes")
            assert text in reply.body


async def test_A5_a_lone_surrogate_in_an_http_error_keeps_its_status() -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/absent")
        async def absent() -> None:
            raise HttpError(404, ODD, f"no file {ODD}", {"x-odd": ODD})

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        reply = await world.connect().request("GET", "/absent")
        assert (reply.status, json.loads(reply.body)) == (404, {"error": {"code": "bad?", "message": "no file bad?"}})


@pytest.mark.parametrize("status", ["404", None, True, 0, 99, 100, 600, 404.0, 10**30])
async def test_A8_a_status_that_is_none_is_told_to_the_handler(status: Any) -> None:
    """The engine would answer with 200, so that the error would look like a success."""
    for build in (lambda: HttpError(status, "c", "m"), lambda: HttpResult(status)):
        with pytest.raises(MisuseError, match="give a number from 200 to 599"):
            build()
    async with http_world() as world:

        @world.worker.http("GET", "/odd")
        async def odd(response: HttpResponse) -> None:
            await response.start(status)

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.connect().request("GET", "/odd")).status == 500


@pytest.mark.parametrize("texts", [("c", {"field": "a"}), (None, "m"), ("c", None), (404, "m")])
async def test_A8_an_error_that_is_no_text_is_one_answer(texts: Any) -> None:
    with pytest.raises(TypeError, match="HttpError takes two strings"):
        HttpError(400, *texts)
    async with http_world() as world:

        @world.worker.http("GET", "/call")
        async def call() -> None:
            raise iii_trio.CallError(*texts)

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            reply = await world.connect().request("GET", "/call")
            assert reply.status == 500 and b"CallError takes two strings" in reply.body


CONFIGURATIONS: list[Any] = [
    None,
    [],
    "text",
    {},
    {"api_path": 7},
    {"api_path": None},
    {"api_path": "/a", "http_method": 7},
    {"api_path": "/a", "condition_function_id": {}},
    {"api_path": "/a", "middleware_function_ids": "one"},
    {"api_path": "/a", "middleware_function_ids": [None]},
    {"api_path": "/:"},
    {"api_path": "/*"},
    {"api_path": "/*a/b"},
    {"api_path": "/:a/:a"},
    {"api_path": "/a" * 100},
    {"api_path": "/a", "channels": "no"},
]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=repr)
async def test_A10_a_route_whose_configuration_is_damaged_is_refused_alone(config: Any) -> None:
    async with http_world() as world:
        world.worker.register_function("f", _answer)
        binding = world.worker.register_trigger("http", "f", config=config)
        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.server.router) == 0 and binding.error is not None
        await world.route("f", "/f")
        assert (await world.connect().request("GET", "/f")).status == 204


@pytest.mark.parametrize("length", ["1e300", "-1", "+5", "9" * 5000, "9" * 19, "5, 5", "abc", "0x5", "\u0665"])
async def test_A11_a_length_out_of_range_is_skipped_and_the_response_whole(length: str) -> None:
    """A head with such a length cannot be sent, so the client would get no response."""
    async with http_world() as world:

        @world.worker.function("odd")
        async def odd(response: iii_trio.ChannelWriter) -> None:
            head = {"type": "set_headers", "headers": {"Content-Length": length, "x": "y"}}
            await response.send(json.dumps(head))
            await response.send(b"bytes")

        await world.route("odd", "/odd")
        client = world.connect()
        for _ in range(2):
            reply = await client.request("GET", "/odd")
            assert (reply.status, reply.body, reply.whole, reply.headers["x"]) == (200, b"bytes", True, "y")


@pytest.mark.parametrize("status", ["1e300", "1e999", "-200", "200.5", "9" * 5000, '"200"', "true"])
async def test_A11_a_status_out_of_range_does_not_end_more_than_its_request(status: str) -> None:
    async with http_world() as world:

        @world.worker.function("odd")
        async def odd(response: iii_trio.ChannelWriter) -> None:
            await response.send(f'{{"type":"set_status","status_code":{status}}}')
            await response.send(b"bytes")

        await world.route("odd", "/odd")
        client = world.connect()
        for _ in range(2):
            reply = await client.request("GET", "/odd")
            assert (reply.status, reply.body, reply.whole) == (200, b"bytes", True)


@pytest.mark.parametrize("seconds", [1e300, float("inf")])
async def test_A11_times_without_end_are_no_error(seconds: float, autojump_clock: Clock) -> None:
    names = ("head_seconds", "idle_seconds", "body_seconds", "stalled_seconds", "total_seconds", "wait_seconds")
    config = HttpConfig(default_timeout=seconds, limits=HttpLimits(**dict.fromkeys(names, seconds)))
    async with http_world(config) as world:
        world.worker.register_function("f", _answer)
        await world.route("f", "/f", "POST")
        client = world.connect()
        for _ in range(2):
            assert (await client.request("POST", "/f", b"[]", **JSON)).status == 204


def test_A11_a_time_that_is_no_number_is_refused() -> None:
    for name in ("head_seconds", "total_seconds", "wait_seconds"):
        with pytest.raises(ValueError, match=name):
            HttpLimits(**{name: float("nan")})


@pytest.mark.parametrize("place", ["open_http", "open_http_server", "open_events"])
async def test_A12_the_exceptions_of_a_block_leave_as_they_are(place: str) -> None:
    value, key = ValueError("one"), KeyError("other")
    mine = ExceptionGroup("mine", [value, key])

    async def fail_in(block: Any) -> None:
        async with block:
            raise mine

    if place == "open_events":
        async with http_world() as world:
            left: list[BaseException] = []

            @world.worker.http("GET", "/events")
            async def events(response: HttpResponse) -> None:
                try:
                    await fail_in(open_events(response))
                except BaseException as error:
                    left.append(error)
                    raise

            await world.worker.wait_registered()
            await trio.testing.wait_all_tasks_blocked()
            await world.connect().request("GET", "/events")
            assert left == [mine] and left[0] is mine
        return
    async with iii_trio.open_engine() as engine:
        opened = (
            open_http(engine.address, HttpConfig(port=0)) if place == "open_http" else open_http_server(engine.address)
        )
        with pytest.raises(ExceptionGroup) as caught:
            await fail_in(opened)
        assert caught.value is mine and caught.value.exceptions == (value, key)


@pytest.mark.parametrize("uses", ["nothing", "its response"])
async def test_A13_A14_a_worker_that_leaves_right_after_its_answer_leaves_cleanly(
    uses: str, autojump_clock: Clock
) -> None:
    """The client has the whole response, and the worker's block raises nothing (600 kB are more than all buffers hold)."""
    body = bytes(600_000)
    replies: list[Reply] = []
    async with (
        open_world(1) as world,
        open_http_server(world.address("http", "memory")) as server,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            done = trio.Event()
            here, there = trio.testing.memory_stream_pair()
            client = Client(here)
            nursery.start_soon(server.serve, there)
            async with world.open_worker("app") as worker:

                @worker.http("GET", "/give")
                async def give(response: HttpResponse) -> str | None:
                    try:
                        if uses == "nothing":
                            return "answer"
                        await response.send(body)
                        return None
                    finally:
                        done.set()  # noqa: B023 - it runs within this turn of the loop

                await worker.wait_registered()
                await trio.sleep(1)
                await client.begin("GET", "/give")
                await done.wait()
            replies.append(await client.reply())
        nursery.cancel_scope.cancel()
    expected = b"answer" if uses == "nothing" else body
    assert [(reply.status, reply.whole, reply.body == expected) for reply in replies] == [(200, True, True)] * 3


def test_B4_kept_bytes_are_a_part_of_the_memory_of_the_engine() -> None:
    budget = MemoryBudget(1000)
    kept = KeptBytes(budget.open_share("module http"))
    kept.add(400)
    assert budget.used_bytes == 400 and kept.has_room(10_000, 400)
    kept.add(200)
    # A share is half of the budget.
    assert not kept.has_room(10_000, 600)
    kept.add(-600)
    assert budget.used_bytes == 0 and kept.has_room(10_000, 0)


def test_B4_large_requests_leave_room_for_small_ones() -> None:
    kept = KeptBytes()
    kept.add(880_000)
    assert not kept.has_room(1_000_000, 880_000) and kept.has_room(1_000_000, 50_000)
    kept.add(130_000)
    assert not kept.has_room(1_000_000, 50_000)


async def test_B4_the_unfinished_heads_of_all_clients_together_are_bounded(autojump_clock: Clock) -> None:
    config = HttpConfig(limits=HttpLimits(json_total_bytes=100_000))
    async with http_world(config) as world:
        clients = [world.connect() for _ in range(20)]
        for client in clients:
            with trio.move_on_after(0.1):
                await client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000)
                await trio.testing.wait_all_tasks_blocked()
        assert 90_000 < world.server.shared.kept.total <= 100_000
        # What counts no more is kept no more.
        assert sum(len(connection._h11.trailing_data[0]) for connection in world.server._open) <= 100_000
        refused = 0
        for client in clients:
            got = b""
            with trio.move_on_after(30):
                while more := await client.stream.receive_some(10_000):
                    got += bytes(more)
            refused += b" 503 " in got and b"TOO_MANY_HEADS" in got
            assert b" 503 " in got or b" 408 " in got
        assert refused == 11
        await trio.sleep(5)  # a refused client has a moment to take its answer
        assert world.server.shared.kept.total == 0
        # A client that comes now is served.
        assert (await world.connect().request("GET", "/")).status == 404


async def test_B4_what_comes_behind_a_request_is_counted_and_given_back(autojump_clock: Clock) -> None:
    async with http_world(HttpConfig(limits=HttpLimits(json_total_bytes=30_000))) as world:
        go_on = trio.Event()

        @world.worker.http("GET", "/wait")
        async def wait() -> None:
            await go_on.wait()

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        client = world.connect()
        await client.send(GET % b"wait")
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(10):
            await client.send(b"x" * 10_000)
            await trio.testing.wait_all_tasks_blocked()
        # One piece more than there is room for was read.
        assert world.server.shared.kept.total == 40_000
        go_on.set()
        assert bytes(await client.stream.receive_some(12)) == b"HTTP/1.1 204"
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert world.server.shared.kept.total == 0


async def test_B5_a_client_that_floods_and_never_reads_is_read_no_further(autojump_clock: Clock) -> None:
    async with http_world() as world:
        world.worker.register_function("f", _answer)
        await world.route("f", "/f")
        client = world.connect(max_buffer=1)
        sent = 0
        with trio.move_on_after(30):
            while True:
                await client.send((GET % b"f") * 100)
                sent += 100
        # While its first request was served it was read to the bound of what comes behind one.
        assert (
            sent * len(GET % b"f") < 2 * 65_536
            and world.server.counters[next(iter(world.server.counters))].requests <= 1
        )
        await trio.sleep(60)
        assert world.server.connections == 0


async def test_B5_a_body_in_small_chunks_waits_for_its_reader(autojump_clock: Clock) -> None:
    """The cost of a small item is not its bytes alone: 100,000 chunks of a byte are not kept."""
    async with http_world() as world:

        @world.worker.function("slow")
        async def slow(request_body: iii_trio.ChannelReader) -> None:
            await request_body.receive()
            await trio.sleep_forever()

        await world.route("slow", "/slow", "POST")
        client = world.connect(max_buffer=1)
        sent = 0
        with trio.move_on_after(20):
            await client.send(b"POST /slow HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                await client.send(b"1\r\na\r\n" * 100)
                sent += 100
        assert 0 < sent < 10_000


async def test_B8_a_few_addresses_do_not_take_all_connections() -> None:
    async with http_world(HttpConfig(limits=HttpLimits(connections=80))) as world:

        async def connect(address: str) -> bytes:
            here, there = trio.testing.memory_stream_pair()
            world.nursery.start_soon(world.server.serve, there, address)
            await here.send_all(GET % b"nowhere")
            return bytes(await here.receive_some(12))

        got = [await connect(f"192.0.2.{number % 4}") for number in range(100)]
        # The last eighth is for addresses that have less than a fifth.
        assert got.count(b"HTTP/1.1 404") == 70 and got.count(b"HTTP/1.1 503") == 30
        assert [await connect(f"198.51.100.{number}") for number in range(10)] == [b"HTTP/1.1 404"] * 10
        assert await connect("198.51.100.99") == b"HTTP/1.1 503"


async def test_B8_a_few_addresses_do_not_take_all_requests(autojump_clock: Clock) -> None:
    config = HttpConfig(concurrency_request_limit=16, default_timeout=1e9, limits=HttpLimits(wait_seconds=5))
    async with http_world(config) as world:
        world.worker.register_function("f", _answer)
        world.worker.register_function("slow", trio.sleep_forever)
        await world.route("f", "/f")
        await world.route("slow", "/slow")

        async def request(path: bytes, address: str | None) -> Any:
            here, there = trio.testing.memory_stream_pair()
            world.nursery.start_soon(world.server.serve, there, address)
            await here.send_all(GET % path)
            return here

        greedy = [await request(b"slow", "192.0.2.1") for _ in range(40)]
        await trio.testing.wait_all_tasks_blocked()
        assert world.server._in_flight.taken == 14
        for address in ("192.0.2.2", "2001:db8::1", None):
            stream = await request(b"f", address)
            assert bytes(await stream.receive_some(12)) == b"HTTP/1.1 204"
        # The other requests of the first address wait, and are refused in the end.
        assert bytes(await greedy[-1].receive_some(12)) == b"HTTP/1.1 503"
        assert world.server._in_flight.taken == 14


async def test_B8_places_that_come_free_go_to_one_address_after_the_other(autojump_clock: Clock) -> None:
    places, order = Places(2), []
    assert places.take("a") and places.take("a") and not places.take("a")

    async def wait(address: str | None, seconds: float = 100) -> None:
        if await places.wait(address, seconds):
            order.append(address)

    async with trio.open_nursery() as nursery:
        for address in ("a", "a", "b", None):
            nursery.start_soon(wait, address)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, "late", 1)
        await trio.sleep(2)
        assert places.taken == 2 and "late" not in places._waiting
        for _ in range(4):
            places.give_back("a" if len(order) < 2 else order[len(order) - 2])
            await trio.testing.wait_all_tasks_blocked()
        assert order == ["a", "b", None, "a"]
    places.give_back(None)
    places.give_back("a")
    assert (places.taken, places._held, places._waiting) == (0, {}, {})


async def test_B8_a_place_that_is_granted_to_a_cancelled_request_is_given_back() -> None:
    places = Places(1)
    assert places.take("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(places.wait, "b", 10)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        places.give_back("a")
    assert (places.taken, places._held, places._waiting) == (0, {}, {})


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1:2:3:4", "2001:db8::"),
        ("fe80::1%eth0", "fe80::"),
        ("127.0.0.1", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
        (None, None),
    ],
)
def test_B8_clients_on_the_same_machine_are_not_told_apart(peer: str | None, address: str | None) -> None:
    assert address_of(peer) == address


async def test_B8_a_worker_that_owns_many_channels_does_not_stop_requests(autojump_clock: Clock) -> None:
    config = iii_trio.EngineConfig(limits=iii_trio.Limits(channels=64))
    async with (
        open_world(1, config=config) as world,
        open_http_server(world.address("http", "memory")) as server,
        world.open_worker("app") as app,
        world.open_worker("greedy") as greedy,
        trio.open_nursery() as nursery,
        AsyncExitStack() as stack,
    ):
        app.http("GET", "/f")(_answer)
        with pytest.raises(iii_trio.CallError, match="The last 8 are kept"):
            while True:
                await stack.enter_async_context(greedy.create_channel())
        here, there = trio.testing.memory_stream_pair()
        nursery.start_soon(server.serve, there)
        assert (await Client(here).request("GET", "/f")).status == 200
        nursery.cancel_scope.cancel()


async def test_B9_many_routes_are_listed_in_pages_and_none_is_lost() -> None:
    async with http_world() as world:
        world.worker.register_function("f", _answer)
        filler = "x" * 1000
        paths = [f"/{number:04}/{filler}" for number in range(1500)]
        for path in paths:
            world.worker.register_trigger("http", "f", config={"api_path": path, "http_method": "GET"})
        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        listed: list[str] = []
        pages, after = 0, None
        while pages == 0 or after is not None:
            page = await world.worker.trigger("iii-http::routes", {} if after is None else {"after": after})
            # SDKs take no more than 1 MiB at once.
            assert len(json.dumps(page)) < 1024 * 1024
            listed += [row["path"] for row in page["routes"]]
            pages, after = pages + 1, page["after"]
        assert listed == paths and pages > 1
        page = await world.worker.trigger("iii-http::routes", {"limit": 2, "after": after})
        assert [row["path"] for row in page["routes"]] == paths[:2] and page["after"][0] == paths[1][1:]
        with pytest.raises(iii_trio.CallError, match="limit"):
            await world.worker.trigger("iii-http::routes", {"limit": 0})


@pytest.mark.parametrize(("umask", "mode"), [(0, 0o600), (0o022, 0o660), (0o777, 0o600)])
async def test_B10_a_unix_socket_has_its_mode_whatever_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    config = HttpConfig(unix=str(path)) if mode == 0o600 else HttpConfig(unix=str(path), mode=mode)
    async with iii_trio.open_engine() as engine:
        was = os.umask(umask)
        try:
            async with open_http(engine.address, config) as http:
                assert stat.S_IMODE(path.stat().st_mode) == mode
                assert http.reconfigure(HttpConfig(unix=str(path), mode=0o640)) is not None
                assert stat.S_IMODE(path.stat().st_mode) == 0o640
        finally:
            os.umask(was)


async def test_B17_a_worker_takes_the_route_of_another_over_with_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """docs/security.md says so: each worker with a token is trusted with all routes."""
    async with http_world() as world, world.engine.open_worker("other") as other:
        world.worker.register_function("f", _answer)
        await world.route("f", "/f")

        @other.http("GET", "/f")
        async def taken() -> str:
            return "taken"

        await other.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert (await world.connect().request("GET", "/f")).body == b"taken"
        assert "instead of f" in caplog.text


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        ("iii-trio:", "`iii-trio` is empty; give its settings, or remove the key"),
        ("iii-trio: { unix: }", "`unix` is empty; give the path of a socket, or remove the key"),
        ("iii-trio: { tls: }", "`tls` has no `certificate`"),
    ],
)
def test_B2_settings_whose_child_line_is_commented_out_are_refused(ours: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"workers:\n  - name: iii-http\n    {ours}\n", "c.yaml", {}, modules=MODULES)
    assert str(caught.value) == f"c.yaml:3: {problem}"
