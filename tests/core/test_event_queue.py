"""The engine's own events: many listeners are told in slices, and a flood of events costs bystanders nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.config import EngineConfig, Limits
from iii_trio.core.binding import TriggerBinding
from iii_trio.core.effects import Deliver
from iii_trio.core.event_queue import SLICE_BYTES, SLICE_LISTENERS, EventQueue, Slice
from iii_trio.core.function_changes import SETTLING_SECONDS
from tests.helpers.conversation import Conversation, Peer

WORKERS = "engine::workers-available"
FUNCTIONS = "engine::functions-available"
MANY = 3 * SLICE_LISTENERS


def listen(peer: Peer, count: int, trigger_type: str = WORKERS) -> None:
    peer.offer("heard")
    for number in range(count):
        binding = {"id": f"{peer.session.id}-{number}", "trigger_type": trigger_type, "function_id": "heard"}
        peer.say({"type": "registertrigger", **binding})
    peer.hears()


def talk_with(**limits: int) -> Conversation:
    return Conversation(EngineConfig(limits=Limits(**limits)))


def delivered(talk: Conversation) -> list[Any]:
    """What was told since the last time, as payloads."""
    told = [json.loads(effect.message)["data"] for effect in talk.effects if isinstance(effect, Deliver)]
    talk.effects.clear()
    return told


def test_a_worker_has_so_many_bindings_to_an_event_and_no_more() -> None:
    talk = talk_with(event_bindings_per_session=2)
    peer, other = talk.join("peer"), talk.join("other")
    for type_ in (WORKERS, FUNCTIONS, "tide"):
        for number in range(3):
            peer.say({"type": "registertrigger", "id": f"{type_}{number}", "trigger_type": type_, "function_id": "f"})
    refused = {each["id"]: each["error"] for each in peer.hears() if each["type"] == "triggerregistrationresult"}
    assert set(refused) == {f"{WORKERS}2", f"{FUNCTIONS}2"}
    assert all(error["code"] == "registration_limit_reached" for error in refused.values())
    assert "limits.event_bindings_per_session" in refused[f"{WORKERS}2"]["message"]
    # One of its own is replaced, and one that is withdrawn makes room.
    peer.say({"type": "registertrigger", "id": f"{WORKERS}0", "trigger_type": WORKERS, "function_id": "g"})
    peer.say({"type": "unregistertrigger", "id": f"{WORKERS}1"})
    peer.say({"type": "registertrigger", "id": f"{WORKERS}2", "trigger_type": WORKERS, "function_id": "f"})
    assert not [each for each in peer.hears() if each["type"] == "triggerregistrationresult"]
    # The bound is each worker's own, and that of durable ones is one for all.
    for _ in range(2):
        assert "id" in other.ask("engine::register_trigger", {"trigger_type": WORKERS, "function_id": "f"})
    error = peer.ask("engine::register_trigger", {"trigger_type": WORKERS, "function_id": "f"})
    assert error["code"] == "registration_limit_reached"
    assert "id" in peer.ask("engine::register_trigger", {"trigger_type": "tide", "function_id": "f"})


def test_few_listeners_are_told_at_once() -> None:
    talk = talk_with(event_bindings_per_session=1000)
    listen(talk.join("listener"), SLICE_LISTENERS)
    talk.effects.clear()
    talk.connect()
    assert len(delivered(talk)) == SLICE_LISTENERS and talk.hub.next_due() != 0.0


def test_many_listeners_are_told_in_slices_all_of_them_once() -> None:
    talk = talk_with(event_bindings_per_session=1000)
    listener = talk.join("listener")
    listen(listener, MANY)
    talk.effects.clear()
    newcomer = talk.connect()
    slices = [delivered(talk)]
    while talk.hub.next_due() == 0.0:
        talk.act(talk.hub.tick(talk.now))
        slices.append(delivered(talk))
    assert [len(each) for each in slices] == [SLICE_LISTENERS] * 3
    expected = {"event": "worker_connected", "worker_id": newcomer.session.id}
    assert all(payload == expected for each in slices for payload in each)


def test_a_worker_that_came_and_went_meanwhile_is_told_to_nobody() -> None:
    talk = talk_with(event_bindings_per_session=1000)
    listen(talk.join("listener"), MANY)
    first = talk.connect()  # its event is under way
    talk.effects.clear()
    for _ in range(100):
        passing = talk.connect()
        passing.register("passing")
        passing.leave()
    talk.effects.clear()
    assert len(talk.hub.state.events) == 1
    while talk.hub.next_due() == 0.0:
        talk.act(talk.hub.tick(talk.now))
    assert {payload["worker_id"] for payload in delivered(talk)} == {first.session.id}


def test_the_functions_are_told_in_slices_of_bytes() -> None:
    talk = talk_with(event_bindings_per_session=1000)
    listener = talk.join("listener", runtime="node", version="0.25.0")
    listen(listener, 12, FUNCTIONS)
    talk.wait(1)
    for number in range(4):
        listener.say({"type": "registerfunction", "id": f"f{number}", "description": "x" * 60_000})
    talk.effects.clear()
    talk.now += 1
    sizes = []
    while True:
        talk.act(talk.hub.tick(talk.now))
        sizes.append(len(delivered(talk)))
        if talk.hub.next_due() != 0.0:
            break
    assert sum(sizes) == 12 and max(sizes) == SLICE_BYTES // 240_000 + 1


NAMES = ("worker_connected", "worker_metadata_updated", "worker_disconnected")


@given(st.lists(st.tuples(st.sampled_from(["bind", "unbind", "event", "take"]), st.integers(0, 5)), max_size=60))
def test_each_listener_hears_a_history_that_could_have_been(steps: list[tuple[str, int]]) -> None:
    """A listener's last word about a worker is the truth, and of a worker that is gone it heard all or nothing."""
    queue, bindings, number = EventQueue(), dict[str, TriggerBinding](), 0
    life: dict[str, int] = {}
    heard: dict[str, list[tuple[str, str]]] = {}
    since: dict[str, dict[str, int]] = {}

    def take() -> None:
        told = queue.next_worker_event(sorted(bindings.values(), key=lambda each: each.number))
        if told is not None and told[1] in heard:
            heard[told[1]].append((told[0].worker_id, told[0].name))

    for step, value in steps:
        if step == "bind":
            number += 1
            id_ = f"b{number}"
            binding = TriggerBinding(id_, WORKERS, "f", *5 * [None], owner=None, number=number)  # type: ignore[arg-type]
            bindings[id_], heard[id_], since[id_] = binding, [], dict(life)
        elif step == "unbind" and bindings:
            gone = sorted(bindings)[value % len(bindings)]
            del bindings[gone], heard[gone], since[gone]
        elif step == "event" and bindings:
            worker = f"w{value}"
            stage = life.get(worker, -1) + 1
            if stage < 3:
                life[worker] = stage
                queue.add_worker_event(NAMES[stage], worker, number)
        elif step == "take":
            take()
    while queue:
        take()
    for id_, told in heard.items():
        for worker, stage in life.items():
            names = [name for about, name in told if about == worker]
            missed = since[id_].get(worker, -1)
            everything = list(NAMES[missed + 1 : stage + 1])
            # It came and went, or a state of it was overtaken by its end, before the listener was told.
            joined = [name for name in everything if name != "worker_metadata_updated"]
            allowed = [everything, joined] + ([[]] if stage == 2 and missed == -1 else [])
            assert names in allowed, (id_, worker, names, allowed)
    assert not queue and not queue._waiting


def test_two_changes_of_a_worker_that_wait_are_one_event_for_all_listeners() -> None:
    queue = EventQueue()
    queue.add_worker_event("worker_metadata_updated", "w", 1)
    queue.add_worker_event("worker_metadata_updated", "w", 2)
    bindings = [TriggerBinding(f"b{each}", WORKERS, "f", *5 * [None], owner=None, number=each) for each in (1, 2)]  # type: ignore[arg-type]
    told = [queue.next_worker_event(bindings) for _ in range(3)]
    assert [each and each[1] for each in told] == ["b1", "b2", None]


def binding(number: int) -> TriggerBinding:
    return TriggerBinding(f"b{number}", WORKERS, "f", *5 * [None], owner=None, number=number)  # type: ignore[arg-type]


def test_a_listener_that_came_between_a_workers_coming_and_its_change_is_told_of_its_end() -> None:
    queue = EventQueue()
    queue.add_worker_event("worker_connected", "w", 1)
    queue.add_worker_event("worker_metadata_updated", "w", 2)
    queue.add_worker_event("worker_disconnected", "w", 2)
    told = [queue.next_worker_event([binding(1), binding(2)]) for _ in range(2)]
    assert [each and (each[0].name, each[1]) for each in told] == [("worker_disconnected", "b2"), None]


def test_an_idle_queue_holds_nothing() -> None:
    queue = EventQueue()
    for number in range(10_000):
        queue.add_worker_event("worker_connected", f"w{number}", 1)
        queue.add_worker_event("worker_metadata_updated", f"w{number}", 1)
        queue.add_worker_event("worker_disconnected", f"w{number}", 1)
    assert not queue and not queue._waiting and len(queue) == 0


@pytest.mark.parametrize("changes", [1, 2])
def test_the_event_about_functions_is_made_once_for_each_change(changes: int) -> None:
    queue, made = EventQueue(), []
    for change in range(changes):
        for _ in range(3):
            queue.functions_event(change, lambda: made.append(1) or b"x")  # type: ignore[func-returns-value]
    assert len(made) == changes


@pytest.mark.parametrize("changes", [0, 1, 2])
@pytest.mark.parametrize("told_before", [False, True])
def test_the_event_about_functions_is_made_whatever_the_number_of_changes(changes: int, told_before: bool) -> None:
    queue = EventQueue()
    if told_before:
        assert queue.functions_event(changes, lambda: b"before") == b"before"
        assert queue.next_function_listener() is None
    assert queue.functions_event(changes, lambda: b"now") == b"now"


def test_a_step_tells_256_listeners_or_1_mib() -> None:
    for size, told in ((0, 256), (4096, 256), (4097, 256), (1_048_575, 2), (1_048_576, 1), (1_048_577, 1)):
        left, count = Slice(), 0
        while left:
            left.take(size)
            count += 1
        assert count == told, size


def test_a_step_that_told_more_than_it_may_has_nothing_left() -> None:
    left = Slice()
    for _ in range(SLICE_LISTENERS + 1):
        left.take(0)
    assert not left


def test_changes_of_the_functions_settle_for_a_tenth_of_a_second() -> None:
    assert SETTLING_SECONDS == 0.1
