"""What another engine of the mesh is told: the registrations of this engine's workers, and of nobody else."""

from __future__ import annotations

import json
from typing import Any

from iii_trio.core.exports import export_registrations
from iii_trio.wire.codes import RELAY
from tests.helpers.conversation import Conversation, Peer


def exported(talk: Conversation) -> dict[tuple[str, str], dict[str, Any]]:
    rows = list(export_registrations(talk.hub.state))
    found = {(each.kind, each.id): json.loads(each.row) for each in rows}
    assert len(found) == len(rows) and all(each.namespace == "default" for each in rows)
    return found


def register_all(peer: Peer, name: str) -> None:
    peer.say({"type": "registerfunction", "id": f"{name}::f", "description": "d", "metadata": {"m": 1}})
    peer.say({"type": "registertriggertype", "id": f"{name}::t", "description": "e", "call_request_format": {}})
    peer.say(
        {"type": "registertrigger", "id": f"{name}::b", "trigger_type": "t", "function_id": "f", "config": {"c": 1}}
    )


def test_the_registrations_of_workers_are_exported_and_those_of_modules_and_relays_are_not() -> None:
    talk = Conversation()
    worker, nameless, relay = talk.join("worker"), talk.join(), talk.join("relay", features=[RELAY])
    module = talk.connect(in_process=True, internal=True)
    module.register("module")
    for peer, name in ((worker, "worker"), (nameless, "nameless"), (relay, "relay"), (module, "module")):
        register_all(peer, name)
    worker.call("nameless::f")
    found = exported(talk)
    assert set(found) == {
        *((kind, f"{name}::{kind[0]}") for kind in ("function",) for name in ("worker", "nameless")),
        ("trigger_type", "worker::t"), ("trigger_type", "nameless::t"), ("binding", "worker::b"),
        ("binding", "nameless::b"), ("worker", worker.id), ("name", "worker"),
    }  # fmt: skip
    assert found["function", "worker::f"] == {"worker": "worker", "description": "d", "metadata": {"m": 1}}
    assert found["trigger_type", "worker::t"] == {"worker": "worker", "description": "e", "call_request_format": {}}
    assert found["binding", "worker::b"] == {
        "trigger_type": "t", "function_id": "f", "config": {"c": 1}, "trigger_namespace": None,
    }  # fmt: skip
    assert found["name", "worker"] == {"worker": worker.id}
    assert found["worker", worker.id]["name"] == "worker" and found["worker", worker.id]["active_invocations"] == 0


def test_a_worker_that_stands_by_for_a_relayed_function_is_exported_as_such() -> None:
    talk = Conversation()
    relay = talk.join("relay", features=[RELAY])
    worker, other = talk.join("worker"), talk.join("other")
    relay.offer("theirs", "alone")
    rows = {("worker", worker.id), ("worker", other.id), ("name", "worker"), ("name", "other")}
    assert exported(talk).keys() == rows
    worker.offer("theirs", "ours")
    other.offer("theirs", "ours")
    found = exported(talk)
    assert found["function", "theirs"] == {"worker": "worker", "standby": True}
    assert found["function", "ours"]["worker"] == "worker" and ("function", "alone") not in found


def test_a_row_is_that_of_the_function_as_it_was_described_last() -> None:
    talk = Conversation()
    worker = talk.join("worker")
    for description in ("one", "two"):
        worker.say({"type": "registerfunction", "id": "f", "description": description})
        assert exported(talk)["function", "f"]["description"] == description
        assert exported(talk)["function", "f"]["description"] == description


def test_the_revision_counts_the_changes_of_functions_and_of_triggers() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    register = [
        {"type": "registerfunction", "id": "f"}, {"type": "registertriggertype", "id": "t"},
        {"type": "registertrigger", "id": "b", "trigger_type": "t", "function_id": "f"},
    ]  # fmt: skip
    withdraw = [{**message, "type": f"un{message['type']}"} for message in reversed(register)]
    for message in [*register, *withdraw, *register]:
        before = talk.hub.revision
        peer.say(message)
        assert 0 < talk.hub.revision - before < 10, message
    before = talk.hub.revision
    peer.say({"type": "ping"})
    peer.call("f")
    assert talk.hub.revision == before
