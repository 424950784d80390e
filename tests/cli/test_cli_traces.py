"""`iii-trio traces`, `logs` and `top`, by real processes against an engine with known contents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import trio

import iii_trio
from iii_trio.cli.top import _Rates
from iii_trio.cli.traces import bar, duration
from iii_trio.config import EngineConfig, Listener
from iii_trio.tracing import Sampling
from iii_trio.triggers.observability.settings import ObservabilityConfig
from tests.helpers.cli_processes import SECONDS, Site, read_line, start

pytestmark = pytest.mark.slow  # each of them starts processes

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def observed() -> AsyncIterator[tuple[Site, iii_trio.Worker]]:
    """An engine that records, and a worker of it that has made one call within a trace, and one that failed."""
    settings = ObservabilityConfig(sampling=Sampling(), exporter="memory")
    config = EngineConfig(listeners=(Listener(port=0),), modules={"observability": settings})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("files") as files:

        @files.function("files::inner")
        async def inner() -> None: ...

        @files.function("files::outer")
        async def outer() -> None:
            await files.trigger("engine::log::warn", {"message": "within", "service_name": "shop"})
            await files.trigger("files::inner")

        await files.trigger("files::outer", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
        with pytest.raises(iii_trio.CallError):
            await files.trigger("files::none")
        (address,) = await engine.listen()
        yield Site(engine, str(address)), files


async def test_traces_are_listed_and_one_is_drawn_as_a_waterfall(observed: tuple[Site, iii_trio.Worker]) -> None:
    site, _ = observed
    listed = await site.run("traces")
    assert (listed.code, listed.err) == (0, "")
    lines = listed.out.splitlines()
    assert "call files::none" in lines[2] and "error: function_not_found" in lines[2]
    assert TRACE in lines[3] and "call files::outer" in lines[3]
    drawn = await site.run("traces", TRACE[:6])
    assert (drawn.code, drawn.err) == (0, "")
    rows = drawn.out.splitlines()
    assert rows[2].startswith("call files::outer") and "█" * 30 in rows[2]
    assert rows[3].startswith("  call files::inner") and "." in rows[3]
    assert rows[-1].startswith(f"trace {TRACE}, 2 spans, began ")
    said = json.loads((await site.run("traces", TRACE, "--json")).out)
    assert said["roots"][0]["children"][0]["name"] == "call files::inner"


async def test_traces_are_chosen(observed: tuple[Site, iii_trio.Worker]) -> None:
    site, _ = observed
    failed = json.loads((await site.run("traces", "--failed", "--json")).out)
    assert [span["name"] for span in failed["spans"]] == ["call files::none"]
    named = json.loads((await site.run("traces", "--name", "OUTER", "--json")).out)
    assert [span["trace_id"] for span in named["spans"]] == [TRACE]
    assert (await site.run("traces", "--slower", "60000")).out.strip() == "none"
    one = await site.run("traces", "--limit", "1")
    assert "and 1 more: see --limit" in one.out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["traces", "zebra"], 2, "not an id of a trace"),
        (["traces", "ffff"], 2, "0 of the latest traces begin with ffff"),
        (["traces", "1" * 32], 3, f"there is no trace {'1' * 32}"),
        (["traces", TRACE, "--failed"], 2, "leave them out to show one trace"),
        (["traces", "--limit", "0"], 2, "--limit is 0"),
        (["logs", "--level", "loud"], 2, "--level"),
    ],
)
async def test_what_is_asked_wrongly_is_one_sentence(
    words: list[str], code: int, sentence: str, observed: tuple[Site, iii_trio.Worker]
) -> None:
    ended = await observed[0].run(*words)
    assert ended.code == code and sentence in ended.err and ended.out == ""


async def test_an_engine_that_records_nothing_is_named_as_the_cause(site: Site) -> None:
    for words in (["traces"], ["logs"]):
        ended = await site.run(*words)
        assert ended.code == 3 and "this engine records no traces" in ended.err


async def test_logs_are_shown_and_followed_from_their_level_on(observed: tuple[Site, iii_trio.Worker]) -> None:
    site, files = observed
    shown = await site.run("logs", "--level", "warn")
    assert shown.code == 0
    (line,) = shown.out.splitlines()
    assert line[8] == "." and line.endswith(f"WARN  shop: within  [{TRACE[:8]}]")
    objects = [json.loads(line) for line in (await site.run("logs", "--trace", TRACE, "--json")).out.splitlines()]
    assert [each["body"] for each in objects] == ["within"]
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "logs", "--follow", "--level", "warn", "--address", site.address)
        assert (await read_line(process.stdout)).endswith(f"shop: within  [{TRACE[:8]}]")
        await files.trigger("engine::log::info", {"message": "below", "service_name": "shop"})
        await files.trigger("engine::log::error", {"message": "bro\nken", "service_name": "shop"})
        assert (await read_line(process.stdout)).endswith("ERROR shop: bro ken")
        process.terminate()
        with trio.fail_after(SECONDS):
            assert await process.wait() == 143


async def test_following_ends_when_its_reader_leaves_though_nothing_comes(
    observed: tuple[Site, iii_trio.Worker],
) -> None:
    site, _ = observed
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "logs", "--follow", "--level", "warn", "--address", site.address)
        await read_line(process.stdout)
        assert process.stdout is not None
        await process.stdout.aclose()
        with trio.fail_after(SECONDS):
            assert await process.wait() == 1
        assert await read_line(process.stderr) == ""


async def test_top_shows_calls_functions_and_the_engine_itself(observed: tuple[Site, iii_trio.Worker]) -> None:
    site, _ = observed
    shown = await site.run("top")
    assert (shown.code, shown.err) == (0, "")
    cells = {line.split("  ")[0]: line.split() for line in shown.out.splitlines()[2:]}
    assert cells["calls"][-1] == "2" and cells["files::outer"][-1] == "1"
    assert "memory" in cells and "queue default" in cells
    said = json.loads((await site.run("top", "--json")).out)
    assert said["cpu_seconds"] > 0 and said["calls_ended"]["by_function"]["files::inner"] == [1, 0]


def test_a_rate_is_the_growth_since_the_last_look() -> None:
    before: dict[str, tuple[float, float]] = {}
    first = _Rates(before, 10.0)
    assert first.of("calls", 100) is None
    first.keep()
    second = _Rates(before, 12.0)
    assert second.of("calls", 150) == 25
    assert second.of("new", 7) is None
    second.keep()
    # A counter that falls belongs to an engine that was started anew.
    assert _Rates(before, 13.0).of("calls", 3) == 0


def test_a_bar_stays_within_its_columns() -> None:
    for offset in range(0, 101, 7):
        for length in range(0, 101 - offset, 9):
            drawn = bar(offset, length, 100)
            assert len(drawn) == 30 and drawn.strip(".")


@pytest.mark.parametrize(
    ("nanoseconds", "words"),
    [(0, "0 µs"), (1500, "1.5 µs"), (2_340_000, "2.34 ms"), (1_500_000_000, "1.5 s"), (5_000_000_000_000, "5000 s")],
)
def test_a_length_of_time_has_three_digits(nanoseconds: int, words: str) -> None:
    assert duration(nanoseconds) == words
