"""The window of a request: wherever a client stops, ends or resets, it is answered or dropped, and nothing is left."""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.testing import cancel_everywhere
from iii_trio.triggers.http import HttpConfig, HttpLimits, HttpServer, open_http_server
from tests.helpers.bare import within

from .http_world import Client, HttpWorld, http_world

Clock = trio.testing.MockClock
How = Literal["stops", "ends", "resets"]
HOWS: Final = ("stops", "ends", "resets")
LIMITS: Final = HttpLimits(head_seconds=10, idle_seconds=75, body_seconds=20, connections=2)
HEAD: Final = b"POST /upload HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY: Final = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"


@attrs.define(eq=False)
class Resettable(trio.abc.HalfCloseableStream):
    """The server's end of a connection that can be reset: from then on it raises as a socket does."""

    inner: trio.abc.HalfCloseableStream
    is_reset: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self.inner.receive_some(max_bytes))
        self._check()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)
        self._check()

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()
        self._check()

    async def send_eof(self) -> None:
        await self.inner.send_eof()
        self._check()

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _check(self) -> None:
        if self.is_reset:
            raise trio.BrokenResourceError("Connection reset by peer")


def connect(world: HttpWorld) -> tuple[Client, Resettable]:
    """Connect a client, and return the server's end with it."""
    near, far = trio.testing.memory_stream_pair()
    there = Resettable(far)
    world.nursery.start_soon(world.server.serve, there)
    return Client(near), there


async def leave(client: Client, there: Resettable, how: How) -> None:
    """End a connection from the client's side, or stay silent on it."""
    if how == "ends":
        await client.stream.send_eof()
    elif how == "resets":
        there.is_reset = True
        await trio.aclose_forcefully(client.stream)


async def offer(world: HttpWorld) -> None:
    """Serve `/upload`, which streams its body."""

    @world.worker.function("upload")
    async def upload(request_body: iii_trio.ChannelReader) -> dict[str, Any]:
        return {"status_code": 200, "body": (await request_body.read_all()).decode()}

    await world.route("upload", "/upload", "POST")


def held(engine: iii_trio.Engine, server: HttpServer) -> dict[str, int]:
    """Return everything that a request holds while it is served."""
    counters = [server.unrouted, *server.counters.values()]
    return {
        "connections": server.connections,
        "in flight": sum(each.in_flight for each in counters),
        "slots": server._in_flight.taken,
        "open": len(server._open),
        "bodies": server.shared.kept.total,
        "channels": engine.statistics().channels,
        "calls": engine.statistics().calls,
    }


async def rest_of(client: Client) -> bytes:
    """Return what the server says until it ends the connection."""
    said = b""
    try:
        while data := bytes(await client.stream.receive_some(65_536)):
            said += data
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    return said


def expected(n: int, how: How) -> tuple[int, str]:
    """Return the status of the answer to the first `n` bytes of a request and then `how`, and what its text says."""
    if n == len(HEAD + BODY):
        return 200, "abcde"
    if n == 0 or how == "resets":
        return 0, ""
    if n < len(HEAD):
        return (408, "the head of the request came too slowly") if how == "stops" else (400, "within its head")
    return 0, ""  # its handler was told that the body is not whole, and the client is gone


@pytest.mark.parametrize("how", HOWS)
@within(1_000_000)
async def test_a_client_gone_anywhere_in_its_request_leaves_nothing(
    how: How, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_world(HttpConfig(limits=LIMITS)) as world:
        await offer(world)
        for n in range(len(HEAD + BODY) + 1):
            client, there = connect(world)
            with trio.move_on_after(1):
                await client.send((HEAD + BODY)[:n])
                await trio.testing.wait_all_tasks_blocked()
            await leave(client, there, how)
            said = b"" if how == "resets" else await rest_of(client)
            await trio.sleep(200)
            if how != "resets":
                status, text = expected(n, how)
                assert (int(said.split()[1]) if said else 0) == status and text.lower() in said.decode().lower(), (
                    n,
                    said,
                )
            assert not any(held(world.engine, world.server).values()), (n, held(world.engine, world.server))
        # A bystander is served, and no cut connection was an error of ours.
        assert (await world.connect().request("POST", "/upload", b"whole")).body == b'"whole"'
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("how", ["ends", "resets"])
@within(1_000_000)
async def test_a_client_gone_at_any_moment_of_its_answer_leaves_nothing(
    how: How, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with http_world(HttpConfig(limits=LIMITS)) as world:
        await offer(world)
        ends = []
        (counters,) = world.server.counters.values()
        for passes in range(80):
            client, there = connect(world)
            begun, abandoned = counters.requests, counters.abandoned
            await client.send(HEAD + BODY)
            for _ in range(passes):
                await trio.lowlevel.checkpoint()
            await leave(client, there, how)
            said = await rest_of(client) if how == "ends" else b""
            await trio.sleep(200)
            if how == "ends":
                # Its end is read behind its body, when the handler has answered: it gets that, and has not left.
                assert said.endswith(b'"abcde"') and counters.abandoned == abandoned, (passes, said)
            ends.append((counters.requests - begun, counters.abandoned - abandoned))
            assert not any(held(world.engine, world.server).values()), (passes, held(world.engine, world.server))
        assert (await world.connect().request("POST", "/upload", b"whole")).body == b'"whole"'
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert set(ends) <= {(0, 0), (1, 1), (1, 0)} and ((1, 1) in ends) is (how == "resets"), ends
    assert ends[-1] == (1, 0), "the passes span the whole exchange"


def test_a_connection_cancelled_at_any_checkpoint_leaves_nothing() -> None:
    async def around(seen: dict[str, Any], run: Any) -> None:
        async with (
            iii_trio.open_engine() as engine,
            open_http_server(engine.address, HttpConfig(limits=LIMITS)) as server,
            engine.open_worker("app") as worker,
            trio.open_nursery() as nursery,
        ):
            world = HttpWorld(engine, worker, server, nursery)
            await offer(world)
            near, far = trio.testing.memory_stream_pair()
            seen["serve"] = lambda: server.serve(far)
            nursery.start_soon(talk, Client(near))
            await run()
            await trio.testing.wait_all_tasks_blocked()
            seen["held"] = held(engine, server)
            seen["bystander"] = (await world.connect().request("POST", "/upload", b"whole")).body
            nursery.cancel_scope.cancel()

    async def talk(client: Client) -> None:
        with trio.move_on_after(5):
            await client.send(HEAD + BODY)
            await rest_of(client)
        await trio.aclose_forcefully(client.stream)

    async def subject(seen: dict[str, Any]) -> None:
        await seen["serve"]()

    def check(seen: dict[str, Any]) -> None:
        assert not any(seen["held"].values()), seen
        assert seen["bystander"] == b'"whole"'

    assert cancel_everywhere(subject, check, around=around) > 10
