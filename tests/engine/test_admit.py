"""What a new connection is answered: a worker, a channel's end, a question about health, or a refusal that says why."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import Engine, EngineConfig, Limits, Listener, Ref, open_engine
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.wire import attach_target
from tests.helpers.bare import Bare, connected, within

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADES = f"Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n{KEY}"


async def answer_to(engine: Engine, request: str | bytes) -> tuple[int, str, str]:
    """Status, head and body of the answer to a request said whole."""
    near, far = trio.testing.memory_stream_pair()
    said = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        await near.send_all(request.encode("latin-1") if isinstance(request, str) else request)
        if b"\r\n\r\n" not in (request if isinstance(request, bytes) else request.encode("latin-1")):
            await near.send_eof()
        async for data in near:
            said += data
            if said.startswith(b"HTTP/1.1 101"):
                break
        await trio.aclose_forcefully(near)
    head, _, body = said.decode(errors="replace").partition("\r\n\r\n")
    return int(head.split()[1]) if head else 0, head, body


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, '{"status":"ready"}'),
        ("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "Content-Length: 0"),
        ("GET /healthz?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, "ready"),
        ("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "Allow: GET, HEAD"),
        ("GET /admin HTTP/1.1\r\nHost: x\r\n\r\n", 404, "workers connect at /, channel ends below /ws/channels/"),
        (f"GET /admin HTTP/1.1\r\n{UPGRADES}\r\n", 404, "nothing is served here"),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426, "Upgrade: websocket"),
        ("GET /otel HTTP/1.1\r\nHost: x\r\n\r\n", 426, "Upgrade: websocket"),
        ("GET /ws/channels/c?key=k&dir=read HTTP/1.1\r\nHost: x\r\n\r\n", 426, "send Upgrade: websocket"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "Allow: GET"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version: 13"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace(KEY, ""), 400, "Sec-WebSocket-Key must be 16 bytes in base64"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace("dGhl", "\xe9\xe9"), 400, "Sec-WebSocket-Key must be 16 bytes"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace("keep-alive, Upgrade", "close"), 426, "Upgrade"),
        (f"GET / HTTP/1.0\r\n{UPGRADES}\r\n", 505, "only HTTP/1.1 is spoken"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        ("nonsense\r\n\r\n", 400, "illegal request line"),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: " + "y" * 20_000 + "\r\n\r\n", 431, "longer than 16384 bytes"),
        ("GET / HTTP/1.1\r\nHost", 400, "ended within its head"),
        (f"GET /ws/channels/c HTTP/1.1\r\n{UPGRADES}\r\n", 400, "`key` (the ref's access_key) is missing"),
        (f"GET /ws/channels/c?key=k HTTP/1.1\r\n{UPGRADES}\r\n", 400, "`dir` must be `read` or `write`"),
        (f"GET /ws/channels/c?key=k&dir=read HTTP/1.1\r\n{UPGRADES}\r\n", 404, "Channel not found"),
        (f"GET /ws/channels/c?key=k&dir=read HTTP/1.1\r\n{UPGRADES}Iii-Session: a b\r\n\r\n", 403, "Iii-Session"),
        (f"GET /ws/channels/c?key=k&dir=read HTTP/1.1\r\n{UPGRADES}Iii-Session: \xe9\r\n\r\n", 403, "Iii-Session"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n", 101, "Upgrade"),
        (f"GET /otel HTTP/1.1\r\n{UPGRADES}\r\n", 101, "Upgrade"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace("Host: x", "Host: \xa0.xn--\xff"), (101, 400), ""),
        ("GET http://x:49134/healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "ready"),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200, "ready"),
        ("\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200, "ready"),
        ("GET /healthz HTTP/1.1\nHost: x\n\n", 400, "ends with LF alone"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "this is TLS, and the listener speaks none"),
        (f"GET ws://x/ HTTP/1.1\r\n{UPGRADES}\r\n", 101, "Upgrade"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace("keep-alive, ", "Upgrade\r\nConnection: "), 101, "Upgrade"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}\r\n".replace(": websocket", ": websocket, h2c"), 101, "Upgrade"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}{KEY}\r\n", 400, "more than once"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}Content-Length: 2\r\n\r\n\x81\x80", 400, "an upgrade has no body"),
        (f"GET /otel HTTP/1.1\r\n{UPGRADES}Transfer-Encoding: chunked\r\n\r\n", 400, "an upgrade has no body"),
        (f"GET / HTTP/1.1\r\n{UPGRADES}Sec-WebSocket-Extensions: \xe9;;=\r\n\r\n", 101, "Upgrade"),
    ],
)  # fmt: skip
@within(60)
async def test_every_request_is_answered_by_what_is_wrong_with_it(
    request_: str, status: int | tuple[int, ...], said: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine() as engine:
        got, head, body = await answer_to(engine, request_)
        assert got in (status if isinstance(status, tuple) else (status,)), (head, body)
        assert said.lower() in f"{head}\r\n{body}".lower()
        if got != 101:
            assert "Connection: close" in head or "Connection: Upgrade" in head
            assert engine.statistics().connections == 0


PATHS = ["/", "/otel", "/healthz", "/admin", "/ws/channels/c?key=k&dir=read"]


def asking(path: str, *fields: str) -> str:
    return f"GET {path} HTTP/1.1\r\n{UPGRADES}" + "".join(f"{field}\r\n" for field in fields) + "\r\n"


NO_ORIGINS = [
    "http://localhost@evil.example",
    "localhost",
    "http://localhost, https://evil.example",
    "http://localhost/x",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "origin",
    [
        *NO_ORIGINS,
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://notlocalhost",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1:49134",
        "http://[fe80::1]",
        "http://0.0.0.0",
        "",
        "\xe9",
    ],
)
@within(60)
async def test_a_web_page_from_elsewhere_is_refused_on_every_path(
    path: str, origin: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine() as engine:
        got, _, body = await answer_to(engine, asking(path, f"Origin: {origin}"))
        # Only what the setting takes is advised.
        said = "whose Origin is not" if origin in [*NO_ORIGINS, "", "\xe9"] else "add it to `origins` of this listener"
        assert got == 403 and said in body
        assert engine.statistics().connections == 0


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "http://localhost:5173",
        "https://localhost.",
        "http://app.localhost:8080",
        "HTTP://LocalHost",
        "tauri://localhost",
        "http://127.0.0.1:3000",
        "http://127.8.9.10",
        "http://[::1]:5173",
    ],
)
@within(60)
async def test_a_web_page_of_this_machine_may_connect(origin: str, autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine:
        for path, status in (("/", 101), ("/otel", 101), ("/healthz", 200), (PATHS[4], 404)):
            assert (await answer_to(engine, asking(path, f"Origin: {origin}")))[0] == status


@within(60)
async def test_the_host_does_not_matter_without_an_origin(autojump_clock: trio.testing.MockClock) -> None:
    """Proxies, containers and tunnels name an engine as they like, and programs send no Origin.

    DNS rebinding needs a browser, and a browser names the page's origin in every WebSocket handshake: so the check of
    Origin stops it. The one answer that such a page can read without an Origin is that of /healthz.
    """
    async with open_engine() as engine:
        for path, status in (("/", 101), ("/healthz", 200)):
            request = asking(path).replace("Host: x", "Host: evil.example")
            assert (await answer_to(engine, request))[0] == status
        rebound = asking("/", "Origin: http://evil.example:49134").replace("Host: x", "Host: evil.example:49134")
        assert (await answer_to(engine, rebound))[0] == 403


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (["https://app.example"], "https://app.example", 101),
        (["https://app.example/"], "https://APP.example", 101),
        (["https://app.example"], "https://app.example:8443", 403),
        (["https://app.example"], "http://app.example", 403),
        (["https://app.example"], "http://localhost", 101),
        (["*"], "https://evil.example", 101),
        (["*"], "null", 101),
        (["null"], "null", 101),
    ],
)
@within(60)
async def test_a_listener_names_further_origins(
    origins: list[str], origin: str, status: int, autojump_clock: trio.testing.MockClock
) -> None:
    policy = ListenerPolicy.from_config(Listener(origins=tuple(origins)))
    async with open_engine() as engine, trio.open_nursery() as nursery:
        for serve in (
            functools.partial(serve_stream, engine._shell, peer=None, policy=policy),
            functools.partial(engine.serve_stream, origins=origins),
        ):
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, far)
            assert await Bare(near).ask("/", Origin=origin) == status
            await trio.aclose_forcefully(near)


@pytest.mark.parametrize(
    "origins", ["https://app.example", ["app.example"], ["https://app.example/x"], ["https://*, *"], [7]]
)
def test_what_is_no_origin_is_refused_when_it_is_configured(origins: object) -> None:
    with pytest.raises((TypeError, ValueError), match="'origins'"):
        Listener(origins=origins)  # type: ignore[arg-type]


@within(60)
async def test_a_token_in_a_broken_head_is_neither_echoed_nor_logged(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_engine() as engine:
        for line in (
            "Authorization Bearer s3cret",
            "Authorization : Bearer s3cret",
            "Authorization: Bearer s3cret\x00",
        ):
            got, head, body = await answer_to(engine, f"GET / HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n")
            assert got == 400 and "a header line is not `name: value`" in body and "s3cret" not in head + body
    assert "a header line is not" in caplog.text and "s3cret" not in caplog.text


@within(60)
async def test_a_connection_that_says_nothing_is_no_event(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_engine() as engine:
        caplog.set_level(logging.DEBUG, "iii_trio")
        before = engine.statistics()
        caplog.clear()
        near, far = trio.testing.memory_stream_pair()
        await near.aclose()
        began = trio.current_time()
        await engine.serve_stream(far)
        assert trio.current_time() == began  # ended by the end of the stream, not by a deadline
        with pytest.raises(trio.ClosedResourceError):  # and the engine closed its side
            await far.send_all(b"x")
        assert (engine.statistics().connections, engine.statistics().sessions) == (0, before.sessions)
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO] == []


@within(60)
async def test_a_head_that_does_not_come_is_waited_for_so_long(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine(EngineConfig(limits=Limits(handshake_seconds=7))) as engine:
        near, far = trio.testing.memory_stream_pair()
        await near.send_all(b"GET / HT")
        began = trio.current_time()
        await engine.serve_stream(far)
        assert trio.current_time() - began == pytest.approx(7)


@within(60)
async def test_a_peer_that_does_not_take_its_answer_is_not_waited_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_engine() as engine:
        near, far = trio.testing.lockstep_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
            began = trio.current_time()
            await engine.serve_stream(far)
            assert trio.current_time() - began <= 5


@asynccontextmanager
async def engine_with_a_worker() -> AsyncIterator[tuple[Engine, iii_trio.Worker]]:
    async with open_engine() as engine, engine.open_worker("owner") as worker:
        yield engine, worker


def other_way(ref: Ref) -> str:
    target = attach_target(ref)
    return target.replace("dir=read", "dir=write") if "dir=read" in target else target.replace("dir=write", "dir=read")


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        (attach_target, 101, ""),
        (other_way, 403, "other direction"),
        (lambda ref: attach_target(ref).replace("key=", "key=x"), 404, "Channel not found"),
        (lambda ref: attach_target(ref).replace(ref.channel_id, "x"), 404, "Channel not found"),
    ],
)
@within(60)
async def test_an_end_is_attached_by_its_own_key_and_direction_only(
    target: Callable[[Ref], str], status: int, said: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with engine_with_a_worker() as (engine, worker):
        for end in ("writer", "reader"):
            async with worker.create_channel() as channel:
                ref = getattr(channel, end).ref
                async with connected(engine, target(ref)) as bare:
                    assert bare.status == status and said in bare.said


@within(60)
async def test_an_end_is_attached_once(autojump_clock: trio.testing.MockClock) -> None:
    async with engine_with_a_worker() as (engine, worker), worker.create_channel() as channel:
        target = attach_target(channel.writer.ref)
        async with connected(engine, target), connected(engine, target) as second:
            assert second.status == 409 and "attached already" in second.said


@within(60)
async def test_who_comes_late_is_told_how_a_channel_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with engine_with_a_worker() as (engine, worker), worker.create_channel() as channel:
        async with connected(engine, attach_target(channel.writer.ref)):
            pass
        await trio.testing.wait_all_tasks_blocked()
        async with connected(engine, attach_target(channel.reader.ref)) as late:
            assert late.status == 410
            assert json.loads(late.said.rpartition("\n")[2])["outcome"] == "writer_lost"


@within(60)
async def test_limits_are_answered_503_with_a_reason(autojump_clock: trio.testing.MockClock) -> None:
    limits = Limits(sessions=1, connections=3)
    async with open_engine(EngineConfig(limits=limits)) as engine, connected(engine):
        async with connected(engine) as second:
            assert second.status == 503 and "as many sessions as it may" in second.said
        async with connected(engine, "/otel"), connected(engine, "/otel"), connected(engine) as fourth:
            assert fourth.status == 503 and "as many connections as it may (3)" in fourth.said
        async with connected(engine, "/otel") as again:
            assert again.status == 101


@within(60)
async def test_a_draining_engine_takes_no_workers_and_says_so(autojump_clock: trio.testing.MockClock) -> None:
    async with engine_with_a_worker() as (engine, worker):
        async with (
            worker.create_channel() as made,
            connected(engine, attach_target(made.reader.ref)),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(engine.drain, 5)
            await trio.testing.wait_all_tasks_blocked()
            assert (await answer_to(engine, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))[::2] == (
                503, '{"status":"draining"}',
            )  # fmt: skip
            async with connected(engine) as worker_too_late:
                assert worker_too_late.status == 503 and "shutting down" in worker_too_late.said
            async with connected(engine, attach_target(made.writer.ref)) as end:
                assert end.status == 101, "channels that exist are still let in"
            nursery.cancel_scope.cancel()


@within(60)
async def test_telemetry_is_read_and_its_pings_are_answered(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine, "/otel") as bare:
        await bare.say(2, bytes(100_000))
        await bare.say(9, b"there?")
        assert await bare.frame() == (10, b"there?")
        await bare.say(8, b"\x03\xe8")
        assert await bare.frame() == (8, b"\x03\xe8")
        assert await bare.frame() is None


async def test_an_open_end_waits_through_few_coroutines(autojump_clock: trio.testing.MockClock) -> None:
    """Each coroutine that waits takes memory of every open connection, and time of every read."""
    async with open_engine() as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        channel = await worker.trigger("engine::channels::create", {})
        for end in "reader", "writer":
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(engine.serve_stream, far)
            await near.send_all(f"GET {attach_target(Ref.from_json(channel[end]))} HTTP/1.1\r\n{UPGRADES}\r\n".encode())
            assert b" 101 " in await near.receive_some()
        await trio.testing.wait_all_tasks_blocked()
        waiting = [[frame.f_code.co_name for frame, _ in task.iter_await_frames()] for task in nursery.child_tasks]
        ours = ["serve_stream", "serve_stream", "_live", "_read", "read"]
        assert [names[: len(ours)] for names in waiting] == [ours, ours]
        inner = [task for each in nursery.child_tasks for owned in each.child_nurseries for task in owned.child_tasks]
        assert not inner, "the task that waits is the only one of an open end"
        nursery.cancel_scope.cancel()
