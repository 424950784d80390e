"""How long a call waited at its callee: promise O15 of docs/observability.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.observed import is_sampled, parse_traceparent
from tests.helpers.bare import Bare, connected

from .observed import SAMPLED, UNSAMPLED, open_observed, spans, tree
from .test_observed_workers import a_span, sent, span_message


async def waited(worker: iii_trio.Worker) -> Any:
    """What the one span of a call says."""
    (span,) = [span for span in await spans(worker) if span["name"].startswith("call slow::")]
    return span["attributes"].get("iii.callee.waited_us")


async def test_O15_a_call_says_how_long_it_waited_for_a_thread(autojump_clock: MockClock) -> None:
    async def run_late(handler: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        await trio.sleep(2)  # as where all threads are busy
        return handler(**arguments)

    async with open_observed() as (engine, app), engine.open_worker("slow", run_sync=run_late) as slow:

        @slow.function("slow::count")
        def count() -> int:
            return 3

        await slow.wait_registered()
        assert await app.trigger("slow::count", traceparent=SAMPLED) == 3
        assert await waited(app) == "2000000"
        (root,) = await tree(app)
        assert root["callee_waited_ns"] == 2_000_000_000


async def test_O15_a_call_whose_handler_failed_says_it_too(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), engine.open_worker("slow") as slow:

        @slow.function("slow::fail")
        async def fail() -> None:
            await trio.sleep(5)
            raise iii_trio.CallError("odd", "")

        await slow.wait_registered()
        with pytest.raises(iii_trio.CallError):
            await app.trigger("slow::fail", traceparent=SAMPLED)
        # The time of the handler is not part of it.
        assert await waited(app) == "0"


async def bare_callee(bare: Bare) -> None:
    """Register a function `slow::f` by hand."""
    await bare.tell(type="registerfunction", id="slow::f")
    await trio.sleep(10)  # the engine waits for a namespace first


@pytest.mark.parametrize(
    ("said", "kept"),
    [({"waited_us": 7}, "7"), ({"waited_us": 10**15}, "3000000"), ({"waited_us": -5}, "0"), ({}, None)],
)
async def test_O15_a_callee_cannot_claim_more_than_the_call_lasted_and_iiis_sdks_say_nothing(
    said: dict[str, int], kept: str | None, autojump_clock: MockClock
) -> None:
    async with open_observed() as (engine, app), connected(engine) as bare, trio.open_nursery() as nursery:
        await bare_callee(bare)
        nursery.start_soon(lambda: app.trigger("slow::f", traceparent=SAMPLED))
        while (message := await bare.message())["type"] != "invokefunction":
            pass
        await trio.sleep(3)
        await bare.tell(type="invocationresult", invocation_id=message["invocation_id"], result=1, **said)
        await sent(bare)
        assert await waited(app) == kept


async def test_O15_a_span_of_iiis_sdk_tells_it_where_the_answer_does_not(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), connected(engine) as bare, trio.open_nursery() as nursery:
        await bare_callee(bare)
        nursery.start_soon(lambda: app.trigger("slow::f", traceparent=SAMPLED))
        while (message := await bare.message())["type"] != "invokefunction":
            pass
        await bare.tell(type="invocationresult", invocation_id=message["invocation_id"], result=1)
        await sent(bare)
        (call,) = [span for span in await spans(app) if span["name"] == "call slow::f"]
        begins = str(call["start_time_unix_nano"] + 40_000_000)
        await sent(bare, span_message(a_span(parentSpanId=call["span_id"], startTimeUnixNano=begins)))
        (root,) = await tree(app)
        assert root["callee_waited_ns"] == 40_000_000


@pytest.mark.parametrize("traceparent", [None, UNSAMPLED])
async def test_O15_the_answer_of_a_call_that_is_not_recorded_has_no_such_field(
    traceparent: str | None, autojump_clock: MockClock
) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("slow") as slow:
        answers: list[bytes] = []

        @slow.function("slow::f")
        async def f() -> int:
            return 1

        await slow.wait_registered()
        link = slow._membership.session.link  # type: ignore[union-attr]
        send = link.send
        link.send = lambda text: (answers.append(text), send(text))[1]  # type: ignore[method-assign]
        await slow.trigger("slow::f", traceparent=traceparent)
        (answer,) = [text for text in answers if b"invocationresult" in text]
        assert b"waited_us" not in answer


@pytest.mark.parametrize("flags", range(16))
def test_O15_the_flag_of_a_recorded_trace_is_read_as_the_whole_header_is(flags: int) -> None:
    header = UNSAMPLED[:-2] + f"{flags:02x}"
    parent = parse_traceparent(header)
    assert parent is not None and is_sampled(header) is parent.sampled
    assert not is_sampled("") and not is_sampled(header[:-1])
