"""A peer that would close at a message above 1 MiB, and lose its replies, is never sent one: who waits is told."""

from __future__ import annotations

from typing import Any

import pytest

from iii_trio.core.effects import Log
from tests.helpers.conversation import Conversation, Peer, call_id

LARGE = "x" * (1024 * 1024 + 1)


def old_python(talk: Conversation, name: str) -> Peer:
    return talk.join(name)


def node(talk: Conversation, name: str) -> Peer:
    peer = talk.connect()
    peer.register(name, runtime="node", version="0.22.1")
    peer.hears()
    return peer


def too_large(error: dict[str, Any]) -> bool:
    return error["code"] == "payload_too_large" and "takes at most 1048576" in error["message"]


def test_an_error_of_a_callee() -> None:
    talk = Conversation()
    old, new = old_python(talk, "old"), node(talk, "new")
    new.offer("f")
    for number, caller in enumerate((old, new)):
        caller.call("f", number=number)
        new.hears()
        new.answer(call_id(number), error={"code": "C", "message": "m", "stacktrace": LARGE})
    for caller in (old, new):  # it is cut to what everybody takes
        error = caller.hears()[0]["error"]
        assert (error["code"], error["message"]) == ("C", "m")
        assert error["stacktrace"][:60_000] == LARGE[:60_000] and len(error["stacktrace"]) == 65_536


def test_an_answer_of_the_engine_itself() -> None:
    talk = Conversation()
    old, new = old_python(talk, "old"), node(talk, "new")
    for number in range(30):
        new.say({"type": "registerfunction", "id": f"f{number}", "description": "x" * 50_000})
    assert too_large(old.ask("engine::functions::list", {}))
    assert len(new.ask("engine::functions::list", {})["functions"]) == 30


def test_a_binding_is_not_offered_and_its_binder_is_told() -> None:
    talk = Conversation()
    provider, binder = old_python(talk, "provider"), node(talk, "binder")
    provider.say({"type": "registertriggertype", "id": "tide"})
    binder.say({"type": "registertrigger", "id": "b", "trigger_type": "tide", "function_id": "f", "config": LARGE})
    assert not provider.hears()
    (told,) = binder.hears()
    assert (told["type"], told["id"]) == ("triggerregistrationresult", "b") and too_large(told["error"])
    assert any(isinstance(each, Log) and "the binding b of f was not offered" in each.message for each in talk.effects)
    binding = talk.hub.triggers.get("b")
    assert binding is not None and not binding.live
    other = node(talk, "other")
    other.say({"type": "registertriggertype", "id": "tide"})
    assert [frame["id"] for frame in other.hears()] == ["b"], "who can take it has it"


def test_a_refusal_of_a_binding() -> None:
    talk = Conversation()
    provider, binder = node(talk, "provider"), old_python(talk, "binder")
    provider.say({"type": "registertriggertype", "id": "tide"})
    binder.say({"type": "registertrigger", "id": "b", "trigger_type": "tide", "function_id": "f"})
    result = {"type": "triggerregistrationresult", "id": "b", "trigger_type": "tide", "function_id": "f"}
    provider.say({**result, "error": {"code": "C", "message": LARGE}})
    (told,) = binder.hears()
    assert told["error"]["code"] == "C" and len(told["error"]["message"]) == 8192


@pytest.mark.parametrize("runtime", ["node", "rust", "go", "browser"])
def test_others_take_it(runtime: str) -> None:
    talk = Conversation()
    caller, callee = node(talk, "caller"), talk.connect()
    callee.register("callee", runtime=runtime)
    callee.hears()
    callee.offer("f")
    caller.call("f", LARGE)
    assert callee.hears()[0]["data"] == LARGE
