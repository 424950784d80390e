"""The promises of the observability module about traces (docs/observability.md), in memory and virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import iii_trio
from iii_trio.tracing import Sampler, Sampling, SamplingRule, Tracing, parse_traceparent

from .observed import PARENT, SAMPLED, TRACE, UNSAMPLED, names, observed, open_observed, spans, tree, walk


async def test_O1_a_call_is_a_span_with_its_caller_callee_and_outcome(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), engine.open_worker("files") as files:

        @files.function("files::slow")
        async def slow() -> int:
            await trio.sleep(2)
            return 7

        assert await app.trigger("files::slow") == 7
        (span,) = await spans(app)
        assert span["name"] == "call files::slow" and span["status"] == "ok"
        assert span["parent_span_id"] is None
        about = span["attributes"]
        assert (about["iii.caller"], about["iii.callee"], about["iii.call.outcome"]) == ("app", "files", "answered")
        assert about["function_id"] == "files::slow"
        assert 2.0e9 <= span["end_time_unix_nano"] - span["start_time_unix_nano"] < 2.1e9


@pytest.mark.parametrize(
    ("ending", "outcome", "code"),
    [
        ("raises", "answered", "disk_full"),
        ("leaves", "stopped", "invocation_stopped"),
        ("is cancelled", "abandoned", None),
        ("is missing", "failed", "function_not_found"),
    ],
)
async def test_O1_each_end_of_a_call_has_its_outcome_and_code(
    ending: str, outcome: str, code: str | None, autojump_clock: MockClock
) -> None:
    leave = trio.Event()

    async def work() -> None:
        if ending == "raises":
            raise iii_trio.CallError("disk_full", "this text is written by the handler")
        await trio.sleep_forever()

    async with open_observed() as (engine, app), trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            async with engine.open_worker("files") as files:
                files.register_function("files::work", work)
                await files.wait_registered()
                task_status.started()
                await leave.wait()

        await nursery.start(serve)
        if ending == "leaves":
            nursery.start_soon(_set_later, leave)
        with trio.move_on_after(2):
            try:
                await app.trigger("files::none" if ending == "is missing" else "files::work")
            except iii_trio.CallError:
                pass
        leave.set()
        (span,) = await spans(app)
        about = span["attributes"]
        assert about["iii.call.outcome"] == outcome
        assert about.get("error.type") == code
        assert span["status"] == ("unset" if code is None else "error")


async def _set_later(event: trio.Event) -> None:
    await trio.sleep(1)
    event.set()


async def test_O1_a_void_call_is_a_span_too(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        done = trio.Event()

        @app.function("app::note")
        async def note() -> None:
            done.set()

        await app.trigger_void("app::note")
        await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        (span,) = await spans(app)
        assert span["name"] == "call app::note" and span["attributes"]["iii.call.outcome"] == "answered"


# --- O2: the trace context


async def _headers(app: iii_trio.Worker, traceparent: str | None, baggage: str | None = None) -> list[str | None]:
    """The headers that a handler gets for those of its caller."""

    async def headers() -> list[str | None]:
        call = iii_trio.current_call()
        return [call.traceparent, call.baggage]

    registered = app.register_function("app::headers", headers)
    await app.wait_registered()
    found: list[str | None] = await app.trigger("app::headers", traceparent=traceparent, baggage=baggage)
    registered.unregister()
    return found


async def test_O2_calls_within_a_trace_stay_in_it_as_children(autojump_clock: MockClock) -> None:
    async with open_observed() as (engine, app), engine.open_worker("files") as files:

        @files.function("files::read")
        async def read() -> str | None:
            return iii_trio.current_call().traceparent

        @app.function("app::show")
        async def show() -> Any:
            return await app.trigger("files::read")

        innermost = await app.trigger("app::show", traceparent=SAMPLED)
        (root,) = await tree(app)
        assert names([root]) == [["call app::show", ["call files::read"]]]
        assert root["parent_span_id"] == PARENT
        (child,) = root["children"]
        assert innermost == f"00-{TRACE}-{child['span_id']}-01"


async def test_O2_a_call_without_a_trace_begins_one_and_its_callee_learns_of_it(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        ((given, _),) = [await _headers(app, None)]
        parent = parse_traceparent(given)
        assert parent is not None and parent.sampled
        (span,) = await spans(app)
        assert (span["trace_id"], span["span_id"]) == (parent.trace_id, parent.span_id)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0)], ids=["on", "off"])
async def test_O2_what_is_not_sampled_passes_as_it_is(sampling: Sampling, autojump_clock: MockClock) -> None:
    async with open_observed(observed(sampling=sampling)) as (_, app):
        assert await _headers(app, UNSAMPLED, "user=7,tier=gold;p=1") == [UNSAMPLED, "user=7,tier=gold;p=1"]
        assert await spans(app) == []


async def test_O2_baggage_passes_as_it_is_also_in_a_recorded_trace(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        traceparent, baggage = await _headers(app, SAMPLED, "user=7,tier=gold;p=1")
        assert baggage == "user=7,tier=gold;p=1"
        assert traceparent is not None and traceparent.startswith(f"00-{TRACE}-") and PARENT not in traceparent


async def test_O2_without_the_module_headers_pass_as_they_are(autojump_clock: MockClock) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("app") as app:
        for odd in (SAMPLED, UNSAMPLED, "odd", None):
            assert (await _headers(app, odd))[0] == odd


_hex = "0123456789abcdef"
_valid = st.builds(
    "{}-{}-{}-{}".format,
    st.text(_hex, min_size=2, max_size=2).filter(lambda version: version != "ff"),
    st.text(_hex, min_size=32, max_size=32).filter(lambda digits: digits.strip("0")),
    st.text(_hex, min_size=16, max_size=16).filter(lambda digits: digits.strip("0")),
    st.text(_hex, min_size=2, max_size=2),
)
_ODD = (
    "", "-", "00", f"00-{TRACE}-{PARENT}", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE.upper()}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{PARENT}-01-more", f" {SAMPLED}",
    f"{SAMPLED}\n", f"00-{TRACE}-{PARENT}-0x", f"00-{TRACE[:-1]}٣-{PARENT}-01", "00-" + "a" * 60_000,
)  # fmt: skip
"""Headers that W3C's Trace Context says to ignore."""


@given(_valid)
def test_O2_a_valid_traceparent_is_read(header: str) -> None:
    parent = parse_traceparent(header)
    assert parent is not None
    assert f"{header[:2]}-{parent.trace_id}-{parent.span_id}-{parent.flags:02x}" == header
    assert parent.sampled == bool(int(header[-1], 16) & 1)
    # A later version may append fields. Version 00 may not.
    assert (parse_traceparent(f"{header}-future") is None) == (header[:2] == "00")


@given(st.one_of(st.text(max_size=80), st.sampled_from(_ODD), st.text(_hex + "-", max_size=60)))
def test_O2_any_other_traceparent_is_ignored_and_begins_a_new_trace(header: str) -> None:
    parent = parse_traceparent(header)
    if header in _ODD:
        assert parent is None
    ids = iter(range(1, 1000))
    tracing = Tracing(lambda: f"00000000-0000-4000-8000-{next(ids):012x}", lambda: 0.0, lambda: 0.0)
    tracing.attach(_Nothing(), Sampling())
    span = tracing.begin("call f", header)
    if parent is None:
        assert span is not None and span.parent_span_id is None
        assert parse_traceparent(span.traceparent) == (span.trace_id, span.span_id, 1)


class _Nothing:
    def add_span(self, span: object) -> None: ...

    def add_log(self, record: object) -> None: ...

    def add_telemetry(self, kind: str, message: bytes, fields: object) -> None: ...


@pytest.mark.parametrize("odd", [odd for odd in _ODD if len(odd) < 1000], ids=repr)
async def test_O2_an_odd_traceparent_harms_no_call(odd: str, autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        given, _ = await _headers(app, odd)
        parent = parse_traceparent(given)
        # An empty header is as good as none for our own workers.
        assert parent is not None and parent.trace_id != TRACE
        (span,) = await spans(app)
        assert span["trace_id"] == parent.trace_id and span["parent_span_id"] is None


# --- O3: sampling


@given(st.floats(0, 1), st.integers(0, 5))
@settings(max_examples=60)
def test_O3_the_ratio_is_kept_closely(ratio: float, offset: int) -> None:
    sampler = Sampler(Sampling(ratio))
    for _ in range(offset):
        sampler.begins("f", "app", 0.0)
    # Also of every second call, so that no pattern of the calls falls together with the sampler's.
    taken = [sampler.begins("f", "app", 0.0) for _ in range(2000)]
    assert abs(sum(taken) - 2000 * ratio) <= 20
    assert abs(sum(taken[::2]) - 1000 * ratio) <= 20


def test_O3_the_first_rule_that_fits_replaces_the_ratio() -> None:
    rules = [SamplingRule(1.0, "orders::*", "shop"), SamplingRule(0.0, service="probe?")]
    sampler = Sampler(Sampling(0.5, rules=tuple(rules)))
    assert all(sampler.begins("orders::new", "shop", 0.0) for _ in range(50))
    assert not any(sampler.begins("orders::new", "probe1", 0.0) for _ in range(50))
    assert 20 <= sum(sampler.begins("orders::new", "probe10", 0.0) for _ in range(50)) <= 30


def test_O3_new_traces_are_bounded_by_the_second() -> None:
    sampler = Sampler(Sampling(max_traces_per_second=10))
    assert sum(sampler.begins("f", "app", 100.0) for _ in range(1000)) == 10
    assert sum(sampler.begins("f", "app", 100.0 + at / 1000) for at in range(1, 1001)) == 10
    assert sum(sampler.begins("f", "app", 500.0) for _ in range(1000)) == 10


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
async def test_O3_the_decision_of_the_caller_holds(flags: str, autojump_clock: MockClock) -> None:
    # A bound on new traces does not cut a trace that somebody else began.
    async with open_observed(observed(sampling=Sampling(0, max_traces_per_second=0.1))) as (_, app):
        for _ in range(5):
            given, _ = await _headers(app, f"00-{TRACE}-{PARENT}-{flags}")
            assert given is not None and given.endswith(f"-{flags}")
        assert len(await spans(app)) == (5 if flags in ("01", "03") else 0)


@given(st.text(_hex, min_size=32, max_size=32).filter(lambda digits: digits.strip("0")), st.floats(0, 1))
def test_O3_without_parents_a_say_each_engine_decides_alike_by_the_trace_id(trace_id: str, ratio: float) -> None:
    parent = parse_traceparent(f"00-{trace_id}-{PARENT}-01")
    assert parent is not None
    decisions = {Sampler(Sampling(ratio, parent_based=False)).follows(parent) for _ in range(3)}
    assert decisions == {int(trace_id[16:], 16) < round(ratio * 2**64)}


# --- O4: channels


async def test_O4_a_channel_is_a_child_of_the_call_that_made_it_linked_to_those_that_used_it(
    autojump_clock: MockClock,
) -> None:
    async with open_observed() as (engine, app), engine.open_worker("files") as files:

        @files.function("files::count")
        async def count(reader: iii_trio.ChannelReader) -> int:
            return len(await reader.read_all())

        @app.function("app::make")
        async def make() -> Any:
            async with app.create_channel() as channel:
                await channel.writer.send(b"12345")
                await channel.writer.send(b"678")
                await channel.writer.aclose()
                return await app.trigger("files::count", {"reader": channel.reader_ref})

        assert await app.trigger("app::make", traceparent=SAMPLED) == 8
        (root,) = await tree(app)
        assert [child["name"] for child in root["children"]] == [
            "call engine::channels::create", "channel", "call files::count"
        ]  # fmt: skip
        channel = root["children"][1]
        about = dict(map(tuple, channel["attributes"]))
        assert about.pop("iii.channel.id")
        assert about == {
            "iii.channel.owner": "app", "iii.channel.writer": "app", "iii.channel.reader": "files",
            "iii.channel.outcome": "completed", "iii.channel.items": "2", "iii.channel.bytes": "8",
            "iii.channel.peak_items": "2", "iii.channel.peak_bytes": "8",
        }  # fmt: skip
        assert [link["span_id"] for link in channel["links"]] == [root["children"][2]["span_id"]]
        assert channel["status"] == "ok"


async def test_O4_a_channel_that_was_cut_has_the_status_of_an_error_without_the_writers_words(
    autojump_clock: MockClock,
) -> None:
    async with open_observed() as (_, app):
        async with app.create_channel() as channel:
            channel.writer.abort("the password is hunter2")
            await channel.wait_outcome()
        (span,) = await spans(app)
        assert (span["name"], span["status"], span["status_description"]) == ("channel", "error", "aborted")
        assert "hunter2" not in str(span)


# --- O8: bounds


async def test_O8_the_oldest_traces_are_given_up_first_and_counted(autojump_clock: MockClock) -> None:
    async with open_observed(observed(memory_max_spans=10)) as (_, app):

        @app.function("app::note")
        async def note() -> None: ...

        for number in range(25):
            await app.trigger("app::note", traceparent=f"00-{number + 1:032x}-{PARENT}-01")
        found = await app.trigger("engine::traces::list", {"search_all_spans": True, "include_internal": True})
        assert [int(span["trace_id"], 16) for span in found["spans"]] == list(range(16, 26))
        assert found["storage"]["known_dropped_spans"] == 15
        assert found["storage"]["completeness"] == "partial"


async def test_O8_one_trace_that_never_ends_keeps_its_latest_spans(autojump_clock: MockClock) -> None:
    async with open_observed(observed(memory_bytes=20_000)) as (_, app):

        @app.function("app::note")
        async def note(number: int) -> None: ...

        for number in range(200):
            await app.trigger("app::note", {"number": number}, traceparent=SAMPLED)
        found = await app.trigger("engine::traces::list", {"search_all_spans": True, "limit": 1000})
        assert 5 <= found["total"] <= 20
        assert found["storage"]["physical_bytes"] <= 20_000
        assert found["total"] + found["storage"]["known_dropped_spans"] == 200


# --- O9: secrets


async def test_O9_payloads_error_texts_metadata_and_baggage_are_in_no_span_and_no_log(
    autojump_clock: MockClock,
) -> None:
    secret = "hunter2-5eCr3t"
    async with open_observed() as (_, app):

        @app.function("app::login")
        async def login(password: str) -> dict[str, str]:
            if password.endswith("!"):
                raise iii_trio.CallError("refused", f"wrong password {password}")
            return {"token": password}

        await app.trigger("app::login", {"password": secret}, baggage=f"session={secret}", metadata={"key": secret})
        with pytest.raises(iii_trio.CallError):
            await app.trigger("app::login", {"password": f"{secret}!"})
        with pytest.raises(iii_trio.CallError):
            await app.trigger("app::login", {"other": secret})
        found = await spans(app)
        assert len(found) == 3
        assert secret not in str(found)
        assert secret not in str(await app.trigger("engine::logs::list", {}))


# --- O13: failures of the recorder


async def test_O13_a_recorder_that_fails_disturbs_no_call(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_observed() as (engine, app):

        @app.function("app::note")
        async def note() -> int:
            return 1

        def fail(span: object) -> None:
            raise ValueError("broken")

        engine.modules["observability"].recorder.on_span.append(fail)  # type: ignore[attr-defined]
        assert [await app.trigger("app::note") for _ in range(3)] == [1, 1, 1]
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "its recorder failed" in line.getMessage() and line.exc_info is not None


async def test_looking_at_traces_records_nothing(autojump_clock: MockClock) -> None:
    async with open_observed() as (_, app):
        await app.trigger("engine::traces::list", {}, traceparent=SAMPLED)
        await app.trigger("engine::metrics::list", {}, traceparent=SAMPLED)
        assert await spans(app) == []
        assert list(walk(await tree(app))) == []


@given(st.floats(0, 1), st.none() | st.floats(0.5, 20), st.lists(st.floats(0, 0.3), max_size=60))
def test_O3_a_trace_begins_only_where_there_seemed_to_be_room(
    ratio: float, per_second: float | None, pauses: list[float]
) -> None:
    sampler, now = Sampler(Sampling(ratio, max_traces_per_second=per_second)), 0.0
    for pause in pauses:
        now += pause
        had_room = sampler.has_room(now)
        began = sampler.begins("f", "app", now)
        assert had_room or not began
        if ratio == 1:
            assert began == had_room
