"""A channel is a span in the trace of the call that made it."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

import iii_trio
from iii_trio.engine.spans import ChannelSpan

MADE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
USED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_C7_3_a_channel_is_a_span_of_the_call_that_made_it_linked_to_those_that_used_it(
    autojump_clock: MockClock,
) -> None:
    spans: list[ChannelSpan] = []
    async with iii_trio.open_engine(on_channel_span=spans.append) as engine:
        async with engine.open_worker("maker") as maker, engine.open_worker("user") as user:

            @user.function("read")
            async def read(reader: iii_trio.ChannelReader) -> int:
                return len(await reader.read_all())

            @maker.function("make")
            async def make() -> int:
                async with maker.create_channel() as channel:
                    await channel.writer.send(b"12345")
                    await channel.writer.send(b"678")
                    await channel.writer.aclose()
                    size = await maker.trigger("read", {"reader": channel.reader_ref}, traceparent=USED)
                    assert isinstance(size, int)
                    return size

            assert await user.trigger("make", traceparent=MADE) == 8
    (span,) = spans
    assert (span.trace_id, span.parent_span_id) == (MADE[3:35], MADE[36:52])
    assert span.links == ((USED[3:35], USED[36:52]),)
    assert (span.outcome, span.items, span.bytes) == ("completed", 2, 8)
    otlp = span.to_otlp()
    assert otlp["traceId"] == MADE[3:35] and "status" not in otlp
    assert {"key": "iii.channel.bytes", "value": {"intValue": "8"}} in otlp["attributes"]  # type: ignore[operator]


async def test_C7_3_a_channel_made_outside_of_any_trace_begins_one_and_says_how_it_failed(
    autojump_clock: MockClock,
) -> None:
    spans: list[ChannelSpan] = []
    async with iii_trio.open_engine(on_channel_span=spans.append) as engine, engine.open_worker("maker") as maker:
        async with maker.create_channel() as channel:
            channel.writer.abort("no paper")
            await channel.wait_outcome()
    (span,) = spans
    assert span.parent_span_id is None and len(span.trace_id) == 32 and len(span.span_id) == 16
    assert span.to_otlp()["status"] == {"code": 2, "message": "aborted: no paper"}


async def test_a_tracer_that_fails_disturbs_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(span: ChannelSpan) -> None:
        raise RuntimeError("no exporter")

    async with iii_trio.open_engine(on_channel_span=fail) as engine, engine.open_worker("maker") as maker:
        async with maker.create_channel() as channel:
            channel.writer.abort("no paper")
            assert (await channel.wait_outcome()).outcome == "aborted"
    assert "the tracer failed" in caplog.text
