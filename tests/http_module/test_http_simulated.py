"""Whole histories of the HTTP module, from seeds: clients and workers on a simulated network, which all fail.

Whatever happens, a response that looks whole is whole (H1), a handler that sees the end of a body has all of it, each client
gets its own response (H12), and nothing is left of any of them (H3).
"""

from __future__ import annotations

import json
from random import Random

import attrs
import h11
import pytest
import trio

import iii_trio
from iii_trio.environment import Environment
from iii_trio.http import HttpResponse
from iii_trio.testing import simulate
from iii_trio.testing.sim_stream import Conditions, SimStream
from iii_trio.testing.world import World
from iii_trio.triggers.http import HttpConfig, HttpServer, open_http_server

CONFIG = iii_trio.EngineConfig(modules={"queue": None})
HTTP = HttpConfig(default_timeout=20_000)
CLIENT_SECONDS = 400.0
"""Beyond all time limits of the server, and of a network whose packets vanish."""


def content(number: int, size: int) -> bytes:
    """Return the bytes that request `number` is about."""
    pattern = f"[{number}]".encode()
    return (pattern * (size // len(pattern) + 1))[:size]


@attrs.define
class Seen:
    """What the handlers and the clients saw, by the number of the request."""

    sent_whole: set[int] = attrs.field(factory=set)
    received: dict[int, int] = attrs.field(factory=dict)
    planned: dict[int, int] = attrs.field(factory=dict)
    """The size of each upload."""
    uploaded: dict[int, int] = attrs.field(factory=dict)
    """What its client has sent."""
    answers: list[tuple[str, int, int, bool]] = attrs.field(factory=list)
    """The kind of each request, its number, its status (0: none) and whether the response looked whole."""


@attrs.define
class _Far:
    """The server, as the network dials it."""

    server: HttpServer

    async def serve_stream(self, stream: trio.abc.Stream, *, peer: str | None = None) -> None:
        await self.server.serve(stream)


def offer(worker: iii_trio.Worker, random: Random, seen: Seen) -> None:
    """Serve downloads, uploads and small answers, which sometimes fail."""

    @worker.http("GET", "/download/{number}")
    async def download(number: int, size: int, response: HttpResponse) -> None:
        if random.random() < 0.5:
            await response.start(200, {"content-length": str(size)})
        whole, at = content(number, size), 0
        while at < size:
            if random.random() < 0.05:
                raise ValueError("the disk broke")
            step = random.randrange(1, 20_000)
            await response.send(whole[at : at + step])
            at += step
            await trio.sleep(random.choice([0, 0, 0.01, 0.5]))
        seen.sent_whole.add(number)

    @worker.http("POST", "/upload/{number}")
    async def upload(number: int, request_body: iii_trio.ChannelReader) -> int:
        got = b""
        async for chunk in request_body.chunks():
            got += chunk
            await trio.sleep(random.choice([0, 0, 0.2]))
        seen.received[number] = len(got)
        assert got == content(number, len(got))
        return len(got)

    @worker.http("GET", "/small/{number}")
    async def small(number: int) -> dict[str, int]:
        await trio.sleep(random.choice([0, 0.1, 1, 30]))
        if random.random() < 0.2:
            raise iii_trio.CallError("odd", "not this time")
        return {"number": number}


async def fetch(stream: SimStream, random: Random, number: int, seen: Seen) -> None:
    """Make some requests on one connection, one after the other, until it ends."""
    connection = h11.Connection(h11.CLIENT)
    try:
        for n in range(number, number + random.randrange(1, 4)):
            kind, size = random.choice(["download", "upload", "small"]), random.choice([0, 10, 50_000, 300_000])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, connection, stream, random, kind, n, size, seen)
                status, body, whole, is_counted = await _receive(connection, stream, random)
                seen.answers.append((kind, n, status, whole))
                if whole and status == 200:
                    _check(kind, n, size, body, seen)
                    # A counted body is whole with its last byte. Any other one ends when its handler does.
                    assert kind != "download" or is_counted or n in seen.sent_whole, f"H1: {n} ended too soon"
                nursery.cancel_scope.cancel()
            if not whole or connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()
    finally:
        stream.close()


def _check(kind: str, number: int, size: int, body: bytes, seen: Seen) -> None:
    if kind == "download":
        assert body == content(number, size), f"H1: the response {number} looks whole"
    elif kind == "upload":
        assert json.loads(body) == size == seen.received[number]
    else:
        assert json.loads(body) == {"number": number}, f"H12: {number} got the response of another"


async def _send(
    connection: h11.Connection, stream: SimStream, random: Random, kind: str, number: int, size: int, seen: Seen
) -> None:
    try:
        target = f"/{kind}/{number}" + (f"?size={size}" if kind == "download" else "")
        headers = [("Host", "sim")]
        if kind == "upload":
            headers.append(random.choice([("Content-Length", str(size)), ("Transfer-Encoding", "chunked")]))
        method = "POST" if kind == "upload" else "GET"
        await stream.send_all(connection.send(h11.Request(method=method, target=target, headers=headers)) or b"")
        if kind == "upload":
            whole, at = content(number, size), 0
            seen.planned[number], seen.uploaded[number] = size, 0
            while at < size:
                step = random.randrange(1, 30_000)
                seen.uploaded[number] = min(at + step, size)
                await stream.send_all(connection.send(h11.Data(data=whole[at : at + step])) or b"")
                at += step
                await trio.sleep(random.choice([0, 0, 0.05]))
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
        pass  # the response, or its end, says more


async def _receive(connection: h11.Connection, stream: SimStream, random: Random) -> tuple[int, bytes, bool, bool]:
    """Return the status, the body, whether the response looked whole, and whether it had a Content-Length."""
    status, body, reads, is_counted = 0, b"", 0, False
    patience = random.choice([None, None, None, 3])
    try:
        with trio.fail_after(CLIENT_SECONDS):
            while True:
                match event := connection.next_event():
                    case h11.NEED_DATA:
                        if reads == patience:
                            stream.close()  # the client leaves in the middle
                            return status, body, False, is_counted
                        reads += 1
                        await trio.sleep(random.choice([0, 0, 0.02]))
                        connection.receive_data(bytes(await stream.receive_some(random.choice([100, 65_536]))))
                    case h11.Response():
                        status = event.status_code
                        is_counted = any(name == b"content-length" for name, _ in event.headers)
                    case h11.Data():
                        body += bytes(event.data)
                    case h11.EndOfMessage():
                        return status, body, True, is_counted
                    case h11.ConnectionClosed():
                        return status, body, False, is_counted
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
        return status, body, False, is_counted


async def history(world: World, seen: Seen) -> None:
    random = world.random

    async def site(worker: iii_trio.Worker) -> None:
        offer(worker, random, seen)
        await trio.sleep_forever()

    async def client(number: int) -> None:
        name = f"client {number}"
        stream = await world.network.dial(
            _Far(server), name, **random.choice([{}, {"delay_seconds": 0.2, "jitter_seconds": 0.1, "split": 0.3}])
        )
        await fetch(stream, random, number * 10, seen)

    environment = Environment(world.new_id, Random(random.getrandbits(64)))
    async with open_http_server(world.address("http", "memory"), HTTP, environment=environment) as server:
        await world.start_worker("site", site, random.choice(["network", "memory"]))
        await trio.sleep(1)
        async with trio.open_nursery() as clients:
            for number in range(1, 8):
                clients.start_soon(client, number)
                await trio.sleep(random.choice([0, 0.1, 1]))
            for _ in range(random.randrange(5)):
                await trio.sleep(random.choice([0, 0.1, 0.5, 3]))
                one = f"client {random.randrange(1, 8)}"
                match random.randrange(5):
                    case 0:
                        world.crash_worker("site")
                        await trio.sleep(random.choice([0, 1, 5]))
                        await world.restart_worker("site")
                    case 1:
                        world.network.reset(one)
                    case 2:
                        world.network.partition(one)
                        await trio.sleep(random.choice([1, 10, 200]))
                        world.network.heal(one)
                    case 3:
                        await world.restart_engine(crash=random.random() < 0.5)
                        await trio.sleep(40)
                    case 4:
                        world.network.partition("site")
                        await trio.sleep(random.choice([1, 10]))
                        world.network.heal("site")
        world.note("all clients are done")
        await trio.sleep(300)  # the handlers that went on behind their responses have ended
        assert server.connections == 0
        assert sum(counters.in_flight for counters in server.counters.values()) == server.unrouted.in_flight == 0
        assert server.shared.kept.total == 0
        assert world.engine.statistics().channels == 0, world.engine.channels()


CONDITIONS = Conditions(split=0.2, short_writes=0.2, send_buffer_bytes=20_000, receive_buffer_bytes=20_000)


@pytest.mark.parametrize("seed", range(12))
def test_H1_a_response_that_looks_whole_is_whole_in_every_history(seed: int) -> None:
    seen = Seen()
    simulate(lambda world: history(world, seen), seed, config=CONFIG, conditions=CONDITIONS)
    # A handler that saw the end of a body had all that its client sent.
    assert {number: seen.uploaded[number] for number in seen.received} == seen.received
    assert {number: seen.planned[number] for number in seen.received} == seen.received
    assert seen.answers


def test_H1_the_same_seed_is_the_same_history() -> None:
    first, again = (
        simulate(lambda world: history(world, Seen()), 3, config=CONFIG, conditions=CONDITIONS) for _ in range(2)
    )
    assert first.transcript == again.transcript and len(first.transcript) > 50
