"""`GET /metrics`: who may read it, what it says, and that it costs no engine that is not asked."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

import iii_trio
from iii_trio.config import Auth, Listener
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy


async def ask(engine: iii_trio.Engine, policy: ListenerPolicy, *lines: str, method: str = "GET") -> tuple[int, str]:
    """Ask for the page, and return the status and the body."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stream, engine._shell, far, "here", policy)
        head = "\r\n".join((f"{method} /metrics HTTP/1.1", "Host: here", *lines, "", ""))
        await near.send_all(head.encode())
        answer = b""
        while more := await near.receive_some():
            answer += more
        await near.aclose()
    head_text, _, body = answer.decode().partition("\r\n\r\n")
    return int(head_text.split(" ")[1]), body


def values(page: str) -> dict[str, float]:
    """Return the samples of a page, by name and outcome."""
    return {
        sample.name + (f" {sample.labels['outcome']}" if "outcome" in sample.labels else ""): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def test_the_page_counts_calls_and_sessions() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("one") as worker:

        @worker.function("one::odd")
        async def odd(number: int) -> None:
            if number % 2 == 0:
                raise iii_trio.CallError("even", "")

        for number in range(5):
            try:
                await worker.trigger("one::odd", {"number": number})
            except iii_trio.CallError:
                pass
        await worker.trigger("one::odd", {"number": 1}, action=iii_trio.enqueue("default"))
        async with engine.open_worker("two"):
            pass
        await trio.testing.wait_all_tasks_blocked()
        _, page = await ask(engine, ListenerPolicy())
    found = values(page)
    assert found["iii_calls_ended_total failed"] == 3
    assert found["iii_calls_ended_total succeeded"] == 2 + 1  # and the job's
    assert found["iii_calls_enqueued_total"] == 1
    assert (found["iii_sessions_started_total"], found["iii_sessions_ended_total"]) == (2, 1)


async def test_the_page_says_what_the_engine_holds() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("one") as worker:

        @worker.function("one::f")
        async def f() -> None: ...

        async with worker.create_channel() as channel:
            async with channel.writer:
                await channel.writer.send(b"x")
            assert await channel.reader.read_all() == b"x"
        async with worker.create_channel():
            await worker.wait_registered()
            status, page = await ask(engine, ListenerPolicy())
    found = values(page)
    assert status == 200
    assert (found["iii_sessions"], found["iii_functions"], found["iii_channels"]) == (1, 1, 1)
    assert found["iii_connections"] == 1  # the one that asks
    assert found["iii_channels_ended_total completed"] == 1 and found["iii_channels_ended_total aborted"] == 0
    assert found["iii_memory_budget_limit_bytes"] == engine.config.limits.memory_bytes
    assert found["process_resident_memory_bytes"] > 1_000_000


@pytest.mark.parametrize(
    ("listener", "lines", "status"),
    [
        (Listener(), (), 200),
        (Listener(unix="/run/x"), (), 200),
        (Listener(host="0.0.0.0"), (), 404),
        (Listener(host="0.0.0.0", metrics=True), (), 200),
        (Listener(metrics=False), (), 404),
        (Listener(), ("Origin: https://evil.example",), 403),
        (Listener(auth=Auth(tokens=("secret",))), (), 401),
        (Listener(auth=Auth(tokens=("secret",))), ("Authorization: Bearer secret",), 200),
    ],
)
async def test_only_those_who_may_read_it_get_it(listener: Listener, lines: tuple[str, ...], status: int) -> None:
    async with iii_trio.open_engine() as engine:
        assert (await ask(engine, ListenerPolicy.from_config(listener), *lines))[0] == status


async def test_no_label_has_a_value_that_a_peer_chose() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("a-name-of-its-own") as worker:

        @worker.function("a-function-of-its-own")
        async def f() -> None: ...

        await worker.wait_registered()
        _, page = await ask(engine, ListenerPolicy())
    assert "of-its-own" not in page


async def test_other_methods_are_refused() -> None:
    async with iii_trio.open_engine() as engine:
        assert (await ask(engine, ListenerPolicy(), method="DELETE"))[0] == 405
        assert await ask(engine, ListenerPolicy(), method="HEAD") == (200, "")
