"""Rings, secrets and payloads, and recordings that an engine saves."""

from __future__ import annotations

import ast
import json
import re
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, MisuseError
from iii_trio.config import FunctionFilter, RbacConfig, RecorderSettings
from iii_trio.core import routing
from iii_trio.core.access import Access
from iii_trio.core.admission import Credentials
from iii_trio.core.effects import CallEnded, Send
from iii_trio.core.hub import Hub
from iii_trio.environment import Environment
from iii_trio.recorder.causes import ends_in, last_end, last_end_of_workers, why
from iii_trio.recorder.describe import Names
from iii_trio.recorder.file_format import decode_recording
from iii_trio.recorder.recorded_hub import RecordedHub
from iii_trio.recorder.replay import Difference, Done, Replay, replay
from iii_trio.recorder.ring import Ring, entries_of
from iii_trio.tracing import Sampling
from iii_trio.triggers.observability.settings import ObservabilityConfig
from iii_trio.wire import Direction
from iii_trio.wire.codes import REQUEST_OVER
from tests.helpers.conversation import Conversation, call_id, counted_ids
from tests.helpers.recorded_world import Recorded, encoded, redactor

Clock = trio.testing.MockClock


# --- F1: the bound


def test_F1_the_oldest_inputs_give_way_and_the_ring_keeps_its_bound() -> None:
    talk = Recorded(1 << 18)
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    largest = 0
    for number in range(600):
        talk.now += 1
        talk.call(b, a, {"text": "x" * (number % 1500)}, number)
        talk.hub.flush()
        largest = max(largest, talk.hub.ring.bytes)
    assert talk.hub.ring.dropped > 2
    assert largest <= (1 << 18) + 4096  # one input more
    (oldest, *_), held = talk.hub.ring.segments, list(talk.hub.ring.segments)
    times = [entry.now for segment in held for entry in entries_of(segment.batches)]
    assert oldest.started_at > 1 and times[-1] == 600 and times == sorted(times)
    assert len(list(replay(talk.recording()))) == len(times)


def test_F1_a_message_larger_than_the_ring_is_dropped_with_what_came_before_it() -> None:
    talk = Recorded(1 << 18)
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    talk.now = 1.0
    talk.call(b, a, {"text": "x" * (1 << 19)}, 1)
    talk.now = 2.0
    talk.call(b, a, {"text": "short"}, 2)
    talk.hub.flush()
    assert talk.hub.ring.bytes < 1 << 18
    assert [step.now for step in talk.recording().steps] == [2.0, 2.0]
    list(replay(talk.recording()))


def test_F1_the_memory_counted_is_the_memory_taken() -> None:
    import tracemalloc

    talk = Recorded(1 << 22)
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    texts = [f'{{"n": {number}, "text": "{"x" * 300}"}}' for number in range(1500)]
    tracemalloc.start()
    try:
        before, counted = tracemalloc.get_traced_memory()[0], talk.hub.ring.bytes
        for number, text in enumerate(texts):
            talk.hub.received(b.session, _call_text(number, text), 1.0)
            talk.hub.received(a.session, _answer_text(number, text), 1.0)
        talk.hub.flush()
        taken, counted = tracemalloc.get_traced_memory()[0] - before, talk.hub.ring.bytes - counted
    finally:
        tracemalloc.stop()
    assert 0.5 * counted < taken < 1.1 * counted


def _call_text(number: int, data: str) -> bytes:
    return f'{{"type":"invokefunction","function_id":"f","invocation_id":"{call_id(number)}","data":{data}}}'.encode()


def _answer_text(number: int, data: str) -> bytes:
    return f'{{"type":"invocationresult","invocation_id":"{call_id(number)}","result":{data}}}'.encode()


def test_F1_a_core_that_does_not_come_to_rest_is_recorded_again_later() -> None:
    talk = Recorded(1 << 18)
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    with mock.patch("iii_trio.recorder.recorded_hub.is_quiet", lambda hub: False):
        for number in range(600):
            talk.call(b, a, {"text": "x" * 1000}, number)
            talk.hub.flush()
            assert talk.hub.ring.bytes < (1 << 18) + (1 << 16) + 8192
        assert talk.hub.fault == "the core was not at rest for the length of a ring"
        assert not talk.hub.ring.segments
    for number in range(600, 800):
        talk.now = number
        talk.call(b, a, {"text": "x" * 1000}, number)
    assert not talk.hub.fault
    assert list(replay(talk.recording()))


# --- F2: nothing else changes


def test_F2_a_recorded_hub_decides_as_another_one() -> None:
    def said(hub: Hub) -> list[Any]:
        talk = Conversation()
        talk.hub = hub
        a, b = talk.join("a"), talk.join("b")
        a.offer("f", "g")
        b.call("f", {"x": 1})
        talk.wait(1)
        a.answer(call_id(1), result=[1])
        b.ask("engine::channels::create", {}, 2)
        b.call("g", {}, 3)
        a.leave()
        talk.wait(400)
        return [repr(effect) for effect in talk.effects]

    plain = Hub(EngineConfig(), counted_ids(), version="1.2.3", started_at_ms=1)
    recorded = RecordedHub(EngineConfig(), counted_ids(), Ring(1 << 20), 0.0, version="1.2.3", started_at_ms=1)
    assert said(plain) == said(recorded)


def test_F2_the_shell_changes_the_core_by_its_inputs_only() -> None:
    engine = Path(iii_trio.__file__ or "").parent / "engine"
    changes = re.compile(r"hub\.\w+\.[\w.]+ = |session\.[a-z]\w* = ")
    assert [path.name for path in engine.glob("*.py") if changes.search(path.read_text())] == []


def test_F2_every_input_of_the_hub_is_recorded() -> None:
    """A new input has to be noted. The rest are questions, which change nothing."""
    questions = {"draining", "revision", "exports", "external_sessions", "by_secret", "next_due", "unreadable"}
    inputs = {name for name in vars(Hub) if not name.startswith("_")} - questions
    assert inputs - set(vars(RecordedHub)) == set()


# --- F3: differences


def test_F3_a_decision_that_differs_is_named() -> None:
    talk = Recorded()
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    b.call("nowhere", {})
    recording = talk.recording()
    with mock.patch.object(routing, "not_found", lambda *_: "there is none"), pytest.raises(Difference) as found:
        list(replay(recording))
    assert found.value.number == len(recording.steps)
    assert str(found.value).startswith(f"step {len(recording.steps)} (received) differs: effect 1 of 1, here Send")


def test_F3_a_call_that_goes_to_another_worker_differs_also_when_it_is_redacted() -> None:
    talk = Recorded()
    a, b, c = talk.join("a"), talk.join("b"), talk.join("c")
    a.offer("f")
    b.call("f", {"secret": "a long payload, which is redacted"})
    recording = talk.recording()
    list(replay(recording))

    real = routing.calls.deliver

    def astray(state: Any, session: Any, function: Any, *rest: Any, **more: Any) -> None:
        real(state, session, msgspec.structs.replace(function, owner=state.sessions[c.id]), *rest, **more)

    with mock.patch.object(routing.calls, "deliver", astray), pytest.raises(Difference, match="here Deliver"):
        list(replay(recording))


def test_F3_a_time_is_enough_of_a_ring() -> None:
    talk = Recorded(1 << 18)
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    for number in range(400):
        talk.now = float(number)
        talk.call(b, a, {"text": "x" * 800}, number)
    whole, part = talk.recording(), talk.recording(last_seconds=10)
    assert len(part.steps) < len(whole.steps)
    assert part.steps[0].now <= 399 - 10 and part.steps[-1].now == 399
    list(replay(part))


# --- F5 and F6: secrets and payloads

PAYLOADS = ("hunter2-in-a-payload", "hunter2-in-a-result", "hunter2-in-an-error", "hunter2-in-metadata", "hunter2-baggage",
            "hunter2-config", "hunter2-logged", "hunter2-reason", "hunter2-schema", "hunter2-deferred")  # fmt: skip


def secretive() -> tuple[Recorded, list[str]]:
    """Return a conversation full of secrets, and the keys and tokens in it."""
    talk = Recorded()
    secrets: list[str] = []
    late = talk.connect()
    late.say({"type": "registerfunction", "id": "late", "request_format": {"default": "hunter2-deferred"}})
    a, b = talk.join("a"), talk.join("b")
    guarded = talk.connect(
        access=Access(RbacConfig(auth_function_id="auth")),
        credentials=Credentials({"authorization": "Bearer shown-token"}, {"key": ["shown-key"]}, "10.0.0.9"),
    )
    assert guarded
    for peer in (a, b, late):
        secrets += [peer.session.reattach_token, peer.session.channel_secret]
    a.offer("f", "auth")
    a.say({"type": "registerfunction", "id": "g", "request_format": {"default": "hunter2-schema"}})
    a.say({"type": "registertrigger", "id": "t", "trigger_type": "cron", "function_id": "f",
           "config": {"password": "hunter2-config"}, "metadata": {"m": "hunter2-in-metadata"}})  # fmt: skip
    ref = b.ask("engine::channels::create", {}, 2)
    secrets += [ref["reader"]["access_key"], ref["writer"]["access_key"]]
    b.call("f", {"p": "hunter2-in-a-payload", "ref": ref["reader"]}, 3, metadata={"m": "hunter2-in-metadata"},
           baggage="b=hunter2-baggage")  # fmt: skip
    a.answer(call_id(3), result={"r": "hunter2-in-a-result", "ref": ref["writer"]})
    b.call("f", {}, 4)
    a.answer(call_id(4), error={"code": "oops", "message": "hunter2-in-an-error"})
    b.call("f", "hunter2-in-a-payload", 5)
    b.say({"type": "cancelinvocation", "invocation_id": call_id(5), "reason": "hunter2-reason"})
    b.call("engine::log::info", {"message": "hunter2-logged", "data": {"d": "hunter2-logged"}}, 6)
    talk.hub.attach(ref["reader"]["channel_id"], ref["reader"]["access_key"], Direction.READ, 1.0, a.session)
    talk.hub.attach(ref["reader"]["channel_id"], "a-guessed-key", Direction.WRITE, 1.0, a.session)
    b.say({"type": "reattach", "previous_worker_id": a.id, "reattach_token": "a-token-of-before"})
    b.say('{"type": "invokefunction", "function_id": "f", "data": "hunter2-in-a-payload"')
    secrets += ["shown-token", "shown-key", "a-guessed-key", "a-token-of-before"]
    talk.hub.begin_segment(2.0)
    b.call("f", {"p": "hunter2-in-a-payload"}, 7)
    return talk, secrets


@pytest.mark.parametrize("newest_only", [False, True])
@pytest.mark.parametrize("keep_payloads", [False, True])
def test_F5_no_key_and_no_token_is_in_a_recording(keep_payloads: bool, newest_only: bool) -> None:
    talk, secrets = secretive()
    recording = talk.recording(keep_payloads=keep_payloads, last_seconds=0.1 if newest_only else None)
    data = encoded(recording)
    assert [secret for secret in secrets if secret.encode() in data] == []
    list(replay(decode_recording(data)))


@pytest.mark.parametrize("keep_payloads", [False, True])
def test_F5_a_token_of_one_letter_spoils_no_recording(keep_payloads: bool) -> None:
    talk = Recorded()
    a = talk.join("a")
    a.say({"type": "reattach", "previous_worker_id": a.id, "reattach_token": "t"})
    talk.hub.attach(a.id, "s", Direction.READ, 1.0, a.session)
    a.ask("engine::workers::list", {})
    done = list(replay(decode_recording(encoded(talk.recording(keep_payloads=keep_payloads)))))
    assert b'"engine::workers::list"' in done[-1].arguments["text"]


@pytest.mark.parametrize("keep_payloads", [False, True])
def test_F3_telemetry_is_replayed_whether_or_not_it_can_be_read(keep_payloads: bool) -> None:
    talk = Recorded()
    a = talk.join("a")
    points = '{"dataPoints":[{"asDouble":1.5}]}'
    gauge = f'{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"iii.worker.cpu","gauge":{points}}}]}}]}}]}}'
    line = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"severityNumber":9,"body":{"stringValue":"hunter2"}}]}]}]}'
    texts = ['OTLP{"resourceSpans":[{"a":"hunter2"}]}', "OTLP{", f"MTRC{gauge}", "MTRC[", f"LOGS{line}", "LOGS7"]
    for text in texts:
        talk.act(talk.hub.received(a.session, text.encode(), 1.0))
    data = encoded(talk.recording(keep_payloads=keep_payloads))
    assert (b"hunter2" in data) is keep_payloads
    assert len(list(replay(decode_recording(data)))) == 2 + len(texts)


def test_F3_the_gauges_of_a_worker_are_replayed() -> None:
    talk = Recorded()
    a = talk.join("a")
    talk.hub.show_gauges(a.id, {"cpu_percent": 1.5}, 7, 1.0)
    a.ask("engine::workers::info", {"name": "a"})
    *_, done = replay(decode_recording(encoded(talk.recording())))
    assert any(b'"cpu_percent":1.5' in effect.message for effect in done.effects if isinstance(effect, Send))


def test_F5_a_secret_has_one_stand_in() -> None:
    talk, _ = secretive()
    player = Replay(talk.recording())
    channels = {channel.id: channel.read_key for channel in player.hub.channels}
    for number, step in enumerate(talk.recording().steps, 1):
        player.do(number, step)
        channels |= {channel.id: channel.read_key for channel in player.hub.channels}
    second = Replay(talk.recording(last_seconds=0.1))
    for channel in second.hub.channels:
        assert channels[channel.id] == channel.read_key


def test_F6_no_payload_is_in_a_recording_unless_it_was_asked_for() -> None:
    talk, _ = secretive()
    data = encoded(talk.recording())
    assert [payload for payload in PAYLOADS if payload.encode() in data] == []
    assert b"hunter2" not in data
    kept = encoded(talk.recording(keep_payloads=True))
    assert [payload for payload in PAYLOADS if payload.encode() not in kept] == []


SHORT = ("{}", '{"a":1}', "[]", "[1]", '""', '"a"', "7", "-1.5e9", "null", "true")
LONG = '{"a":{"b":[1,2,3,"' + "x" * 90 + '"]}}'


@pytest.mark.parametrize("payload", [*SHORT, LONG])
def test_F6_a_stand_in_has_the_kind_of_its_payload_and_its_length_where_there_is_room(payload: str) -> None:
    stand_in = bytes(redactor().payload(payload.encode()))
    value = json.loads(stand_in)
    if payload in ("{}", "[]", '""', "null"):
        assert stand_in == payload.encode()
        return
    kind = {"{": dict, "[": list}.get(payload[0], str)
    assert isinstance(value, kind) and b"~" in stand_in
    assert len(stand_in) == max(len(payload), len({"{": '{"~":0}', "[": '["~"]'}.get(payload[0], '"~"')))


def test_F6_the_same_payload_has_the_same_stand_in_and_another_key_another_one() -> None:
    from iii_trio.recorder.redaction import Redactor

    payload = b'{"name": "a text that is long enough"}'
    assert redactor().payload(payload) == redactor().payload(payload)
    assert redactor().payload(payload) != Redactor(b"another key").payload(payload)


# --- F8 and F9: files


@pytest.fixture
def engine_config(tmp_path: Path) -> Iterator[EngineConfig]:
    yield EngineConfig(
        recorder=RecorderSettings(enabled=True, directory=str(tmp_path / "recordings"), files=2), name="an engine/1"
    )


async def _at_once(function: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function()


@asynccontextmanager
async def open_recorded(config: EngineConfig) -> AsyncIterator[tuple[iii_trio.Engine, iii_trio.Worker]]:
    """Open an engine and a worker of it. Files are written without a thread, which has no virtual time."""
    environment = Environment(run_blocking=_at_once)
    async with iii_trio.open_engine(config, environment=environment) as engine, engine.open_worker("w") as worker:
        yield engine, worker


async def fault(worker: iii_trio.Worker) -> None:
    """Make the core fail at a message."""
    with mock.patch.object(routing, "_read_payload", side_effect=ZeroDivisionError):
        with pytest.raises(iii_trio.CallError):
            await worker.trigger("engine::workers::list", {})


async def test_F9_an_error_of_the_engines_own_saves_a_recording(
    engine_config: EngineConfig, tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_recorded(engine_config) as (_, worker):
        await fault(worker)
        await trio.sleep(1)
    (place,) = (tmp_path / "recordings").iterdir()
    assert place.name.startswith("an-engine-1-")
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    recording = decode_recording(place.read_bytes())
    assert recording.cause.startswith("the engine failed at a call of engine::workers::list")
    with pytest.raises(Difference, match=f"step {len(recording.steps)} "):
        list(replay(recording))  # the fault was planted, and is not here


async def test_F9_only_the_newest_recordings_are_kept(engine_config: EngineConfig, tmp_path: Path) -> None:
    async with iii_trio.open_engine(engine_config) as engine:
        recorder = engine._shell.recorder
        (tmp_path / "recordings").mkdir(exist_ok=True)  # the engine makes it as well
        (tmp_path / "recordings" / "mine.recording").write_text("not the engine's")
        for second in range(5):
            recorder._wall_clock = lambda second=second: 1_700_000_000 + second
            newest = recorder._write(recorder.copy(), "a test")
        left = sorted(each.name for each in (tmp_path / "recordings").iterdir())
    assert len(left) == 3 and newest.name in left and "mine.recording" in left


async def test_F9_an_error_that_comes_again_is_saved_once_in_a_minute(
    engine_config: EngineConfig, tmp_path: Path, autojump_clock: Clock
) -> None:
    async with open_recorded(engine_config) as (_, worker):
        for _ in range(3):
            await fault(worker)
            await trio.sleep(1)
        assert len(list((tmp_path / "recordings").iterdir())) == 1
        await trio.sleep(60)
        await fault(worker)
        await trio.sleep(1)
        assert len(list((tmp_path / "recordings").iterdir())) == 2


async def test_an_engine_without_a_recorder_says_how_to_have_one(autojump_clock: Clock) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        with pytest.raises(MisuseError, match=r"write `recorder: { enabled: true }` under `iii-trio:`"):
            await engine.recording()
        async with worker.create_channel() as channel:
            with pytest.raises(iii_trio.CallError, match=r"write `recorder: { enabled: true }` under `iii-trio:`"):
                await worker.trigger("engine::recorder::save", {"writer": channel.writer_ref})
            for payload in ({}, {"writer": channel.reader_ref}, {"writer": channel.writer_ref, "last_seconds": 0}):
                with pytest.raises(iii_trio.CallError, match=r"writer: give|last_seconds: give"):
                    await worker.trigger("engine::recorder::save", payload)


async def test_a_recording_comes_by_a_channel_and_a_reader_that_leaves_harms_nothing(autojump_clock: Clock) -> None:
    async with open_recorded(EngineConfig(recorder=RecorderSettings(enabled=True))) as (_, worker):
        async with worker.create_channel() as channel:
            await worker.trigger("engine::recorder::save", {"writer": channel.writer_ref})
        async with worker.create_channel() as channel:
            answer = await worker.trigger("engine::recorder::save", {"writer": channel.writer_ref, "last_seconds": 60})
            data = b"".join([bytes(item) async for item in channel.reader])  # type: ignore[arg-type]
    assert answer["payloads"] is False and answer["bytes"] > 1000
    assert len(list(replay(decode_recording(data)))) > 20


async def test_a_fault_of_the_recorder_ends_no_engine(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = EngineConfig(recorder=RecorderSettings(enabled=True, directory=str(tmp_path)))
    async with open_recorded(config) as (engine, worker):
        with mock.patch("iii_trio.recorder.recording.record", side_effect=ZeroDivisionError):
            async with worker.create_channel() as channel:
                await worker.trigger("engine::recorder::save", {"writer": channel.writer_ref})
                with pytest.raises(iii_trio.ChannelBroken, match="the engine failed at the recording"):
                    await channel.reader.receive()
            await fault(worker)
            await trio.sleep(1)
        assert "the recording of an error cannot be made" in caplog.text and not list((tmp_path / ".").iterdir())
        assert await engine.recording()


async def test_a_recording_that_is_not_taken_gives_way_to_the_next(autojump_clock: Clock) -> None:
    async with open_recorded(EngineConfig(recorder=RecorderSettings(enabled=True))) as (_, worker):
        async with worker.create_channel(max_bytes=1, buffer_size=1) as stuck, worker.create_channel() as next_one:
            with mock.patch("iii_trio.engine.flight_recorder._PIECE", 1000):
                await worker.trigger("engine::recorder::save", {"writer": stuck.writer_ref})
                await stuck.reader.receive()
                await worker.trigger("engine::recorder::save", {"writer": next_one.writer_ref})
                began = trio.current_time()
                assert [item async for item in next_one.reader]
                assert trio.current_time() == began + 120
                with pytest.raises(iii_trio.ChannelBroken, match="not taken within 120 s"):
                    while True:
                        await stuck.reader.receive()


def test_F1_a_fault_of_the_recorder_stops_the_recording_only() -> None:
    talk = Recorded(1 << 18)
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    with mock.patch("iii_trio.recorder.recorded_hub.take_snapshot", side_effect=ZeroDivisionError):
        for number in range(600):
            talk.now = float(number + 1)
            talk.call(b, a, {"text": "x" * 1000}, number)
        assert talk.hub.fault == "it failed: ZeroDivisionError()"
    assert talk.hub.ring.bytes <= 1 << 18


def test_a_guarded_session_saves_no_recording_unless_its_listener_exposes_it() -> None:
    def ask(*exposed: str) -> Any:
        talk = Recorded()
        rules = RbacConfig(expose_functions=tuple(map(FunctionFilter, exposed)))
        peer = talk.connect(access=Access(rules))
        peer.register("guest")
        peer.hears()
        peer.call("engine::recorder::save", {"writer": {"channel_id": "c", "access_key": "k", "direction": "write"}})
        return peer.hears()

    assert ask()[0]["error"]["code"] == "FORBIDDEN"
    assert ask("engine::recorder::save") == []  # the shell is asked


# --- F10: why


def replayed(talk: Recorded) -> tuple[list[Done], Names]:
    player = Replay(talk.recording(), watched=True)
    names = Names(player.hub)
    done = []
    for number, step in enumerate(talk.recording().steps, 1):
        done.append(player.do(number, step))
        names.update()
    return done, names


def chain(talk: Recorded, id_: str = "") -> list[str]:
    done, names = replayed(talk)
    end = last_end(done, id_)
    assert end is not None
    return [cause.text for cause in why(done, end, names, id_)]


def test_F10_the_chain_of_causes_leads_from_the_end_to_its_beginning() -> None:
    talk = Recorded()
    a, b = talk.join("a"), talk.join("b")
    ref = b.ask("engine::channels::create", {}, 2)["writer"]
    talk.hub.attach(ref["channel_id"], ref["access_key"], Direction.WRITE, 1.0, a.session)
    talk.act(talk.hub.close_session(a.session, 4000, "it sent nothing for 90 s", 2.0))
    b.ask("engine::workers::list", {}, 3)
    assert chain(talk, ref["channel_id"][:8]) == [
        f"channel {ref['channel_id']} ended as `writer_lost` (worker 'a' ({a.id}) is gone: it sent nothing for 90 s)",
        f"because the engine closes a ({a.id[:8]}) (4000): it sent nothing for 90 s",
    ]
    talk.act(talk.hub.disconnected(b.session, "it closed with 1000", 3.0))
    assert chain(talk) == [
        f"session {b.id} ended as `gone`", f"because the link of b ({b.id[:8]}) is over: it closed with 1000",
    ]  # fmt: skip


def test_F10_without_an_id_a_loss_is_told_and_not_what_was_given_up_for_it() -> None:
    talk = Recorded()
    a, b = talk.join("a"), talk.join("b")
    response, request, later = (b.ask("engine::channels::create", {}, number) for number in (1, 2, 3))
    writer = response["writer"]
    talk.hub.attach(writer["channel_id"], writer["access_key"], Direction.WRITE, talk.now, a.session)
    a.leave("the connection ended without a Close")

    def told() -> str:
        done, names = replayed(talk)
        end = last_end_of_workers(done, names)
        assert end is not None
        return ", ".join(f"{move.kind} {move.after}" for move in ends_in(end) if move.kind == "channel")

    talk.now += 0.5
    b.ask("engine::channels::end", request["reader"], 4)
    assert told() == "channel writer_lost"
    talk.now += 1
    b.ask("engine::channels::end", later["reader"], 5)
    assert told() == "channel reader_cancelled"


def test_F10_without_an_id_a_channel_that_a_request_left_over_is_not_a_failure() -> None:
    talk = Recorded()
    a, b = talk.join("a"), talk.join("b")
    given_up, body = (b.ask("engine::channels::create", {}, number)["reader"] for number in (1, 2))

    def told() -> str:
        done, names = replayed(talk)
        end = last_end_of_workers(done, names)
        assert end is not None
        return why(done, end, names)[0].text

    b.ask("engine::channels::end", {**body, "reason": REQUEST_OVER}, 3)
    assert body["channel_id"] in told(), "nothing else has ended"
    a.leave("it closed with 1000")
    talk.now += 2
    b.ask("engine::channels::end", {**given_up, "reason": "the disk is full"}, 4)
    failure = told()
    assert given_up["channel_id"] in failure and "the disk is full" in failure
    later = b.ask("engine::channels::create", {}, 5)["reader"]
    b.ask("engine::channels::end", {**later, "reason": REQUEST_OVER}, 6)
    assert told() == failure


def test_F10_a_refused_call_follows_from_the_call() -> None:
    talk = Recorded()
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    talk.full.add(a.id)
    b.call("f", {})
    first, second, third = chain(talk)
    assert first == f"call {call_id(1)} ended as `undelivered`"
    assert second == f"because the outbox of a ({a.id[:8]}) is full for the call {call_id(1)}"
    assert third == f"because b ({b.id[:8]}) sends a call of f ({call_id(1)})"


async def test_F9_a_directory_that_cannot_be_written_ends_nothing(
    tmp_path: Path, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    config = EngineConfig(recorder=RecorderSettings(enabled=True, directory=str(tmp_path / "file" / "there")))
    async with open_recorded(config) as (_, worker):
        await trio.sleep(1)
        assert "recordings of errors cannot be written" in caplog.text, "said before there is an error"
        await fault(worker)
        await trio.sleep(1)
        assert await worker.trigger("engine::workers::list", {})
    assert "the recording of an error cannot be written" in caplog.text


# --- traces


async def test_F3_spans_that_the_core_begins_are_begun_again(autojump_clock: Clock) -> None:
    config = EngineConfig(
        recorder=RecorderSettings(enabled=True),
        modules={"observability": ObservabilityConfig(sampling=Sampling(ratio=0.5), exporter="memory")},
    )
    async with open_recorded(config) as (engine, worker):

        @worker.function("f")
        async def f(n: int) -> int:
            async with worker.create_channel():
                return n

        for number in range(20):
            await worker.trigger("f", {"n": number})
        recording = decode_recording(await engine.recording())
    begun = [each for step in recording.steps for each in step.ids if each.startswith("#")]
    assert "#" in begun and any(len(each) > 1 for each in begun)
    effects = [effect for done in replay(recording) for effect in done.effects]
    assert any(isinstance(effect, CallEnded) for effect in effects)


def test_F3_the_keys_that_engine_functions_read_are_known() -> None:
    """A redacted payload keeps the values of these keys, or a stand-in where the core only passes the value on."""
    from iii_trio.recorder.redaction import _PASSED_KEYS, _READ_KEYS

    core = Path(iii_trio.__file__ or "").parent / "core"
    classes: dict[str, set[str]] = {}
    read: set[str] = set()
    for path in core.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ClassDef(name=name, bases=bases, body=body):
                    fields = {each.target.id for each in body if isinstance(each, ast.AnnAssign)}  # type: ignore[union-attr]
                    classes[name] = fields | {base.id for base in bases if isinstance(base, ast.Name)}
                case ast.Call(func=ast.Attribute(attr="read"), args=[ast.Name(id=name)]):
                    read.add(name)
    assert {"CreateChannelInput", "SaveRecordingInput"} <= read
    unknown = {}
    for name in read:
        fields = classes[name] | set().union(*(classes[base] for base in classes[name] if base in classes))
        unknown[name] = {each for each in fields if each.islower()} - _READ_KEYS - _PASSED_KEYS
    assert {name: keys for name, keys in unknown.items() if keys} == {}
