"""What becomes of a call, where the golden conversations do not reach: bytes, sizes, cancelling, draining, bad input."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.effects import Deliver, HangUp, Log, PassTelemetry, Send
from iii_trio.core.hub import Hub
from iii_trio.core.routing import with_caller
from iii_trio.wire import FEATURE, LARGE_MESSAGES
from tests.helpers.conversation import Conversation, Peer, call_id, counted_ids

MIB = 1024 * 1024


def two(talk: Conversation, **of_harbour: Any) -> tuple[Peer, Peer]:
    """A callee with one function, and a caller."""
    harbour = talk.connect()
    harbour.register("harbour", **of_harbour)
    harbour.hears()
    harbour.offer("tide::next")
    return harbour, talk.join("boats")


def sent(talk: Conversation) -> bytes:
    effect = talk.effects[-1]
    assert isinstance(effect, Deliver | Send)
    return effect.message


# --- what is only forwarded is not touched


@pytest.mark.parametrize(
    "payload",
    [
        "123456789012345678901234567890",
        "1e400",
        "1.0",
        '"\\u00e9\\/"',
        "[1 , 2]",
        '{"b":1,"a":2,"b":3}',
        '"\u2028é"',
        "-0",
    ],
)
def test_payloads_are_forwarded_byte_for_byte(payload: str) -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    frame = f'{{"type":"invokefunction","invocation_id":"{call_id(1)}","function_id":"tide::next","metadata":{payload}'
    boats.say(frame + f',"data":[{payload}]}}')
    assert f'"data":[{payload}]'.encode() in sent(talk) and f'"metadata":{payload}'.encode() in sent(talk)
    harbour.say(f'{{"type":"invocationresult","invocation_id":"{call_id(1)}","result":{payload}}}')
    assert f'"result":{payload}'.encode() in sent(talk)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from([None, 1]))
def test_only_objects_are_given_their_callers_id(value: Any, indent: int | None) -> None:
    hub = Hub(EngineConfig(), counted_ids())
    session, _ = hub.connected(0.0, 0, peer=None, in_process=True)
    there = json.loads(with_caller(session, json.dumps(value, indent=indent).encode()))
    assert there == ({**value, "_caller_worker_id": session.id} if isinstance(value, dict) else value)


@pytest.mark.parametrize("empty", ["{}", "{ }", "{\n\t}"])
def test_an_empty_object_with_space_in_it_is_given_its_callers_id(empty: str) -> None:
    hub = Hub(EngineConfig(), counted_ids())
    session, _ = hub.connected(0.0, 0, peer=None, in_process=True)
    assert json.loads(with_caller(session, empty.encode())) == {"_caller_worker_id": session.id}


def test_a_callers_id_that_the_caller_made_up_does_not_last() -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    boats.call("tide::next", {"_caller_worker_id": harbour.id})
    assert harbour.hears()[0]["data"] == {"_caller_worker_id": boats.id}


# --- ids


@pytest.mark.parametrize(
    "forged", ['{"_caller_worker_id":"forged","a":1}', '{"a":1,"_caller\\u005fworker_id":"forged"}']
)
def test_a_caller_cannot_name_another_caller(forged: str) -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    call = f'"invocation_id":"{call_id(1)}","function_id":"tide::next"'
    boats.say(f'{{"type":"invokefunction",{call},"data":{forged}}}')
    (got,) = harbour.hears()
    assert got["data"] == {"a": 1, "_caller_worker_id": boats.id}


@pytest.mark.parametrize(
    "id_", ["", "1", "7d6c2c1e-7c59-4a53-9d29-2f3f5d7d2a1", "zd6c2c1e-7c59-4a53-9d29-2f3f5d7d2a10", "é" * 36]
)
def test_an_id_that_is_no_uuid_is_answered_as_such(id_: str) -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    boats.say({"type": "invokefunction", "invocation_id": id_, "function_id": "tide::next"})
    assert harbour.hears() == []
    (answer,) = boats.hears()
    assert answer["invocation_id"] == id_ and answer["error"]["code"] == "deserialization_error"


def test_an_id_that_is_under_way_is_refused_to_its_caller_and_free_for_others() -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    quay = talk.join("quay")
    quay.offer("quay::it")
    boats.call("tide::next", 1)
    boats.call("quay::it", 2)
    assert [frame["error"]["code"] for frame in boats.hears()] == ["invocation_error"]
    assert quay.hears() == []
    harbour.call("quay::it", 3)
    assert [frame["data"] for frame in quay.hears()] == [3]
    quay.answer(call_id(1), result="three")
    harbour.answer(call_id(1), result="one")
    assert [frame["result"] for frame in boats.hears()] == ["one"]
    boats.call("tide::next", 4)
    assert boats.hears() == []


@pytest.mark.parametrize("kind", ["Void", "later", ""])
def test_an_action_of_no_known_type_is_not_taken_for_a_call(kind: str) -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    boats.call("tide::next", 1, action={"type": kind})
    assert boats.hears()[0]["error"]["code"] == "deserialization_error"
    assert harbour.hears() == []


# --- no answer


def test_a_call_of_a_worker_whose_outbox_is_full_is_refused_and_forgotten() -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    talk.full.add(harbour.id)
    boats.call("tide::next")
    (answer,) = boats.hears()
    assert answer["error"]["code"] == "channel_send_failed" and "harbour" in answer["error"]["message"]
    assert not harbour.answering and not boats.made
    talk.act(talk.hub.undelivered(harbour.id, call_id(1), talk.now))
    talk.act(talk.hub.undelivered("nobody", call_id(1), talk.now))
    assert boats.hears() == []


def test_a_worker_that_calls_itself_and_leaves_leaves_nothing() -> None:
    talk = Conversation()
    harbour, _ = two(talk)
    harbour.call("tide::next")
    harbour.leave()
    assert not harbour.answering and not harbour.made


def test_C5_5_a_cancelled_call_cancels_its_handler_if_the_peer_understands_it() -> None:
    talk = Conversation()
    harbour, boats = two(talk, features=[FEATURE])
    for number in (1, 2):
        boats.call("tide::next", number=number)
    harbour.hears()
    boats.say({"type": "cancelinvocation", "invocation_id": call_id(1), "reason": "too late"})
    boats.say({"type": "cancelinvocation", "invocation_id": call_id(1)})
    assert harbour.hears() == [{"type": "cancelinvocation", "invocation_id": call_id(1), "reason": "too late"}]
    harbour.answer(call_id(1), result="late")
    assert boats.hears() == []
    boats.leave("gone fishing")
    (told,) = harbour.hears()
    assert told["invocation_id"] == call_id(2) and "gone fishing" in told["reason"]


def test_C5_5_only_its_caller_may_cancel_and_other_peers_are_not_told() -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    thief = talk.join("thief")
    boats.call("tide::next")
    harbour.hears()
    thief.say({"type": "cancelinvocation", "invocation_id": call_id(1)})
    harbour.answer(call_id(1), result=1)
    assert [frame["result"] for frame in boats.hears()] == [1]
    boats.call("tide::next")
    harbour.hears()
    boats.say({"type": "cancelinvocation", "invocation_id": call_id(1)})
    assert harbour.hears() == [] and not harbour.answering


@pytest.mark.parametrize("error", ["{}", '{"code":1,"message":"x"}', '{"code":"x"}', '"no"', "[]", "7", "true"])
def test_an_error_of_no_known_shape_is_one_that_every_sdk_can_read(error: str) -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    boats.call("tide::next")
    harbour.say(f'{{"type":"invocationresult","invocation_id":"{call_id(1)}","result":1,"error":{error}}}')
    (answer,) = boats.hears()
    assert isinstance(answer["error"]["code"], str) and isinstance(answer["error"]["message"], str)
    assert "result" not in answer


@pytest.mark.parametrize("error", ["null", "false", "0", '""'])
def test_an_error_that_sdks_take_for_none_is_none(error: str) -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    boats.call("tide::next")
    harbour.say(f'{{"type":"invocationresult","invocation_id":"{call_id(1)}","result":1,"error":{error}}}')
    assert [frame["result"] for frame in boats.hears()] == [1]


# --- sizes


@pytest.mark.parametrize(
    ("says", "takes_it"),
    [
        ({"runtime": "python"}, False),
        ({"runtime": "python", "features": [LARGE_MESSAGES]}, True),
        ({"runtime": "node"}, True),
    ],
)
def test_a_peer_that_would_close_at_a_large_message_is_not_sent_one(says: dict[str, Any], takes_it: bool) -> None:
    talk = Conversation()
    harbour, boats = two(talk, **says)
    large = "x" * MIB
    boats.call("tide::next", large)
    assert len(harbour.hears()) == takes_it
    if not takes_it:
        assert [frame["error"]["code"] for frame in boats.hears()] == ["payload_too_large"]
        assert not boats.made
    boats.offer("boats::large")
    harbour.call("boats::large")
    boats.answer(call_id(1), result=large)
    (answer,) = harbour.hears()
    assert ("result" in answer) == takes_it
    assert takes_it or answer["error"]["code"] == "payload_too_large"


# --- draining


def test_a_draining_engine_finishes_calls_and_takes_no_new_ones_but_answers_questions() -> None:
    talk = Conversation()
    harbour, boats = two(talk)
    boats.call("tide::next", number=1)
    talk.hub.drain()
    boats.call("tide::next", number=2)
    boats.call("tide::next", number=3, action={"type": "enqueue", "queue": "jobs"})
    boats.call("engine::register_trigger", {"trigger_type": "tide", "function_id": "x"}, number=4)
    harbour.answer(call_id(1), result=1)
    said = [(frame["invocation_id"], frame.get("error", {}).get("code")) for frame in boats.hears()]
    drained = [(call_id(number), "engine_draining") for number in (2, 3, 4)]
    assert said == [*drained, (call_id(1), None)]
    assert boats.ask("engine::functions::list")["functions"]


# --- whatever comes


FRAMES = st.fixed_dictionaries(
    {"type": st.sampled_from(
        ["invokefunction", "invocationresult", "registerfunction", "unregisterfunction", "registertrigger", "reattach",
         "unregistertrigger", "registertriggertype", "unregistertriggertype", "triggerregistrationresult", "ping", "pong",
         "registerservice", "cancelinvocation", "workerregistered", "channelended", "error", "nonsense"])},
    optional={
        "id": st.sampled_from(["a", "b", ""]) | JSON,
        "invocation_id": st.sampled_from([call_id(1), call_id(2), "nope", None]) | JSON,
        "function_id": st.sampled_from(
            ["a", "b", "engine::workers::register", "engine::channels::create", "engine::register_trigger",
             "engine::functions::info", "engine::workers::info", "engine::registered-triggers::list"]) | JSON,
        "trigger_type": st.sampled_from(["a", "b", "engine::workers-available", "engine::functions-available"]) | JSON,
        "data": JSON | st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["x", "y"]), "trigger_type": st.sampled_from(["a", "b"]),
                          "function_id": st.sampled_from(["a", "b"]), "pid": st.integers(), "namespace": st.none() | JSON}),
        "namespace": st.sampled_from(["default", "n", " "]) | JSON,
        "trigger_namespace": st.sampled_from(["default", "n"]),
        "action": st.sampled_from([{"type": "void"}, {"type": "enqueue", "queue": "q"}, {}, None]) | JSON,
        "error": JSON, "result": JSON, "config": JSON, "metadata": JSON, "reason": JSON, "description": JSON,
        "previous_worker_id": JSON, "invocation": JSON, "traceparent": JSON, "baggage": JSON,
    },
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 2), FRAMES), max_size=30))
def test_whatever_workers_say_harms_nobody_and_leaves_nothing(said: list[tuple[int, dict[str, Any]]]) -> None:
    talk = Conversation()
    peers = [talk.join("x"), talk.join("y", namespace="n"), talk.connect()]
    for who, frame in said:
        peers[who].say(json.dumps(frame))
        talk.wait(0.3)
    honest = talk.join("honest")
    assert honest.ask("engine::workers::info", {"name": "honest"})["worker"]["id"] == honest.id
    for peer in (*peers, honest):
        peer.leave()
    assert not talk.hub.sessions and all(function.owner is None for function in talk.hub.registry)
    assert not [binding for binding in talk.hub.triggers if binding.owner is not None]
    assert not len(talk.hub.channels)
    talk.wait(1000)
    assert talk.hub.next_due() is None
    assert not talk.hub.state.take_effects()
    assert not [effect for effect in talk.effects if isinstance(effect, HangUp) and effect.session == honest.id]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_bytes_that_are_no_message_are_a_line_in_the_log(text: bytes) -> None:
    hub = Hub(EngineConfig(), counted_ids())
    session, _ = hub.connected(0.0, 0, peer=None, in_process=True)
    effects = hub.received(session, text, 0.0)
    # Any bytes behind a name of telemetry are passed on unread.
    assert all(
        isinstance(effect, PassTelemetry if text.startswith((b"OTLP", b"MTRC", b"LOGS")) else Log) for effect in effects
    )


# --- bounds


def test_a_worker_that_answers_nothing_keeps_no_more_than_so_many_calls_and_the_oldest_is_given_up() -> None:
    talk = Conversation(EngineConfig(limits=Limits(calls_per_session=3)))
    hung, one, two = talk.join("hung"), talk.join("one"), talk.join("two")
    hung.offer("f")
    for number, caller in enumerate((one, two, one, two)):
        caller.call("f", number=number)
    (told,) = one.hears()
    assert (told["invocation_id"], told["error"]["code"]) == (call_id(0), "invocation_stopped")
    assert [*hung.answering] == [call_id(1), call_id(2), call_id(3)] and [*one.made] == [call_id(2)]
    assert any(isinstance(effect, Log) and "was given up: worker 'hung'" in effect.message for effect in talk.effects)
    hung.answer(call_id(0), result="late")
    hung.answer(call_id(2), result="in time")
    assert [frame["result"] for frame in one.hears()] == ["in time"] and not two.hears()


def test_a_caller_that_loses_patience_again_and_again_costs_itself_its_oldest_calls_only() -> None:
    talk = Conversation(EngineConfig(limits=Limits(calls_per_session=2)))
    impatient, other = talk.join("impatient"), talk.join("other")
    for name in ("a", "b", "c", "d"):
        talk.join(name).offer(name)
    other.call("d", number=100)
    for number, name in enumerate(("a", "b", "c")):
        impatient.call(name, number=number)
    assert [frame["invocation_id"] for frame in impatient.hears()] == [call_id(0)]
    assert [*impatient.made] == [call_id(1), call_id(2)] and not other.hears()


def test_void_calls_that_are_never_answered_do_not_pile_up() -> None:
    talk = Conversation(EngineConfig(limits=Limits(calls_per_session=5)))
    hung, caller = talk.join("hung"), talk.join("caller")
    hung.offer("f")
    hung.say({"type": "registertrigger", "id": "b", "trigger_type": "engine::workers-available", "function_id": "f"})
    for _ in range(50):
        caller.say({"type": "invokefunction", "function_id": "f", "action": {"type": "void"}})
        talk.join().leave()
    assert len(hung.answering) == 5 and not caller.hears()


@pytest.mark.parametrize("shared", ["callee", "caller"])
def test_a_limit_that_a_reload_lowered_holds_from_the_next_call_on(shared: str) -> None:
    talk = Conversation(EngineConfig(limits=Limits(calls_per_session=9)))
    callees = [talk.join(f"callee {number}") for number in range(6)]
    callers = [talk.join(f"caller {number}") for number in range(6)]
    for number in range(6):
        callees[number].offer(f"f{number}")
    callee, caller = (0, None) if shared == "callee" else (None, 0)

    def call(number: int) -> None:
        made_by = callers[number if caller is None else caller]
        made_by.call(f"f{number if callee is None else callee}", number=number)

    for number in range(5):
        call(number)
    talk.hub.reconfigure(EngineConfig(limits=Limits(calls_per_session=2)))
    call(5)
    kept = callees[0].answering if shared == "callee" else callers[0].made
    assert [*kept] == [call_id(4), call_id(5)]


def test_callers_are_answered_before_their_link_is_closed_by_the_engine() -> None:
    """Other SDKs go on waiting when a link is lost."""
    talk = Conversation()
    boats = two(talk)[1]
    boats.call("tide::next")
    talk.act(talk.hub.close_session(boats.session, 1012, "a restart", talk.now))
    (told,) = boats.hears()
    assert told["invocation_id"] == call_id(1) and told["error"]["code"] == "invocation_stopped"


def test_an_event_that_its_function_could_not_read_is_in_the_log() -> None:
    talk = Conversation()
    rust = talk.connect()
    rust.register("rust", runtime="rust")
    rust.offer("watch")
    metadata: Any = 1
    for _ in range(127):
        metadata = [metadata]
    rust.say({"type": "registertrigger", "id": "b", "trigger_type": "engine::workers-available",
              "function_id": "watch", "metadata": metadata})  # fmt: skip
    talk.effects.clear()
    talk.connect()
    (line,) = [effect for effect in talk.effects if isinstance(effect, Log) and "binding" in effect.fields]
    assert line.level == logging.WARNING and line.message.startswith("engine::workers-available: ")
    assert line.peer_controlled and not rust.answering


def test_the_engine_says_why_an_event_called_nobody() -> None:
    talk = Conversation()
    watch = talk.join("watch")
    for function_id in ("missing", "over_http"):
        watch.say({"type": "registertrigger", "id": function_id, "trigger_type": "engine::workers-available",
                   "function_id": function_id})  # fmt: skip
    watch.say({"type": "registerfunction", "id": "over_http", "invocation": {"url": "http://x/"}})
    talk.effects.clear()
    talk.connect()
    assert all(
        effect.peer_controlled for effect in talk.effects if isinstance(effect, Log) and "binding" in effect.fields
    )
    said = {
        effect.fields["function"]: effect.message
        for effect in talk.effects
        if isinstance(effect, Log) and "binding" in effect.fields
    }
    assert said == {
        "missing": "engine::workers-available called nobody: Function missing not found in namespace default",
        "over_http": "engine::workers-available called nobody: The function cannot be invoked: "
        "it is to be invoked over HTTP, for which this engine has no module",
    }
