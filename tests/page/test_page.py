"""The page: to whom it is served, what it shows, and that it costs nothing while nobody looks."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import iii_trio
from iii_trio.config import Auth, EngineConfig, Listener, RbacConfig
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.triggers.page.settings import PageConfig

from .page_world import Client, ask, basic, call, call_lines

HTML = "Accept: text/html,*/*"
TOKENS = Listener(auth=Auth(tokens=("s3cret",)))


async def names(engine: iii_trio.Engine) -> list[str]:
    async with engine.open_worker("asks") as worker:
        rows = (await worker.trigger("engine::workers::list", {"include_internal": True}))["workers"]
        return [row["name"] for row in rows]


async def test_a_browser_gets_the_page_and_a_program_what_it_got_before() -> None:
    async with iii_trio.open_engine() as engine:
        page = await ask(engine, "GET", "/", HTML)
        assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.body.startswith(b"<!doctype html>")
        head = await ask(engine, "HEAD", "/", HTML)
        assert head.status == 200 and head.body == b""
        assert (await ask(engine, "GET", "/")).status == 426
        assert (await ask(engine, "POST", "/", HTML)).status == 405
        assert (await ask(engine, "GET", "/", "Accept: TEXT/HTML")).status == 200
        assert (await ask(engine, "GET", "/page/nothing")).status == 404
        for path, status in (("/page/nothing", 404), ("/page/events", 405)):
            answer = await ask(engine, "HEAD", path)
            assert (answer.status, answer.body) == (status, b"")


async def test_the_page_may_run_its_own_script_only_and_loads_nothing_from_elsewhere() -> None:
    async with iii_trio.open_engine() as engine:
        page = await ask(engine, "GET", "/", HTML)
    text = page.body.decode()
    script = text.partition("<script>")[2].partition("</script>")[0]
    policy = page.headers["content-security-policy"]
    assert f"script-src 'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'".lower() in policy
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert text.count("<script") == 1 and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text and "innerHTML" not in text


async def test_events_begin_with_everything_and_go_on_with_what_changed(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        client = Client(engine, nursery)
        await client.send("GET", "/page/events")
        first = await client.event()
        assert first is not None
        assert {"workers", "functions", "channels", "queues", "ended", "triggers", "statistics"} <= set(first)
        assert first["channels"] == {"rows": [], "more": False}
        async with engine.open_worker("one") as worker, worker.create_channel() as channel:
            while "channels" not in (event := await client.event() or {}):
                pass
            assert [row["owner_name"] for row in event["channels"]["rows"]] == ["one"]
            assert "queues" not in event
            await channel.writer.aclose()
        nursery.cancel_scope.cancel()


async def test_without_viewers_there_is_no_worker_and_nothing_is_asked(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        assert "iii-page" not in await names(engine)
        client = Client(engine, nursery)
        await client.send("GET", "/page/events")
        await client.event()
        assert "iii-page" in await names(engine)
        await client.stream.aclose()
        await trio.sleep(2)
        assert "iii-page" not in await names(engine)
        again = Client(engine, nursery)
        await again.send("GET", "/page/events")
        event = await again.event()
        assert event is not None and "workers" in event
        nursery.cancel_scope.cancel()


async def test_a_client_that_reads_nothing_is_given_up_and_others_go_on(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        from iii_trio.engine.admit import serve_stream

        near, far = trio.testing.lockstep_stream_pair()
        nursery.start_soon(serve_stream, engine._shell, far, "slow", ListenerPolicy())
        await near.send_all(b"GET /page/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        quick = Client(engine, nursery)
        await quick.send("GET", "/page/events")
        assert await quick.event() is not None
        assert engine.statistics().connections == 2
        await trio.sleep(40)
        assert engine.statistics().connections == 1
        async with engine.open_worker("one"):
            while "workers" not in (await quick.event() or {"workers"}):
                pass
        nursery.cancel_scope.cancel()


async def test_too_many_viewers_are_told(autojump_clock: MockClock) -> None:
    config = EngineConfig(modules={"page": PageConfig(viewers=1)})
    async with iii_trio.open_engine(config) as engine, trio.open_nursery() as nursery:
        client = Client(engine, nursery)
        await client.send("GET", "/page/events")
        await client.event()
        answer = await ask(engine, "GET", "/page/events")
        assert answer.status == 503 and b"viewers" in answer.body
        nursery.cancel_scope.cancel()


async def test_long_lists_are_cut_and_say_so(autojump_clock: MockClock) -> None:
    config = EngineConfig(modules={"page": PageConfig(rows=3)})
    async with (
        iii_trio.open_engine(config) as engine,
        engine.open_worker("one") as worker,
        trio.open_nursery() as nursery,
    ):
        for n in range(5):
            worker.register_function(f"one::{n}", lambda: None)
        await worker.wait_registered()
        client = Client(engine, nursery)
        await client.send("GET", "/page/events")
        event = await client.event()
        assert event is not None
        assert len(event["functions"]["rows"]) == 3 and event["functions"]["more"]
        assert not event["channels"]["more"]
        nursery.cancel_scope.cancel()


async def test_an_engine_without_a_module_shows_none_of_it(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine(EngineConfig(modules={"queue": None})) as engine, trio.open_nursery() as nursery:
        client = Client(engine, nursery)
        await client.send("GET", "/page/events")
        event = await client.event()
        assert event is not None and event["queues"] is None
        nursery.cancel_scope.cancel()


async def test_the_streams_end_with_the_engine(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with iii_trio.open_engine() as engine:
            client = Client(engine, nursery)
            await client.send("GET", "/page/events")
            await client.event()
        with trio.fail_after(1):
            while await client.event() is not None:
                pass


async def test_an_engine_that_drains_is_still_shown(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        engine._shell.drain()
        assert (await ask(engine, "GET", "/", HTML)).status == 200
        assert "value" in await call(engine, "engine::workers::list")
        nursery.cancel_scope.cancel()


# --- calls


async def test_the_page_calls_functions() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("one") as worker:

        @worker.function("one::double")
        async def double(n: int) -> int:
            if n < 0:
                raise iii_trio.CallError("negative", "no such number")
            return 2 * n

        await worker.wait_registered()
        assert await call(engine, "one::double", {"n": 21}) == {"value": 42}
        reply = await call(engine, "one::double", {"n": -1})
        assert reply == {"error": {"code": "negative", "message": "no such number"}}
        reply = await call(engine, "one::nothing")
        assert reply["error"]["code"] == "function_not_found"


async def test_two_browsers_call_at_the_same_time() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("one") as worker, trio.open_nursery() as nursery:
        both = trio.Event()
        arrived = 0

        @worker.function("one::meet")
        async def meet() -> None:
            nonlocal arrived
            arrived += 1
            if arrived == 2:
                both.set()
            await both.wait()

        await worker.wait_registered()
        with trio.fail_after(5):
            async with trio.open_nursery() as calls:
                calls.start_soon(call, engine, "one::meet")
                calls.start_soon(call, engine, "one::meet")
        nursery.cancel_scope.cancel()


async def test_a_browser_that_leaves_cancels_its_call() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("one") as worker, trio.open_nursery() as nursery:
        began, cancelled = trio.Event(), trio.Event()

        @worker.function("one::wait")
        async def wait() -> None:
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()

        await worker.wait_registered()
        client = Client(engine, nursery)
        body = b'{"function_id": "one::wait"}'
        await client.send("POST", "/page/call", *call_lines(body), body=body)
        with trio.fail_after(5):
            await began.wait()
            await client.stream.aclose()
            await cancelled.wait()


RENAMES = b'{"function_id": "engine::workers::register", "payload": {"name": "other"}}'
BAD_CALLS: list[tuple[str, tuple[str, ...], bytes, int]] = [
    ("GET", (), b"", 405),
    ("POST", ("Content-Type: text/plain", "Content-Length: 2"), b"{}", 415),
    ("POST", ("Content-Type: application/json",), b"", 411),
    ("POST", ("Content-Type: application/json", "Transfer-Encoding: chunked"), b"0\r\n\r\n", 411),
    ("POST", call_lines(b"x" * 1_048_577), b"", 413),
    ("POST", call_lines(b"{}"), b"{}", 400),
    ("POST", call_lines(b'{"function_id": ""}'), b'{"function_id": ""}', 400),
    ("POST", call_lines(RENAMES), RENAMES, 400),
    ("POST", call_lines(b'{"function_id": 1}'), b'{"function_id": 1}', 400),
    ("POST", call_lines(b"[" * 100_000), b"[" * 100_000, 400),
    ("POST", call_lines(b'{"function_id": "\xff"}'), b'{"function_id": "\xff"}', 400),
]


@pytest.mark.parametrize(("method", "lines", "body", "status"), BAD_CALLS)
async def test_what_is_no_call_is_refused_with_a_sentence(
    method: str, lines: tuple[str, ...], body: bytes, status: int
) -> None:
    async with iii_trio.open_engine() as engine:
        answer = await ask(engine, method, "/page/call", *lines, body=body)
    assert answer.status == status
    assert answer.body.strip()


async def test_half_a_body_is_waited_for_ten_seconds(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine() as engine:
        began = trio.current_time()
        answer = await ask(engine, "POST", "/page/call", *call_lines(b"{}" * 9), body=b"{")
        assert answer.status == 408 and 10 <= trio.current_time() - began < 20


async def test_a_client_that_waits_for_100_continue_is_told_so_once_its_call_is_wanted(
    autojump_clock: MockClock,
) -> None:
    body = b'{"function_id": "engine::functions::list"}'
    wanted = (*call_lines(body), "Expect: 100-Continue")
    async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
        client = Client(engine, nursery)
        await client.send("POST", "/page/call", *wanted)
        assert await client.stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.stream.send_all(body)
        assert (await client.answer()).status == 200
        # A body that is here already is not waited for, and one that is refused is not wanted.
        assert (await ask(engine, "POST", "/page/call", *wanted, body=body)).status == 200
        too_large = ("Content-Type: application/json", "Content-Length: 1048577", "Expect: 100-continue")
        assert (await ask(engine, "POST", "/page/call", *too_large)).status == 413


# --- who may see it


PARTS = [("GET", "/", b""), ("GET", "/page/events", b""), ("POST", "/page/call", b'{"function_id": "f"}')]


@pytest.mark.parametrize(("method", "path", "body"), PARTS)
@pytest.mark.parametrize(
    ("host", "origin"),
    [("evil.test", None), ("evil.test", "http://evil.test"), ("localhost", "http://evil.test"), ("a:b:c", None)],
)
async def test_a_page_of_another_site_sees_and_calls_nothing(
    method: str, path: str, body: bytes, host: str, origin: str | None
) -> None:
    """Also if the site's name was pointed at this machine: then a GET has no Origin, and the Host tells."""
    lines = (HTML, *([f"Origin: {origin}"] if origin else []), *(call_lines(body) if body else ()))
    async with iii_trio.open_engine() as engine:
        answer = await ask(engine, method, path, *lines, host=host, body=body)
    assert answer.status == 403


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Host", "a:b:c"), ("Host", "[::1"), ("Host", "a.test/x"), ("Host", "user@a.test"), ("Host", "`rm`.test"),
        ("Host", "a.test:99999999"), ("Host", "x" * 400), ("Host", "é.test"), ("Origin", "evil.test"),
        ("Origin", "http://a.test/path"), ("Origin", "http://a.test, http://b.test"), ("Origin", "http://<b>.test"),
        ("Origin", "http://" + "x" * 400),
    ],
)  # fmt: skip
async def test_what_is_no_name_of_a_site_is_not_advised_as_an_origin(header: str, value: str) -> None:
    host, lines = (value, ()) if header == "Host" else ("localhost", (f"Origin: {value}",))
    async with iii_trio.open_engine() as engine:
        answer = await ask(engine, "GET", "/", HTML, *lines, host=host)
    assert answer.status == 403 and value.encode() not in answer.body and b"`origins`" not in answer.body


@pytest.mark.parametrize(("header", "value"), [("Host", "evil.test:80"), ("Origin", "https://evil.test")])
async def test_a_site_that_may_not_see_the_page_is_told_the_setting(header: str, value: str) -> None:
    host, lines = (value, ()) if header == "Host" else ("localhost", (f"Origin: {value}",))
    async with iii_trio.open_engine() as engine:
        answer = await ask(engine, "GET", "/", HTML, *lines, host=host)
    assert answer.status == 403 and value.encode() in answer.body and b"add " in answer.body


@pytest.mark.parametrize("host", ["localhost:49134", "127.0.0.1:49134", "[::1]:49134", "page.localhost", "10.1.2.3"])
async def test_names_of_this_machine_and_addresses_are_no_other_site(host: str) -> None:
    async with iii_trio.open_engine() as engine:
        assert (await ask(engine, "GET", "/", HTML, host=host)).status == 200


@pytest.mark.parametrize(
    "listener", [Listener(host="mesh.example", page=True), Listener(origins=("http://mesh.example",))]
)
async def test_a_name_that_the_listener_knows_is_no_other_site(listener: Listener) -> None:
    async with iii_trio.open_engine() as engine:
        policy = ListenerPolicy.from_config(listener)
        assert (await ask(engine, "GET", "/", HTML, host="mesh.example", policy=policy)).status == 200


@pytest.mark.parametrize(("method", "path", "body"), PARTS)
async def test_a_listener_with_tokens_asks_for_one_as_the_password(method: str, path: str, body: bytes) -> None:
    lines = (HTML, *(call_lines(body) if body else ()))
    policy = ListenerPolicy.from_config(TOKENS)
    async with iii_trio.open_engine() as engine:
        for wrong in ((), (basic("wrong"),), ("Authorization: Basic %%%",), ("Authorization: Bearer wrong",)):
            answer = await ask(engine, method, path, *lines, *wrong, policy=policy, body=body)
            assert answer.status == 401
        if path != "/page/events":
            for right in (basic("s3cret"), "Authorization: Bearer s3cret"):
                assert (await ask(engine, method, path, *lines, right, policy=policy, body=body)).status == 200


@pytest.mark.parametrize(
    ("listener", "status"),
    [
        (Listener(), 200),
        (Listener(page=False), 426),
        (Listener(host="0.0.0.0"), 426),
        (Listener(host="0.0.0.0", page=True), 200),
        (Listener(page=True, rbac=RbacConfig()), 426),
    ],
)
async def test_it_is_served_where_only_this_machine_comes_or_where_the_listener_says_so(
    listener: Listener, status: int
) -> None:
    async with iii_trio.open_engine() as engine:
        policy = ListenerPolicy.from_config(listener)
        assert (await ask(engine, "GET", "/", HTML, policy=policy)).status == status
        events: Any = await ask(engine, "GET", "/page/nothing", policy=policy)
        assert events.status == 404


async def test_the_module_can_be_turned_off() -> None:
    async with iii_trio.open_engine(EngineConfig(modules={"page": None})) as engine:
        assert (await ask(engine, "GET", "/", HTML)).status == 426
        assert (await ask(engine, "GET", "/page/events")).status == 404


def test_the_settings_are_checked() -> None:
    for wrong in ({"every_seconds": 0.0}, {"rows": 0}, {"viewers": 0}, {"every_seconds": "1"}):
        with pytest.raises((ValueError, TypeError)):
            PageConfig(**wrong)  # type: ignore[arg-type]
