"""The real soak: on the engine as it is, on engines that are broken on purpose, and its judges on their own."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.soak import Soak, play_soak
from tests.soak.__main__ import main
from tests.soak.ledger import Ledger
from tests.soak.logs import unexpected_lines
from tests.soak.plans import Plan, Receipt
from tests.soak.plot import draw
from tests.soak.samples import COUNTED, Sample, judge, slope
from tests.soak.wires import Wire

MIB = 1 << 20
BROKEN_ENGINE = ["-m", "tests.helpers.broken_engine"]

# --- the whole


@pytest.mark.slow
def test_a_short_one_finds_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--minutes", "0.3", "--round", "0.15", "--workers", "3", "--load", "1"]
    code = main(["--real", *size, "--out", str(tmp_path)])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert "no promise broken" in said.out and "2 times empty" in said.out
    told = json.loads((tmp_path / "soak.json").read_text())
    assert told["counts"]["stream to close"] > 0 and told["counts"]["call"] > 0 and told["stream_bytes"] > 0
    rows = [dict(zip(told["columns"], row, strict=True)) for row in told["samples"]]
    assert [row["sessions"] for row in rows if row["quiet"]] == [1, 1]
    assert max(row["sessions"] for row in rows) >= 4
    ElementTree.parse(tmp_path / "soak.svg")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defect", "found"),
    [
        ("an_abort_looks_complete", ["looked complete, and nobody closed it"]),
        ("runs_are_lost", ["looked complete after", "bytes that are not what was written"]),
        ("tasks_stay", ["all workers had gone, and the engine held"]),
        ("it_complains", ["an unexpected line"]),
        ("it_dies", ["the engine ended by itself, with 3"]),
    ],
)
async def test_a_broken_engine_is_found(defect: str, found: list[str], tmp_path: Path) -> None:
    soak = Soak(8, 8, sample_seconds=1, workers=3, load=1, mischief_seconds=1, empty_seconds=2)
    for _ in range(3):  # what a busy machine gets done in so short a soak may be what the defect does not touch
        played = await play_soak(soak, tmp_path, engine=[sys.executable, *BROKEN_ENGINE, defect])
        if played.problems:
            break
    assert any(one in problem for one in found for problem in played.problems), played.problems
    assert "promises broken" in played.summary


# --- the judge of what the engine holds

STILL = Sample(
    at=0, quiet=True, memory=44 * MIB, memory_blocks=200_000, files=10, sockets=6, tasks=10, sessions=1, connections=1,
    functions=0, trigger_types=0, bindings=0, calls=0, channels=0, attached_channels=0, cpu=0, load=0, workers=0,
)  # fmt: skip
BUSY = attrs.evolve(
    STILL, quiet=False, sessions=9, tasks=60, sockets=30, files=34, functions=40, channels=12, workers=8
)


def hour(memory: Any = lambda at: 44 * MIB, blocks: Any = lambda at: 200_000) -> list[Sample]:
    return [
        attrs.evolve(STILL if at % 180 == 0 else BUSY, at=at, memory=int(memory(at)), memory_blocks=int(blocks(at)))
        for at in range(5, 3605, 5)
    ]


def problems(samples: list[Sample]) -> tuple[str, ...]:
    verdict = judge(samples, STILL, warm_up=600, max_per_hour=MIB, max_blocks_per_hour=5_000)
    return verdict.problems


def test_a_flat_line_is_flat_with_noise_a_warm_up_and_a_spike() -> None:
    random = Random(1)

    def memory(at: float) -> float:
        warm_up = 3 * MIB * math.exp(-at / 120)
        spike = 50 * MIB if 2000 < at < 2100 else 0
        return 44 * MIB - warm_up + random.uniform(0, 2 * MIB) + spike

    assert problems(hour(memory, lambda at: 200_000 + random.uniform(-5_000, 5_000))) == ()


def test_a_leak_of_two_mib_an_hour_is_found_in_the_same_noise() -> None:
    random = Random(2)
    (problem,) = problems(hour(lambda at: 44 * MIB + 2 * MIB * at / 3600 + random.uniform(0, 2 * MIB)))
    assert problem.startswith("memory grows by") and "1 is allowed" in problem


def test_a_leak_that_the_resident_memory_hides_is_found_in_the_blocks() -> None:
    (problem,) = problems(hour(blocks=lambda at: 200_000 + 10_000 * at / 3600))
    assert "blocks an hour" in problem


def test_a_short_run_is_not_judged_by_its_slope() -> None:
    assert problems(hour(lambda at: 44 * MIB + 100 * MIB * at / 3600)[: (600 + 500) // 5]) == ()


@pytest.mark.parametrize("what", COUNTED)
def test_whatever_is_left_when_all_have_gone_is_found(what: str) -> None:
    samples = hour()
    at = next(index for index, each in enumerate(samples) if each.quiet)
    samples[at] = attrs.evolve(samples[at], **{what: getattr(STILL, what) + 1})
    (problem,) = problems(samples)
    assert what.replace("_", " ") in problem and "after 180 s" in problem


@given(st.floats(-1000, 1000), st.floats(-1000, 1000), st.integers(2, 50))
def test_the_slope_of_a_line_is_its_slope(steepness: float, start: float, n: int) -> None:
    assert slope([(at, start + steepness * at) for at in range(n)]) == pytest.approx(steepness, abs=1e-6)


# --- the judge of what the workers tell


def plan(ending: str = "close", size: int = 5_000) -> Plan:
    drawn = Plan.draw(Random(3), "s", owner="o", writer="w", reader="r", ending=ending, longest=0, now=100)
    return attrs.evolve(drawn, size=size)


def verdict(
    ending: str, reader: str | None, writer: str | None, outcome: str | None, *, whole: bool = True, fits: bool = True,
    done: Any = lambda ledger: None,
) -> list[str]:  # fmt: skip
    ledger, told = Ledger(), plan(ending).to_json()
    ledger.hear({"event": "planned", "plan": told}, 100)
    done(ledger)
    if reader is not None:
        report = {"saw": reader, "bytes": 7, "fits": fits, "whole": whole}
        ledger.hear({"event": "reader", "plan": told, "report": report}, 101)
    if writer is not None:
        ledger.hear({"event": "writer", "plan": told, "report": {"saw": writer}}, 101)
    if outcome is not None:
        ledger.hear({"event": "owner", "plan": told, "outcome": outcome}, 102)
    ledger.settle(110)
    return ledger.wrong


def killed(name: str, at: float = 100.5) -> Any:
    return lambda ledger: ledger.disturb(name, at)


@pytest.mark.parametrize(
    ("ending", "reader", "writer", "outcome"),
    [
        ("close", "end", "closed", "completed"),
        ("close", "any end", "closed", "completed"),
        ("abort", "aborted", "aborted", "aborted"),
        ("cancel", "cancelled", "reader_cancelled", "reader_cancelled"),
    ],
)
def test_streams_in_peace_end_as_planned(ending: str, reader: str, writer: str, outcome: str) -> None:
    assert verdict(ending, reader, writer, outcome, whole=ending == "close") == []
    for instead in ("writer_lost", None):
        assert verdict(ending, instead, writer, outcome, whole=False)
        assert verdict(ending, reader, instead, outcome, whole=ending == "close")
        assert verdict(ending, reader, writer, instead, whole=ending == "close")


@pytest.mark.parametrize("who", ["o", "w", "r"])
def test_the_loss_of_who_takes_part_excuses_a_broken_end(who: str) -> None:
    assert verdict("close", "writer_lost", None, "writer_lost", whole=False, done=killed(who)) == []


def test_what_happens_to_others_or_before_or_after_excuses_nothing() -> None:
    def before(ledger: Ledger) -> None:
        ledger.disturb("w", 50)
        ledger.recovered("w", 60)

    for done in (killed("x"), killed("w", at=105), before):
        assert verdict("close", "writer_lost", "closed", "writer_lost", whole=False, done=done)


@pytest.mark.parametrize(
    ("ending", "reader", "outcome", "whole", "fits"),
    [
        ("close", "end", None, False, True),
        ("close", "end", None, True, False),
        ("close", "writer_lost", None, False, False),
        ("abort", "end", None, True, True),
        ("abort", None, "completed", True, True),
        ("close", "any end", "completed", False, True),
        ("close", "writer_lost", "completed", False, True),
    ],
)
def test_nothing_excuses_a_part_that_is_taken_for_a_whole(
    ending: str, reader: str | None, outcome: str | None, whole: bool, fits: bool
) -> None:
    assert verdict(ending, reader, None, outcome, whole=whole, fits=fits, done=killed("w"))


def test_a_call_that_fails_needs_an_excuse_and_a_false_answer_has_none() -> None:
    ledger = Ledger()
    ledger.disturb("b", 10)
    call = {
        "event": "call",
        "what": "call",
        "who": ["a", "b"],
        "began": 11,
        "ended": 12,
        "problem": None,
        "false": False,
    }
    ledger.hear(call, 12)
    ledger.hear({**call, "problem": "invocation_stopped"}, 12)
    assert ledger.wrong == []
    ledger.hear({**call, "problem": "it came back otherwise", "false": True}, 12)
    ledger.hear({**call, "problem": "invocation_stopped", "who": ["a", "c"]}, 12)
    assert len(ledger.wrong) == 2 and ledger.counts["call that failed"] == 3


# --- what a stream carries


@given(st.integers(0, 2**32), st.data())
def test_a_receipt_is_whole_for_the_whole_only(seed: int, data: st.DataObject) -> None:
    drawn = Plan.draw(Random(seed), "s", owner="o", writer="w", reader="r", ending="close", longest=1, now=0)
    items = list(drawn.pieces())
    assert sum(map(len, items)) == drawn.size
    receipt = Receipt(drawn)
    for item in items:
        receipt.take(item)
    assert receipt.whole and receipt.fits
    receipt.take(b"x")
    assert not receipt.whole and not receipt.fits
    if items:
        missing = data.draw(st.integers(0, len(items) - 1))
        part = Receipt(drawn)
        for item in items[:missing] + items[missing + 1 :]:
            part.take(item)
        assert not part.whole
        assert part.fits == (missing == len(items) - 1)


# --- logs, plot, wires


def test_unexpected_lines_are_those_that_warn_or_are_none() -> None:
    lines = [
        {
            "level": "info",
            "message": "worker 'a12' (1b671a64-40d5-491e-99b0-da01ff1f3341) is gone: it closed with 1000",
        },
        {"level": "info", "message": "worker 'a7' (0b671a64-40d5-491e-99b0-da01ff1f3341) is gone: it closed with 1001"},
        {"level": "warning", "message": "12 lines were left out: more than 20 a second"},
        {"level": "warning", "message": "something else"},
        {"level": "info", "message": "what", "traceback": "…"},
    ]
    log = "\n".join([*map(json.dumps, lines), "Traceback (most recent call last):"])
    kinds: Counter[str] = Counter()
    assert list(unexpected_lines(log, kinds)) == [json.dumps(lines[3]), json.dumps(lines[4]), log.splitlines()[-1]]
    assert kinds["worker '…' (…) is gone: it closed with …"] == 2


@pytest.mark.parametrize("samples", [[], [STILL], hour(), hour(lambda at: 44 * MIB + at)])
def test_a_plot_is_well_formed_and_has_a_line_a_figure(samples: list[Sample]) -> None:
    root = ElementTree.fromstring(draw(samples, 600))
    assert len(root.findall("{*}polyline")) == 11
    quiet = sum(each.quiet for each in samples)
    assert len(root.findall("{*}circle")) == 11 * quiet


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Wire, trio.SocketStream, trio.SocketStream]]:
    """A wire, and the two ends of what it carries."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        wire = Wire(listener.socket.getsockname()[1])
        await nursery.start(wire.serve)
        near = await trio.open_tcp_stream("127.0.0.1", wire.port)
        far = await listener.accept()
        async with listener, near, far:
            with trio.fail_after(30):
                yield wire, near, far
        nursery.cancel_scope.cancel()


async def test_a_wire_carries_both_ways_and_closes_one_way() -> None:
    async with wired() as (wire, near, far):
        await near.send_all(b"there")
        assert await far.receive_some() == b"there"
        await near.send_eof()
        assert await far.receive_some() == b""
        await far.send_all(b"back")
        assert await near.receive_some() == b"back"
        assert wire.connections == 1


async def test_a_wire_that_is_cut_resets_both_ends() -> None:
    async with wired() as (wire, near, far):
        await near.send_all(b"there")
        assert await far.receive_some() == b"there"
        wire.cut(Random(0))
        for end in (near, far):
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()
        assert wire.connections == 0
