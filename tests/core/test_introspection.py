"""The lists and descriptions of the engine: what each filter leaves out, and that it leaves out nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from iii_trio.config import FunctionFilter, RbacConfig
from iii_trio.core.access import Access, Grants
from iii_trio.wire.codes import RELAY
from tests.helpers.conversation import Conversation, Peer

FUNCTIONS = "engine::functions::list"
DESCRIBE = "engine::functions::info"
TYPES = "engine::triggers::list"
BINDINGS = "engine::registered-triggers::list"
WORKERS = "engine::workers::list"


def listed(peer: Peer, function_id: str, how: dict[str, Any] | None = None) -> list[str]:
    """The ids, or for workers the names, of a list's rows."""
    (rows,) = peer.ask(function_id, how or {}).values()
    return [row.get("function_id") if function_id == FUNCTIONS else row.get("name", row["id"]) for row in rows]


# --- functions


def library() -> Conversation:
    """Three workers that register functions in turn, so that what a filter takes and what it leaves alternate."""
    talk = Conversation()
    docks, fleet, quay = talk.join("docks"), talk.join("fleet"), talk.join("quay")
    for number in range(2):
        docks.say({"type": "registerfunction", "id": f"hidden::{number}", "metadata": {"internal": True}})
        docks.say({"type": "registerfunction", "id": f"crane::{number}", "description": "Lifts boxes"})
        fleet.say({"type": "registerfunction", "id": f"sail::{number}"})
        quay.say({"type": "registerfunction", "id": f"rope::{number}", "description": "Ties a boat"})
    return talk


ALL = ["crane::0", "crane::1", "rope::0", "rope::1", "sail::0", "sail::1"]


@pytest.mark.parametrize(
    ("how", "ids"),
    [
        ({}, ALL),
        ({"prefix": ""}, ALL),
        ({"prefix": "s"}, ["sail::0", "sail::1"]),
        ({"prefix": "crane::1"}, ["crane::1"]),
        ({"prefix": "hidden"}, []),
        ({"prefix": "hidden", "include_internal": True}, ["hidden::0", "hidden::1"]),
        ({"worker": "fleet"}, ["sail::0", "sail::1"]),
        ({"worker": ""}, []),
        ({"worker": "aaa"}, []),
        ({"worker": "zzz"}, []),
        ({"workers": ["fleet", "docks"]}, ["crane::0", "crane::1", "sail::0", "sail::1"]),
        ({"worker": "quay", "workers": ["fleet"]}, ["rope::0", "rope::1", "sail::0", "sail::1"]),
        ({"worker": "quay", "workers": []}, ["rope::0", "rope::1"]),
        ({"worker": "quay", "prefix": "sail"}, []),
        ({"search": "BOX"}, ["crane::0", "crane::1"]),
        ({"search": "boat", "worker": "docks"}, []),
        ({"search": "nothing like it"}, []),
    ],
)  # fmt: skip
def test_a_list_of_functions_has_all_that_its_filters_let_through(how: dict[str, Any], ids: list[str]) -> None:
    talk = library()
    assert listed(talk.join("asker"), FUNCTIONS, how) == ids


def test_a_guarded_session_is_listed_the_functions_that_it_may_call_and_no_others() -> None:
    talk = library()
    exposed = [FunctionFilter("sail::*"), FunctionFilter("rope::1"), FunctionFilter("engine::*")]
    ship = talk.connect(access=Access(RbacConfig(expose_functions=exposed)))
    ship.register("ship")
    assert listed(ship, FUNCTIONS) == ["rope::1", "sail::0", "sail::1"]


@pytest.mark.parametrize(
    ("function_id", "rank"),
    [("tide", 0), ("tides::next", 0), ("a::TIDE::b", 0), ("a::tide", 0), ("a::tides", 1), ("riptide", 1), ("other", 2)],
)
def test_a_search_ranks_the_start_of_an_id_and_its_segments_before_other_parts_and_the_description_last(
    function_id: str, rank: int
) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    peer.say({"type": "registerfunction", "id": function_id, "description": "of the Tide"})
    peer.say({"type": "registerfunction", "id": "zzz", "description": "the tide"})
    page = peer.ask(FUNCTIONS, {"search": "tIDe", "limit": 1})
    assert [row["function_id"] for row in page["functions"]] == [function_id]
    assert page["after"] == [rank, function_id, "default"]


def test_without_a_search_all_functions_fit_as_well() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    peer.offer("b", "a")
    assert peer.ask(FUNCTIONS, {"limit": 1})["after"] == [0, "a", "default"]
    assert peer.ask(FUNCTIONS, {"limit": 1, "search": ""})["after"] == [0, "a", "default"]


def test_as_many_as_32_functions_are_described_at_once() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    peer.offer(*(f"f{number}" for number in range(33)))
    answer = peer.ask(DESCRIBE, {"function_ids": [f"f{number}" for number in range(32)]})
    assert [row["function_id"] for row in answer["functions"]] == [f"f{number}" for number in range(32)]
    error = peer.ask(DESCRIBE, {"function_ids": [f"f{number}" for number in range(33)]})
    assert error["message"] == "too many function_ids (max 32)"


def test_what_cannot_be_described_is_an_error_in_its_row_and_the_rest_is_described() -> None:
    talk = library()
    ship = talk.connect(
        access=Access(RbacConfig(expose_functions=[FunctionFilter("sail::*"), FunctionFilter(DESCRIBE)]))
    )
    ship.register("ship")
    rows = ship.ask(DESCRIBE, {"function_ids": ["nope", "sail::0", "rope::0", "gone", "rope::1", "sail::1"]})[
        "functions"
    ]
    assert [(row["function_id"], row.get("error")) for row in rows] == [
        ("nope", "not_found"), ("sail::0", None), ("rope::0", "forbidden"), ("gone", "not_found"),
        ("rope::1", "forbidden"), ("sail::1", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("namespaces", "named", "found"),
    [
        (["default"], None, "default"),
        (["default"], "default", "default"),
        (["alpha"], None, "alpha"),
        (["zulu"], None, "zulu"),
        (["alpha"], "zulu", None),
        (["zulu"], "alpha", None),
        (["alpha", "default", "zulu"], None, "default"),
        (["alpha", "default", "zulu"], "alpha", "alpha"),
        (["alpha", "default", "zulu"], "zulu", "zulu"),
        (["alpha", "zulu"], None, None),
        (["alpha", "bravo", "zulu"], None, None),
    ],
)
@pytest.mark.parametrize("what", ["function", "worker"])
def test_a_bare_id_or_name_is_of_the_named_namespace_or_of_default_or_of_the_only_one(
    namespaces: list[str], named: str | None, found: str | None, what: str
) -> None:
    talk = Conversation()
    asker = talk.join("asker")
    for namespace in namespaces:
        talk.join("twin", namespace=namespace).offer("f")
    more = {} if named is None else {"namespace": named}
    if what == "function":
        answer = asker.ask(DESCRIBE, {"function_id": "f", **more})
    else:
        answer = asker.ask("engine::workers::info", {"name": "twin", **more})
        answer = answer.get("worker", answer)
    assert answer.get("namespace") == found
    if found is None:
        assert answer["code"] == "NOT_FOUND" and f"namespace(s): {', '.join(namespaces)}." in answer["message"]


# --- trigger types and bindings


def harbour() -> Conversation:
    """Two workers that provide trigger types in turn, and bindings of each to functions of both."""
    talk = Conversation()
    docks, fleet = talk.join("docks"), talk.join("fleet")
    for number in range(2):
        docks.offer(f"crane::{number}")
        fleet.offer(f"sail::{number}")
        docks.say({"type": "registertriggertype", "id": f"box{number}", "description": "A crate"})
        fleet.say({"type": "registertriggertype", "id": f"wind{number}", "description": "It blows"})
    for number, (kind, target) in enumerate(
        [
            ("engine::workers-available", "engine::log::info"),
            ("nobody", "crane::0"),
            ("wind0", "sail::0"),
            ("box0", "crane::0"),
            ("wind1", "elsewhere"),
            ("box1", "crane::1"),
            ("box1", "sail::0"),
            ("wind0", "engine::log::warn"),
        ]
    ):
        message = {"type": "registertrigger", "id": f"b{number}", "trigger_type": kind, "function_id": target}
        docks.say(message)
    return talk


@pytest.mark.parametrize(
    ("how", "ids"),
    [
        ({}, ["box0", "box1", "wind0", "wind1"]),
        ({"prefix": ""}, ["box0", "box1", "wind0", "wind1"]),
        ({"prefix": "wind"}, ["wind0", "wind1"]),
        ({"prefix": "wind1"}, ["wind1"]),
        ({"worker": "fleet"}, ["wind0", "wind1"]),
        ({"worker": "docks"}, ["box0", "box1"]),
        ({"worker": ""}, []),
        ({"worker": "docks", "prefix": "wind"}, []),
        ({"search": "CRATE"}, ["box0", "box1"]),
        ({"search": "0"}, ["box0", "wind0"]),
        ({"prefix": "engine::"}, []),
        (
            {"prefix": "engine::", "include_internal": True},
            ["engine::functions-available", "engine::workers-available"],
        ),
    ],
)
def test_a_list_of_trigger_types_has_all_that_its_filters_let_through(how: dict[str, Any], ids: list[str]) -> None:
    talk = harbour()
    assert listed(talk.join("asker"), TYPES, how) == ids


@pytest.mark.parametrize(
    ("how", "ids"),
    [
        ({}, ["b2", "b3", "b4", "b5", "b6"]),
        ({"include_internal": True}, ["b0", "b2", "b3", "b4", "b5", "b6", "b7"]),
        ({"include_waiting": True}, ["b1", "b2", "b3", "b4", "b5", "b6"]),
        ({"include_waiting": True, "trigger_type": "nobody"}, ["b1"]),
        ({"trigger_type": "nobody"}, []),
        ({"trigger_type": "wind0"}, ["b2"]),
        ({"trigger_type": "box1"}, ["b5", "b6"]),
        ({"trigger_type": ""}, []),
        ({"function_id": "crane::0"}, ["b3"]),
        ({"function_id": "sail::0"}, ["b2", "b6"]),
        ({"function_id": ""}, []),
        ({"worker": "docks"}, ["b3", "b5"]),
        ({"worker": "fleet"}, ["b2", "b6"]),
        ({"worker": "elsewhere"}, ["b4"]),
        ({"worker": ""}, []),
        ({"search": "WIND"}, ["b2", "b4"]),
        ({"search": "Crane"}, ["b3", "b5"]),
        ({"search": "B6"}, ["b6"]),
        ({"search": "crane", "worker": "fleet"}, []),
    ],
)
def test_a_list_of_bindings_has_all_that_its_filters_let_through(how: dict[str, Any], ids: list[str]) -> None:
    talk = harbour()
    assert listed(talk.join("asker"), BINDINGS, how) == ids


def test_a_guarded_session_is_shown_the_types_that_it_may_bind_to_and_the_bindings_whose_target_it_may_call() -> None:
    talk = harbour()
    rules = RbacConfig(expose_functions=[FunctionFilter("sail::*"), FunctionFilter("engine::*")])
    ship = talk.connect(access=Access(rules, grants=Grants(allowed_trigger_types=["wind1", "box1"])))
    ship.register("ship")
    assert listed(ship, TYPES) == ["box1", "wind1"]
    assert listed(ship, BINDINGS) == ["b2", "b6"]
    assert ship.ask("engine::triggers::info", {"id": "wind1"})["description"] == "It blows"
    assert ship.ask("engine::triggers::info", {"id": "wind0"})["code"] == "NOT_FOUND"
    assert ship.ask("engine::registered-triggers::info", {"id": "b2"})["function_id"] == "sail::0"
    assert ship.ask("engine::registered-triggers::info", {"id": "b3"})["code"] == "NOT_FOUND"
    fleet, docks = (ship.ask("engine::workers::info", {"name": name}) for name in ("fleet", "docks"))
    assert [row["id"] for row in fleet["trigger_types"]] == ["wind1"]
    assert [row["id"] for row in docks["trigger_types"]] == ["box1"]
    assert [row["function_id"] for row in fleet["functions"]] == fleet["worker"]["functions"] == ["sail::0", "sail::1"]
    assert [row["id"] for row in fleet["registered_triggers"]] == ["b2", "b6"]
    assert docks["functions"] == docks["worker"]["functions"] == docks["registered_triggers"] == []
    assert (fleet["worker"]["function_count"], docks["worker"]["function_count"]) == (2, 0)


def test_a_trigger_type_is_described_in_its_own_namespace() -> None:
    talk = Conversation()
    for namespace in ("default", "fleet"):
        peer = talk.join("peer", namespace=namespace)
        peer.say({"type": "registertriggertype", "id": "tide", "description": namespace})
    describe = "engine::triggers::info"
    assert peer.ask(describe, {"id": "tide"})["description"] == "default"
    assert peer.ask(describe, {"id": "tide", "namespace": "fleet"})["description"] == "fleet"


def test_a_binding_that_waits_is_not_described_and_metadata_is_where_there_is_some() -> None:
    talk = harbour()
    asker = talk.join("asker")
    describe = "engine::registered-triggers::info"
    assert asker.ask(describe, {"id": "b1"})["message"] == "Registered trigger 'b1' was not found."
    assert asker.ask(describe, {"id": "nope"})["message"] == "Registered trigger 'nope' was not found."
    row = asker.ask(describe, {"id": "b4"})
    assert "metadata" not in row and "config_summary" not in row and row["function"] is None


# --- workers


ELSEWHERE = {"name": "afar", "id": "w9", "description": None, "runtime": "node", "status": "connected"}


def crew() -> Conversation:
    """Workers of every kind: with and without a process id, in the engine, a relay, and one of another engine."""
    talk = Conversation()
    talk.join("browser", pid=None, runtime="browser")
    talk.join("beta", runtime="node", description="Second Letter")
    talk.join("module", pid=None, in_process=True, runtime="engine")
    talk.join("relay", features=[RELAY])
    talk.join("alpha")
    talk.join("zero", pid=0)
    talk.hub.show_workers([ELSEWHERE])
    return talk


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({}, ["afar", "alpha", "asker", "beta", "iii-engine-functions", "module", "zero"]),
        (
            {"include_internal": True},
            ["afar", "alpha", "asker", "beta", "browser", "iii-engine-functions", "module", "relay", "zero"],
        ),
        ({"runtime": "node"}, ["afar", "beta"]),
        ({"runtime": "engine"}, ["iii-engine-functions", "module"]),
        ({"runtime": ""}, []),
        ({"status": "available"}, ["iii-engine-functions", "module"]),
        ({"status": "connected"}, ["afar", "alpha", "asker", "beta", "zero"]),
        ({"status": ""}, []),
        ({"search": "ALPH"}, ["alpha"]),
        ({"search": "second"}, ["beta"]),
        ({"search": "none"}, []),
        ({"search": "w9"}, ["afar"]),
        ({"search": "e", "runtime": "python", "status": "connected"}, ["asker", "zero"]),
    ],
)
def test_a_list_of_workers_has_all_that_its_filters_let_through(how: dict[str, Any], names: list[str]) -> None:
    talk = crew()
    assert listed(talk.join("asker"), WORKERS, how) == names


def test_a_guarded_session_is_shown_the_workers_of_its_own_engine_with_the_functions_that_it_may_call() -> None:
    talk = crew()
    talk.join("docks").offer("crane::1", "rope", "crane::0")
    rules = RbacConfig(expose_functions=[FunctionFilter("crane::*"), FunctionFilter("engine::workers::*")])
    ship = talk.connect(access=Access(rules))
    ship.register("ship")
    rows = {row["name"]: row for row in ship.ask(WORKERS)["workers"]}
    assert list(rows) == ["alpha", "beta", "docks", "iii-engine-functions", "module", "ship", "zero"]
    assert rows["docks"]["functions"] == ["crane::0", "crane::1"] and rows["docks"]["function_count"] == 2
    own = rows["iii-engine-functions"]["functions"]
    assert "engine::workers::list" in own and FUNCTIONS not in own
    assert rows["iii-engine-functions"]["function_count"] == len(own)


def test_workers_without_a_name_are_sorted_by_id_among_the_names() -> None:
    talk = Conversation()
    asker = talk.join("asker")
    one, other = talk.join(), talk.join()
    rows = asker.ask(WORKERS)["workers"]
    assert [row["name"] or row["id"] for row in rows] == [one.id, other.id, "asker", "iii-engine-functions"]


@pytest.mark.parametrize(("pid", "more"), [(None, {}), (0, {"pid": 0}), (7, {"pid": 7})])
def test_a_worker_is_described_with_its_process_id_if_it_said_one(pid: int | None, more: dict[str, int]) -> None:
    talk = Conversation()
    talk.join("peer", pid=pid)
    row = talk.join("asker").ask("engine::workers::info", {"name": "peer"})["worker"]
    assert {key: row[key] for key in row if key == "pid"} == more and row["internal"] is False


def test_a_worker_of_the_engine_itself_is_described_as_an_internal_one() -> None:
    talk = Conversation()
    talk.connect(in_process=True, internal=True).register("module")
    assert talk.join("asker").ask("engine::workers::info", {"name": "module"})["worker"]["internal"] is True


def test_the_engine_is_described_like_a_worker_of_default_and_another_of_its_name_beside_it() -> None:
    talk = Conversation()
    asker = talk.join("asker")
    describe, name = "engine::workers::info", "iii-engine-functions"
    alone = asker.ask(describe, {"name": name})
    assert alone["worker"]["internal"] is True and "pid" not in alone["worker"] and "latest_metrics" not in alone
    assert [row["function_id"] for row in alone["functions"]] == alone["worker"]["functions"]
    assert [row["id"] for row in alone["trigger_types"]] == sorted(row["id"] for row in alone["trigger_types"]) != []
    assert asker.ask(describe, {"name": "iii-engine-function"})["message"] == (
        "Worker 'iii-engine-function' is not connected."
    )
    assert asker.ask(describe, {"name": "zzz"})["message"] == "Worker 'zzz' is not connected."
    talk.join(name, namespace="fleet")
    assert asker.ask(describe, {"name": name})["worker"]["id"] == talk.hub.state.id
    assert asker.ask(describe, {"name": name, "namespace": "fleet"})["worker"]["namespace"] == "fleet"
    wrong = asker.ask(describe, {"name": name, "namespace": "docks"})
    assert wrong["message"].endswith("it is connected in namespace(s): default, fleet.")


def test_a_worker_is_described_with_its_own_functions_types_and_bindings_sorted() -> None:
    talk = harbour()
    answer = talk.join("asker").ask("engine::workers::info", {"name": "docks"})
    assert [row["function_id"] for row in answer["functions"]] == ["crane::0", "crane::1"]
    assert [row["id"] for row in answer["trigger_types"]] == ["box0", "box1"]
    assert [row["id"] for row in answer["registered_triggers"]] == ["b3", "b5"]
    assert "latest_metrics" not in answer["worker"] and answer["worker"]["pid"] == 7
