"""Answers as SDKs read them: errors of odd shapes, answers that are too large, and questions to the shell."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from iii_trio.core.effects import AskStatistics
from iii_trio.core.replies import error_text, is_error, read_error
from iii_trio.wire import FEATURE
from tests.helpers.conversation import Conversation, Peer, call_id


def python_peer(talk: Conversation) -> Peer:
    return talk.join("old", runtime="python", version="0.20.0")


@pytest.mark.parametrize("length", [150, 200, 300])
def test_an_error_of_no_known_shape_is_quoted_up_to_200_characters(length: int) -> None:
    body = json.dumps("x" * length).encode()
    _, error = read_error(Raw(body))
    quoted = body.decode()[:200]
    assert error.message == f"The worker answered with an error of no known shape: {quoted}"
    assert error.code == "invocation_failed"


@pytest.mark.parametrize(("body", "error"), [(b"", False), (b"null", False), (b"{}", True), (b'"text"', True)])
def test_a_result_has_an_error_unless_it_is_absent_or_null(body: bytes, error: bool) -> None:
    assert is_error(Raw(body)) is error


@pytest.mark.parametrize("size", [900_000, 1_048_000, 1_048_577, 3_000_000])
def test_an_error_that_is_too_large_for_its_receiver_is_replaced_by_one_that_says_so(size: int) -> None:
    session = python_peer(Conversation()).session
    body = json.dumps({"code": "c", "message": "x" * size}).encode()
    text = error_text(session, call_id(1), "f", body, None, None)
    error = json.loads(text)["error"]
    assert len(text) <= 1_048_576
    assert error["code"] == ("c" if size <= 1_048_000 else "payload_too_large")


def test_an_error_whose_ids_alone_are_too_large_is_sent_nevertheless() -> None:
    session = python_peer(Conversation()).session
    for body in (b'{"code":"c","message":"m"}', json.dumps({"code": "c", "message": "x" * 2000}).encode()):
        text = error_text(session, call_id(1), "f" * 1_100_000, body, None, None)
        error = json.loads(text)["error"]
        assert error["code"] == ("c" if len(body) < 100 else "payload_too_large")


def test_each_question_to_the_shell_has_an_answer_of_its_own() -> None:
    talk = Conversation()
    peers = [talk.join("one"), talk.join("two")]
    asked = []
    for peer in peers:
        call = {"type": "invokefunction", "function_id": "engine::statistics", "invocation_id": call_id(1), "data": {}}
        effects = talk.hub.received(peer.session, json.dumps(call).encode(), talk.now)
        asked += [effect.question for effect in effects if isinstance(effect, AskStatistics)]
    assert len(set(asked)) == 2
    for number, question in reversed(list(enumerate(asked))):
        talk.act(talk.hub.statistics_known(question, {"number": number}))
        talk.act(talk.hub.statistics_known(question, {"number": 9}))
    assert [[frame["result"] for frame in peer.hears()] for peer in peers] == [[{"number": 0}], [{"number": 1}]]


@pytest.mark.parametrize("features", [[FEATURE], []])
@pytest.mark.parametrize("leaves", [True, False])
def test_a_provider_that_understands_it_is_told_whether_a_binding_was_withdrawn_or_its_worker_is_gone(
    features: list[str], leaves: bool
) -> None:
    talk = Conversation()
    provider, owner = talk.connect(), talk.join("owner")
    provider.register("provider", features=features)
    provider.say({"type": "registertriggertype", "id": "tide"})
    owner.say({"type": "registertrigger", "id": "b", "trigger_type": "tide", "function_id": "f"})
    provider.hears()
    if leaves:
        owner.leave()
    else:
        owner.say({"type": "unregistertrigger", "id": "b"})
    gone = {"owner_gone": True} if leaves and features else {}
    assert provider.hears() == [{"type": "unregistertrigger", "id": "b", "trigger_type": "tide", **gone}]
