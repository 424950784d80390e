"""Our engine keeps every clause that can be seen from outside; what a weak one breaks is found, and said."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
import trio.testing

from iii_trio import EngineConfig, Listener, open_engine
from iii_trio.cli.conformance import conformance
from iii_trio.cli.exits import Exit, Failure
from iii_trio.conformance import CHECKS, Finding, Report, Verdict, run_check, run_conformance
from iii_trio.conformance.bench import Bench, Broken, Check, NotObservable
from iii_trio.conformance.peer import Peer
from tests.helpers.weak_engine import open_weak_engine


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_our_engine_keeps(check: Check) -> None:
    async with open_engine(EngineConfig()) as engine:
        (url,) = await engine.listen(Listener(port=0))
        finding = await run_check(check, url)
        assert finding.verdict is Verdict.KEPT, finding.saw
        with trio.fail_after(10):  # which leaves nothing there
            while any(attrs.astuple(engine.statistics())):  # noqa: ASYNC110
                await trio.sleep(0.01)


BROKEN = {
    "C1.2": "both refs have the same access key",
    "C2.1": "a second claimant of the read end was answered with 101",
    "C3.4": "the pong to a reader's ping, before the writer came, had not happened",
    "C4.2": "no Close, but a reset the reader saw 0 messages, a Close with 1000",
    "C4.4": "the effect of a reader's Close on an idle writer had not happened",
    "C4.5": "a channel whose owner is gone had not happened",
    "C4.7": "the write end was claimed again, and answered 101",
    "C6.2": "the end of an aborted stream had not happened",
}
KEPT = {"C1.1", "C1.3", "C1.4", "C2.2", "C2.4", "C3.2", "C4.1"}
NOT_OBSERVABLE = {"C2.3", "C6.3", "C7.1", "C8.2", "C8.3", "C8.4", "C8.5"}


@pytest.mark.slow
async def test_what_a_weak_engine_breaks_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_weak_engine() as url:
        assert await conformance(url, json=True) is Exit.FAILED
    told = json.loads(capsys.readouterr().out)
    assert {clause: told["clauses"][clause] for clause in BROKEN} == dict.fromkeys(BROKEN, "broken")
    assert {clause: told["clauses"][clause] for clause in KEPT} == dict.fromkeys(KEPT, "kept")
    assert {clause: told["clauses"][clause] for clause in NOT_OBSERVABLE} == dict.fromkeys(
        NOT_OBSERVABLE, "not observable"
    )
    for clause, saw in BROKEN.items():
        said = [finding["saw"] for finding in told["findings"] if finding["clause"] == clause]
        assert any(saw in one for one in said), (clause, said)
    assert not [finding for finding in told["findings"] if "Error: " in finding["saw"]]


async def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_engine(EngineConfig()) as engine:
        (url,) = await engine.listen(Listener(port=0))
        assert await conformance(url, only="C2.4") is Exit.DONE
    _, _, row, _, summary = capsys.readouterr().out.splitlines()
    assert row.split(maxsplit=2) == ["C2.4", "kept", "a writer that writes nothing delivers a clean empty stream"]
    assert summary == "clauses: 1 kept, 0 broken, 0 not observable"


async def test_without_an_engine_there_is_one_sentence() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        with pytest.RaisesGroup(Failure, allow_unwrapped=True) as failed:
            await conformance(f"ws://127.0.0.1:{unused.getsockname()[1]}")
    assert "no engine at ws://127.0.0.1:" in str(failed.value)


async def test_an_engine_that_reads_nothing_takes_nothing_however_little_the_kernel_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, _ = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        bench = Bench("ws://127.0.0.1:1", nursery)
        assert not await bench.takes(Peer(ours), bytes(200_000))
        nursery.cancel_scope.cancel()


async def C1_1_crashes(bench: Bench) -> None:
    raise ZeroDivisionError("oops")


async def C1_2_hangs(bench: Bench) -> None:
    await trio.sleep_forever()


async def C1_3_sees_nothing(bench: Bench) -> None:
    raise NotObservable("it is dark")


async def C1_3_sees_something_wrong_in_a_task(bench: Bench) -> None:
    async def look() -> None:
        raise Broken("this is wrong")

    bench.nursery.start_soon(look)
    await trio.sleep_forever()


async def test_a_check_that_crashes_or_hangs_is_broken_and_the_run_goes_on() -> None:
    checks = (C1_1_crashes, C1_2_hangs, C1_3_sees_nothing, C1_3_sees_something_wrong_in_a_task)
    async with open_engine(EngineConfig()) as engine:
        (url,) = await engine.listen(Listener(port=0))
        report = await run_conformance(url, checks=checks, max_seconds=0.2)
    assert [(finding.verdict, finding.saw) for finding in report.findings[:4]] == [
        (Verdict.BROKEN, "ZeroDivisionError: oops"),
        (Verdict.BROKEN, "the check was not over after 0.2 s"),
        (Verdict.NOT_OBSERVABLE, "it is dark"),
        (Verdict.BROKEN, "this is wrong"),
    ]


def test_a_clause_is_broken_if_any_check_says_so_and_kept_if_any_could_see() -> None:
    kept, broken, unseen = (Finding("C1.1", "it", verdict) for verdict in Verdict)
    assert Report("", "", (kept, broken, unseen)).of("C1.1") is Verdict.BROKEN
    assert Report("", "", (unseen, kept)).of("C1.1") is Verdict.KEPT
    assert Report("", "", (unseen,)).of("C1.1") is Verdict.NOT_OBSERVABLE
