"""The ledger of functions and names against a model: a line of owners for each id, and a holder for each name."""

from __future__ import annotations

import random

import pytest

from iii_trio.core.function_changes import SETTLING_SECONDS, FunctionChanges
from iii_trio.core.registry import MAX_STANDBYS, Function, FunctionState, Registry
from iii_trio.core.session import WorkerSession
from tests.helpers.conversation import Conversation

Key = tuple[str, str]
KEYS = [(namespace, function_id) for namespace in ("attic", "default", "fleet") for function_id in "ab"]


def sessions(count: int) -> list[WorkerSession]:
    talk = Conversation()
    return [talk.connect().session for _ in range(count)]


def keys_of(registry: Registry) -> frozenset[Key]:
    return frozenset((function.namespace, function.id) for function in registry)


class Model:
    """Plays random registrations, and says after each what the registry has to hold."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.registry = Registry()
        self.workers = sessions(4)
        self.lines: dict[Key, list[Function]] = {}
        self.names: dict[Key, WorkerSession] = {}

    def register(self, key: Key, owner: WorkerSession) -> None:
        function = Function(*key, owner, size=self.rng.randrange(1, 9))
        line = self.lines.setdefault(key, [])
        place = next((at for at, one in enumerate(line) if one.owner is owner), len(line))
        taken = self.registry.add(function)
        assert taken is (line[0] if place else None)
        if taken is not None:
            assert self.registry.add_standby(function)
        line[place : place + 1] = [function]

    def remove(self, key: Key, owner: WorkerSession) -> None:
        line = self.lines.get(key, [])
        was_first = bool(line) and line[0].owner is owner
        line[:] = [one for one in line if one.owner is not owner]
        assert self.registry.remove(*key, owner) is (line[0] if was_first and line else None)

    def leave(self, owner: WorkerSession) -> None:
        promoted = []
        for key in sorted(self.lines):
            line = self.lines[key]
            if line and line[0].owner is owner and len(line) > 1:
                promoted.append(line[1])
            line[:] = [one for one in line if one.owner is not owner]
        self.names = {key: holder for key, holder in self.names.items() if holder is not owner}
        assert self.registry.remove_all_of(owner) == promoted

    def claim(self, key: Key, owner: WorkerSession) -> None:
        holder = self.names.get(key)
        assert self.registry.claim_name(*key, owner) is (holder if holder is not owner else None)
        if holder is None:
            self.names = {each: one for each, one in self.names.items() if one is not owner} | {key: owner}

    def step(self) -> None:
        before, held = self.registry.revision, self.view()
        keys, first = keys_of(self.registry), {key: line[:1] for key, line in self.lines.items()}
        changes = self.registry.changes
        owner, key = self.rng.choice(self.workers), self.rng.choice(KEYS)
        what = self.rng.choice(["register"] * 5 + ["remove"] * 3 + ["claim"] * 2 + ["leave", "release"])
        match what:
            case "leave":
                self.leave(owner)
            case "release":
                self.registry.release_name(owner)
                self.names = {each: one for each, one in self.names.items() if one is not owner}
            case _:
                getattr(self, what)(key, owner)
        assert self.registry.revision > before or self.view() == held
        assert self.registry.changes > changes or keys_of(self.registry) == keys
        gone = {each for each, one in first.items() if one and one[0].state.current is FunctionState.REMOVED}
        replaced = {each for each in gone if self.lines[each] and self.lines[each][0].owner is first[each][0].owner}
        assert gone - replaced - {key} <= self.registry.gone

    def view(self) -> object:
        return {key: list(line) for key, line in self.lines.items() if line}, dict(self.names)

    def check(self) -> None:
        registry, lines = self.registry, {key: line for key, line in self.lines.items() if line}
        assert keys_of(registry) == lines.keys() and len(registry) == len(lines) == len(list(registry))
        for key in KEYS:
            line = lines.get(key, [])
            found = registry.find(*key)
            assert found is (line[0] if line else None)
            if found is not None:
                assert registry.standbys(found) == line[1:]
                assert [one.state.current for one in line[:1]] == [FunctionState.ACTIVE]
                assert all(one.state.current is FunctionState.STANDBY for one in line[1:])
            assert registry.worker(*key) is self.names.get(key)
            assert registry.namespaces_of(key[1]) == sorted(each[0] for each in lines if each[1] == key[1])
            assert registry.namespaces_of_worker(key[1]) == sorted(each[0] for each in self.names if each[1] == key[1])
        for worker in self.workers:
            active = [line[0] for key, line in sorted(lines.items()) if line[0].owner is worker]
            waiting = [one for line in lines.values() for one in line[1:] if one.owner is worker]
            assert registry.owned_by(worker) == active
            assert worker.functions == {(one.namespace, one.id) for one in active}
            assert worker.standbys == {(one.namespace, one.id) for one in waiting}
            assert worker.registration_bytes == sum(one.size for one in active + waiting)
            assert [worker.lease] == ([key for key, holder in self.names.items() if holder is worker] or [None])
        same = Registry()
        for key in lines:
            same.add(Function(*key, None))
        assert registry.fingerprint == same.fingerprint, "it depends on the set alone"
        assert set(registry._standbys) == {key for key, line in lines.items() if len(line) > 1}


@pytest.mark.parametrize("seed", range(8))
def test_the_ledger_holds_what_the_model_holds(seed: int) -> None:
    model = Model(seed)
    for _ in range(150):
        model.step()
        model.check()


def test_the_engines_own_functions_are_listed_in_order_and_belong_to_nobody() -> None:
    registry = Registry()
    (worker,) = sessions(1)
    for namespace, function_id in [("b", "x"), ("a", "z"), ("a", "y")]:
        assert registry.add(Function(namespace, function_id, None)) is None
    registry.add(Function("a", "own", worker))
    assert [(one.namespace, one.id) for one in registry.owned_by(None)] == [("a", "y"), ("a", "z"), ("b", "x")]


def test_a_function_has_at_most_64_standbys_of_which_each_may_describe_itself_again() -> None:
    registry = Registry()
    workers = sessions(66)
    functions = [Function("default", "f", worker) for worker in workers]
    assert MAX_STANDBYS == 64 and registry.add(functions[0]) is None
    assert [registry.add_standby(function) for function in functions[1:]] == [True] * 64 + [False]
    again = Function("default", "f", workers[3])
    assert registry.add_standby(again) and registry.standbys(functions[0])[2] is again
    assert functions[3].state.current is FunctionState.REMOVED


# --- listeners of the functions


class Listener:
    """A binding, as the listeners' ledger looks at it."""

    def __init__(self, id_: str, owner: WorkerSession | None) -> None:
        self.id, self.owner = id_, owner


@pytest.mark.parametrize("seed", range(12))
def test_a_listener_is_told_when_the_functions_differ_from_those_it_was_last_told_of(seed: int) -> None:
    rng = random.Random(seed)
    registry, workers = Registry(), sessions(2)
    changes = FunctionChanges(registry)
    told: dict[str, frozenset[Key] | None] = {}
    remembered: dict[str, frozenset[Key] | None] = {}
    now, due, came_back, seen = 0.0, None, False, 0

    def settle() -> None:
        nonlocal due
        due = now + SETTLING_SECONDS if due is None else due

    for _ in range(300):
        now += rng.choice([0.0, 0.04, 0.2])
        key, name = rng.choice(KEYS), rng.choice("xyz")
        match rng.randrange(6):
            case 0:
                registry.add(Function(*key, workers[0]))
            case 1:
                registry.remove(*key, workers[0])
            case 2:
                owner = rng.choice([None, *workers])
                changes.bound(Listener(name, owner), now)  # type: ignore[arg-type]
                if name not in told:
                    new = None if owner is not None and owner.functions else keys_of(registry)
                    told[name] = remembered.pop(name) if name in remembered else new
                if told[name] != keys_of(registry):
                    settle()
            case 3:
                changes.unbound(name)
                told.pop(name, None)
            case 4:
                changes.lost([name])
                if name in told:
                    remembered[name] = told.pop(name)
            case 5 if due is not None and now >= due:
                came_back = bool(registry.gone & keys_of(registry))
                expected = {each for each, of in told.items() if came_back or of != keys_of(registry)}
                assert changes.take_untold(due - 0.001) == set(), "it is not due yet"
                assert changes.take_untold(now) == expected and not registry.gone
                told.update(dict.fromkeys(expected, keys_of(registry)))
                due = None
        changes.check(now)
        if not told:
            due = None
        elif registry.changes != seen:
            settle()
        seen = registry.changes
        assert changes.next_due() == due


def test_the_listeners_that_were_lost_last_are_remembered() -> None:
    registry = Registry()
    changes = FunctionChanges(registry)
    for number in range(4097):
        changes.bound(Listener(str(number), None), 0.0)  # type: ignore[arg-type]
    registry.add(Function("default", "f", sessions(1)[0]))
    changes.lost(str(number) for number in range(4097))
    # A listener that is remembered was told of no function, and is told. One that is forgotten is new.
    for name, is_due in (("0", False), ("1", True)):
        changes.bound(Listener(name, None), 5.0)  # type: ignore[arg-type]
        assert (changes.next_due() is not None) is is_due
