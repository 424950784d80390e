"""Small answers that are written while the connection's task waits for the client's next bytes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import h11
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.triggers.http import HttpConfig, HttpLimits
from iii_trio.triggers.http.exchange import Exchange

from .at_once import AtOnce, connect
from .http_world import Client, HttpWorld, Reply, http_world

Clock = trio.testing.MockClock
GET = b"GET /small HTTP/1.1\r\nHost: here\r\n\r\n"


async def offer(world: HttpWorld, *, gate: trio.Event | None = None, path: str = "/small") -> list[str]:
    """Serve a small route, which waits for the gate. Return what happens in its handler."""
    seen: list[str] = []

    @world.worker.function(f"f{path}")
    async def small() -> dict[str, Any]:
        try:
            if gate is not None:
                await gate.wait()
        except trio.Cancelled:
            seen.append("cancelled")
            raise
        seen.append("returned")
        return {"status_code": 201, "headers": {"x": "y"}, "body": "small"}

    await world.route(f"f{path}", path, channels=False)
    return seen


def counters(world: HttpWorld) -> tuple[int, int, int]:
    """Return the requests of the only route, those under way, and those whose client has left."""
    (counter,) = world.server.counters.values()
    return counter.requests, counter.in_flight, counter.abandoned


async def sent(client: Client) -> Reply:
    """Read the answer to a request that was sent as it is."""
    client._h11.send(h11.Request(method="GET", target="/", headers=[("Host", "here")]))
    client._h11.send(h11.EndOfMessage())
    return await client.reply()


async def test_a_small_request_has_the_connection_wait_once() -> None:
    """Each answer woke the task, which wrote it, and waited a second time for the same bytes."""
    async with http_world() as world:
        await offer(world)
        client, there = connect(world)
        await trio.testing.wait_all_tasks_blocked()
        assert there.waits == 1
        for number in range(1, 5):
            reply = await client.request("GET", "/small")
            assert (reply.status, reply.body, reply.headers["x"]) == (201, b'"small"', "y")
            await trio.testing.wait_all_tasks_blocked()
            assert there.waits == 1 + number
            assert counters(world) == (number, 0, 0)


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_answer_is_the_same_bytes_either_way(at_once: bool, autojump_clock: Clock) -> None:
    async with http_world() as world:
        await offer(world)
        client, _ = connect(world, at_once=at_once)
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        lines = (await client.stream.receive_some(65_536)).split(b"\r\n")
        fields = {line.partition(b":")[0] for line in lines[1:-2]}
        assert (lines[0].rstrip(), lines[-1]) == (b"HTTP/1.1 201", b'"small"')
        assert {b"x", b"content-type", b"content-length", b"date"} <= fields
        assert b"content-length: 7" in lines


@pytest.mark.parametrize("room", [1, 30, 200])
async def test_H1_the_rest_of_an_answer_that_the_client_does_not_take_at_once_follows(room: int) -> None:
    async with http_world() as world:
        await offer(world)
        client, there = connect(world)
        for _ in range(2):
            there.room = room
            reply = await client.request("GET", "/small")
            assert (reply.status, reply.body, reply.whole) == (201, b'"small"', True)
        await trio.testing.wait_all_tasks_blocked()
        assert counters(world) == (2, 0, 0)


async def test_H12_a_request_that_came_before_the_answer_is_served_behind_it() -> None:
    gate = trio.Event()
    async with http_world() as world:
        await offer(world, gate=gate)
        client, _ = connect(world)
        await client.send(GET + GET[:10])
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.send(GET[10:] + GET)
        for _ in range(3):
            assert (await sent(client)).body == b'"small"'


async def test_H3_a_client_that_leaves_before_its_answer_cancels_the_handler() -> None:
    async with http_world() as world:
        seen = await offer(world, gate=trio.Event())
        client, _ = connect(world)
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (seen, counters(world), world.server.connections) == (["cancelled"], (1, 0, 1), 0)


def end(client: Client, there: AtOnce) -> None:
    there.incoming.end()


def reset(client: Client, there: AtOnce) -> None:
    there.is_reset = True
    there.incoming.end()


@pytest.mark.parametrize("leave", [end, reset])
async def test_H3_a_client_that_leaves_behind_its_answer_cancels_nothing(
    leave: Callable[[Client, AtOnce], None],
) -> None:
    async with http_world() as world:
        seen = await offer(world)
        client, there = connect(world)
        await client.request("GET", "/small")
        leave(client, there)
        await trio.testing.wait_all_tasks_blocked()
        assert (seen, counters(world), world.server.connections) == (["returned"], (1, 0, 0), 0)


async def test_an_answer_that_cannot_be_written_ends_the_connection() -> None:
    gate = trio.Event()
    async with http_world() as world:
        await offer(world, gate=gate)
        client, there = connect(world)
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        there.is_reset = True
        gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (counters(world), world.server.connections) == ((1, 0, 1), 0)


async def test_H6_a_late_handler_is_answered_for_and_the_connection_goes_on(autojump_clock: Clock) -> None:
    async with http_world(HttpConfig(default_timeout=5_000)) as world:
        seen = await offer(world, gate=trio.Event())
        await offer(world, path="/other")
        client, _ = connect(world)
        assert (await client.request("GET", "/small")).status == 504
        assert trio.current_time() == pytest.approx(5, abs=1)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == ["cancelled"]
        assert (await client.request("GET", "/other")).status == 201


async def test_H10_a_connection_that_was_answered_at_once_is_idle_for_so_long(autojump_clock: Clock) -> None:
    """Neither is the deadline of its handler the end of it, nor is there none."""
    async with http_world(HttpConfig(default_timeout=5_000, limits=HttpLimits(idle_seconds=40))) as world:
        await offer(world)
        client, _ = connect(world)
        await client.request("GET", "/small")
        await trio.sleep(39)
        assert (await client.request("GET", "/small")).status == 201
        began = trio.current_time()
        assert await client.stream.receive_some() == b""
        assert trio.current_time() - began == pytest.approx(40)
        assert counters(world) == (2, 0, 0)


async def test_H10_the_next_head_has_as_long_as_any(autojump_clock: Clock) -> None:
    async with http_world(HttpConfig(limits=HttpLimits(idle_seconds=40, head_seconds=3))) as world:
        await offer(world)
        client, _ = connect(world)
        await client.request("GET", "/small")
        await trio.sleep(30)
        await client.send(GET[:9])
        began = trio.current_time()
        assert (await sent(client)).status == 408
        assert trio.current_time() - began == pytest.approx(3)


async def test_H16_a_connection_that_was_answered_at_once_is_ended_by_a_drain() -> None:
    async with http_world() as world:
        await offer(world)
        client, _ = connect(world)
        await client.request("GET", "/small")
        world.server.drain()
        await world.server.wait_idle()
        await trio.testing.wait_all_tasks_blocked()
        assert await client.stream.receive_some() == b""
        assert world.server.connections == 0


async def test_H16_an_answer_during_a_drain_says_close() -> None:
    gate = trio.Event()
    async with http_world() as world:
        await offer(world, gate=gate)
        client, _ = connect(world)
        await client.send(GET)
        await trio.testing.wait_all_tasks_blocked()
        world.server.drain()
        gate.set()
        reply = await sent(client)
        assert (reply.status, reply.headers["connection"]) == (201, "close")


async def test_H10_a_total_time_does_not_cut_a_connection_behind_its_answer(autojump_clock: Clock) -> None:
    async with http_world(HttpConfig(limits=HttpLimits(total_seconds=5))) as world:
        await offer(world)
        client, _ = connect(world)
        await client.request("GET", "/small")
        await trio.sleep(20)
        assert (await client.request("GET", "/small")).status == 201


async def test_a_failed_handler_is_answered_with_its_error() -> None:
    async with http_world() as world:

        @world.worker.function("bad")
        async def bad() -> dict[str, Any]:
            raise iii_trio.CallError("no_luck", "not today")

        await world.route("bad", "/bad", channels=False)
        client, _ = connect(world)
        for _ in range(2):
            reply = await client.request("GET", "/bad")
            assert reply.status == 500
            assert b"no_luck" in reply.body


@pytest.mark.parametrize("room", [1, 30, 240])
async def test_H1_an_answer_that_is_written_in_part_at_its_deadline_is_whole_before_the_next(
    room: int, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_now = Exchange._answer_now

    def at_the_deadline(self: Exchange, *call_and_waiting: Any) -> bool:
        self._deadline.cancel()  # as if it passed in the turn in which the result came
        return answer_now(self, *call_and_waiting)

    async with http_world(HttpConfig(default_timeout=5_000)) as world:
        gate = trio.Event()
        await offer(world, gate=gate)
        client, there = connect(world)
        there.room = room
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "_answer_now", at_the_deadline)
            await client.send(GET)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
            await trio.testing.wait_all_tasks_blocked()
        await client.send(GET)
        for _ in range(2):
            reply = await sent(client)
            assert (reply.status, reply.body, reply.whole) == (201, b'"small"', True)


@pytest.mark.parametrize(("sent_bytes", "answered_bytes"), [(2_000_000, 1), (1, 2_000_000)])
async def test_H10_an_idle_connection_keeps_neither_its_body_nor_its_result(
    sent_bytes: int, answered_bytes: int
) -> None:
    async with http_world() as world:

        @world.worker.function("f")
        async def large(body: str) -> dict[str, Any]:
            return {"body": "x" * answered_bytes}

        await world.route("f", "/f", "POST", channels=False)
        clients = [connect(world)[0] for _ in range(5)]
        body = b'"' + b"a" * sent_bytes + b'"'
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for client in clients:
                reply = await client.request("POST", "/f", body, Content_Type="application/json")
                assert len(reply.body) == answered_bytes + 2
            del reply
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The worker's connection may keep its last message.
        assert after - before < 4_000_000
