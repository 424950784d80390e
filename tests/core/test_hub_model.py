"""The hub against a model: two dictionaries, of who owns which function, and of which calls wait for whom.

The model says who *may* do a thing, not only what then holds: who may answer, who gets a call, who is refused.
"""

from __future__ import annotations

import itertools
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from iii_trio.core.binding import BindingState
from iii_trio.core.hub import Hub
from tests.helpers.conversation import Conversation, Peer, call_id

NAMESPACES = st.sampled_from(["default", "fleet"])
NAMES = st.sampled_from(["one", "two"])
FUNCTIONS = st.sampled_from(["tide::next", "tide::last"])
TYPES = st.sampled_from(["tide", "ebb"])
BINDINGS = st.sampled_from(["b1", "b2", "b3"])


@attrs.define
class Waiting:
    """A call that some callee has."""

    caller: str | None
    callee: str
    function_id: str
    id: str


@attrs.define
class Bound:
    """A binding that somebody asked for."""

    owner: str | None
    type: str
    home: str
    refused_by: tuple[str, str] | None = None


class HubModel(RuleBasedStateMachine):
    """Workers come, register, call, answer, bind, refuse and go, in any order."""

    peers = Bundle("peers")

    @initialize()
    def start(self) -> None:
        self.talk = Conversation()
        self.numbers = itertools.count(1)
        self.present: dict[str, str] = {}  # session → namespace
        self.names: dict[tuple[str, str], str] = {}
        self.functions: dict[tuple[str, str], str] = {}
        self.standbys: dict[tuple[str, str], list[str]] = {}
        self.calls: dict[str, Waiting] = {}
        self.answered: dict[str, int] = {}
        self.providers: dict[tuple[str, str], str] = {}
        self.bindings: dict[str, Bound] = {}

    # --- coming and going

    @rule(target=peers, name=NAMES, namespace=NAMESPACES)
    def join(self, name: str, namespace: str) -> Peer:
        peer = self.talk.connect()
        assert [frame["type"] for frame in peer.hears()] == ["workerregistered"]
        peer.offer("early::registered")
        answer = None
        peer.call("engine::workers::register", {"name": name, "namespace": namespace}, number=next(self.numbers))
        heard = peer.hears()
        answer = heard[-1] if heard[-1]["type"] == "invocationresult" else heard[0]
        if (namespace, name) in self.names:
            assert answer["result"] == {"success": False}
            assert heard[0]["type"] == "registrationrejected"
            assert heard[0]["owner_worker_id"] == self.names[namespace, name]
            assert peer.id in self.talk.hung_up and peer.id not in self.talk.hub.sessions
        else:
            assert answer["result"] == {"success": True}
            self.present[peer.id] = namespace
            self.names[namespace, name] = peer.id
            taken = (namespace, "early::registered") in self.functions
            assert [frame["type"] for frame in heard[:-1]] == ["registrationrejected"] * taken
            self._offered((namespace, "early::registered"), peer)
        return peer

    @rule(peer=consumes(peers))
    def leave(self, peer: Peer) -> None:
        peer.leave()
        peer.leave("a second time")
        self._gone(peer)

    @rule(peer=peers)
    def come_back(self, peer: Peer) -> None:
        """A second connection with the token of the first retires it; with another token it does not."""
        again = self.talk.connect()
        again.hears()
        frame = {"type": "reattach", "previous_worker_id": peer.id, "reattach_token": "wrong"}
        again.say(frame)
        assert (peer.id in self.talk.hub.sessions) == (peer.id in self.present)
        again.say({**frame, "reattach_token": peer.session.reattach_token})
        assert peer.id not in self.talk.hub.sessions
        self._gone(peer)
        again.leave()

    def _gone(self, peer: Peer) -> None:
        if self.present.pop(peer.id, None) is None:
            return
        for table in (self.names, self.providers):
            for key in [key for key, owner in table.items() if owner == peer.id]:
                del table[key]
        for waiting in self.standbys.values():
            if peer.id in waiting:
                waiting.remove(peer.id)
        for key in [key for key, owner in self.functions.items() if owner == peer.id]:
            self._freed(key)
        for id_, call in list(self.calls.items()):
            if peer.id in (call.caller, call.callee):
                del self.calls[id_]
                if call.callee == peer.id and call.caller is not None and call.caller != peer.id:
                    self._hears_error(call, "invocation_stopped")
        for binding_id in [id_ for id_, bound in self.bindings.items() if bound.owner == peer.id]:
            del self.bindings[binding_id]

    # --- functions

    @rule(peer=peers, function_id=FUNCTIONS)
    def offer(self, peer: Peer, function_id: str) -> None:
        namespace = self.present.get(peer.id)
        peer.hears()
        peer.offer(function_id)
        heard = [frame for frame in peer.hears() if frame["type"] == "registrationrejected"]
        if namespace is None:
            assert not heard
            return
        owner = self._offered((namespace, function_id), peer)
        assert [frame["owner_worker_id"] for frame in heard] == ([] if owner == peer.id else [owner])

    @rule(peer=peers, function_id=FUNCTIONS)
    def withdraw(self, peer: Peer, function_id: str) -> None:
        peer.say({"type": "unregisterfunction", "id": function_id})
        key = (self.present.get(peer.id, ""), function_id)
        if self.functions.get(key) == peer.id:
            self._freed(key)
        elif peer.id in self.standbys.get(key, []):
            self.standbys[key].remove(peer.id)

    def _offered(self, key: tuple[str, str], peer: Peer) -> str:
        """Let a worker have a function, or stand by for it. Return the worker that has it."""
        owner = self.functions.setdefault(key, peer.id)
        waiting = self.standbys.setdefault(key, [])
        if owner != peer.id and peer.id not in waiting:
            waiting.append(peer.id)
        return owner

    def _freed(self, key: tuple[str, str]) -> None:
        """Give a function to its first standby, if there is one."""
        del self.functions[key]
        if self.standbys.get(key):
            self.functions[key] = self.standbys[key].pop(0)

    # --- calls

    @rule(peer=peers, function_id=FUNCTIONS, namespace=NAMESPACES, void=st.booleans(), full=st.booleans())
    def call(self, peer: Peer, function_id: str, namespace: str, void: bool, full: bool) -> None:
        id_ = call_id(next(self.numbers))
        frame = {"type": "invokefunction", "function_id": function_id, "namespace": namespace, "data": 1}
        owner = self.functions.get((namespace, function_id))
        if full and owner is not None:
            self.talk.full.add(owner)
        for other in self.talk.peers.values():
            other.hears()
        peer.say(frame if void else {**frame, "invocation_id": id_})
        self.talk.full.clear()
        if peer.id not in self.present:
            assert not peer.hears()
        elif owner is None or full:
            said = [(frame["invocation_id"], frame["error"]["code"]) for frame in peer.hears()]
            code = "function_not_found" if owner is None else "channel_send_failed"
            assert said == ([] if void else [(id_, code)])
            if not void:
                self.answered[id_] = 1
        else:
            heard = self.talk.peers[owner].hears()
            assert [frame["type"] for frame in heard] == ["invokefunction"]
            given = heard[0]["invocation_id"]
            assert void or given == id_
            self.calls[given] = Waiting(None if void else peer.id, owner, function_id, given)

    @precondition(lambda self: self.calls)
    @rule(peer=peers, data=st.data(), good=st.booleans())
    def answer(self, peer: Peer, data: st.DataObject, good: bool) -> None:
        """Anybody says it has the answer; only its callee has."""
        call = self.calls[data.draw(st.sampled_from(sorted(self.calls)))]
        caller = self.talk.peers[call.caller] if call.caller is not None else None
        before = self._answers(call)
        peer.answer(call.id, **({"result": 7} if good else {"error": {"code": "mine", "message": "no"}}))
        after = self._answers(call)
        if peer.id == call.callee:
            del self.calls[call.id]
            assert len(after) - len(before) == (caller is not None)
            if caller is not None:
                assert after[-1].get("result") == (7 if good else None)
                self.answered[call.id] = self.answered.get(call.id, 0) + 1
        else:
            assert after == before

    def _answers(self, call: Waiting) -> list[dict[str, Any]]:
        inbox = self.talk.peers[call.caller].inbox if call.caller is not None else []
        return [frame for frame in inbox if frame.get("invocation_id") == call.id and "data" not in frame]

    def _hears_error(self, call: Waiting, code: str) -> None:
        answers = self._answers(call)
        assert [frame["error"]["code"] for frame in answers] == [code]
        self.answered[call.id] = self.answered.get(call.id, 0) + 1

    # --- bindings

    @rule(peer=peers, type_=TYPES)
    def provide(self, peer: Peer, type_: str) -> None:
        peer.say({"type": "registertriggertype", "id": type_, "description": ""})
        namespace = self.present.get(peer.id)
        if namespace is None:
            return
        key = (namespace, type_)
        self.providers[key] = peer.id
        for bound in self.bindings.values():
            if bound.refused_by == key or self._provider(bound) == key:
                bound.refused_by = None

    @rule(peer=peers, type_=TYPES)
    def stop_providing(self, peer: Peer, type_: str) -> None:
        peer.say({"type": "unregistertriggertype", "id": type_})
        key = (self.present.get(peer.id, ""), type_)
        if self.providers.get(key) == peer.id:
            del self.providers[key]

    @rule(peer=peers, binding_id=BINDINGS, type_=TYPES)
    def bind(self, peer: Peer, binding_id: str, type_: str) -> None:
        peer.say({"type": "registertrigger", "id": binding_id, "trigger_type": type_, "function_id": "tide::next"})
        if peer.id in self.present:
            self.bindings[binding_id] = Bound(peer.id, type_, self.present[peer.id])

    @rule(peer=peers, binding_id=BINDINGS)
    def unbind(self, peer: Peer, binding_id: str) -> None:
        peer.say({"type": "unregistertrigger", "id": binding_id})
        if peer.id in self.present:
            self.bindings.pop(binding_id, None)

    @rule(peer=peers, binding_id=BINDINGS, refused=st.booleans())
    def say_of_a_binding(self, peer: Peer, binding_id: str, refused: bool) -> None:
        """Anybody accepts or refuses; only its provider may."""
        bound = self.bindings.get(binding_id)
        key = self._provider(bound) if bound is not None and bound.refused_by is None else None
        may = key is not None and self.providers[key] == peer.id and peer.id in self.present
        frame: dict[str, Any] = {"type": "triggerregistrationresult", "id": binding_id, "function_id": "tide::next"}
        if refused:
            frame["error"] = {"code": "no", "message": "not here"}
        owner = self.talk.peers[bound.owner] if bound is not None and bound.owner is not None else None
        if owner is not None:
            owner.hears()
        peer.say({**frame, "trigger_type": bound.type if bound is not None else "tide"})
        if owner is not None:
            assert len(owner.hears()) == (may and refused)
        if may and refused:
            assert bound is not None
            bound.refused_by = key

    def _provider(self, bound: Bound) -> tuple[str, str] | None:
        for namespace in (bound.home, "default"):
            if (namespace, bound.type) in self.providers:
                return namespace, bound.type
        return None

    # --- what holds after every step

    @invariant()
    def the_hub_agrees_with_the_model(self) -> None:
        hub = self.talk.hub
        assert set(hub.sessions) == set(self.present)
        owned = {(each.namespace, each.id): each.owner.id for each in hub.registry if each.owner is not None}
        assert owned == self.functions
        assert {key: hub.registry.worker(*key).id for key in self.names} == self.names  # type: ignore[union-attr]
        waiting = {
            call.id: call.callee.id
            for session in hub.sessions.values()
            for call in hub.calls.given_to(session).values()
        }
        assert waiting == {id_: call.callee for id_, call in self.calls.items()}
        assert all(count == 1 for count in self.answered.values())
        provided = {each.key: each.session.id for each in hub.triggers.providers() if each.session is not None}
        assert provided == self.providers
        assert {each.id for each in hub.triggers} == set(self.bindings)

    @invariant()
    def every_live_binding_is_with_its_provider_and_every_other_one_is_parked(self) -> None:
        for binding in self.talk.hub.triggers:
            bound = self.bindings[binding.id]
            refused = bound.refused_by is not None and bound.refused_by in self.providers
            expected = None if refused else self._provider(bound)
            if refused and self._provider(bound) != bound.refused_by:
                continue
            assert (binding.provider.key if binding.provider is not None else None) == expected, bound
            assert (binding.state.current is BindingState.PARKED) == (expected is None)

    @invariant()
    def nothing_refers_to_a_session_that_is_gone(self) -> None:
        check_no_ghosts(self.talk.hub)

    def teardown(self) -> None:
        if not hasattr(self, "talk"):
            return
        for peer in self.talk.peers.values():
            peer.leave()
        check_empty(self.talk.hub)


def check_no_ghosts(hub: Hub) -> None:
    """Every session that anything refers to is there."""
    there = set(hub.sessions.values())
    assert {each.owner for each in hub.registry} <= there | {None}
    for session in there:
        for call in (*hub.calls.made_by(session).values(), *hub.calls.given_to(session).values()):
            assert call.callee in there and (call.caller is None or call.caller in there)
            assert hub.calls.given_to(call.callee)[call.id] is call and not call.state.is_final
            assert call.caller is None or hub.calls.made_by(call.caller)[call.id] is call
        assert session.functions == {(each.namespace, each.id) for each in hub.registry if each.owner is session}
        assert session.bindings == {each.id for each in hub.triggers if each.owner is session}
        assert session.trigger_types == {each.key for each in hub.triggers.providers() if each.session is session}
    for binding in hub.triggers:
        assert binding.owner is None or binding.owner in there
        if binding.provider is not None:
            assert hub.triggers.provider(*binding.provider.key) is binding.provider
            assert binding.provider.session is None or binding.provider.session in there


def check_empty(hub: Hub) -> None:
    """Nothing of any worker is left."""
    assert not hub.sessions and not hub.calls and not hub.calls.made and not hub.calls.given
    assert not hub.state.questions
    assert all(function.owner is None for function in hub.registry)
    assert not hub.registry._names
    assert all(provider.session is None for provider in hub.triggers.providers())
    assert not [binding for binding in hub.triggers if binding.owner is not None]
    assert not len(hub.channels)
    assert not hub.state.take_effects()
    assert hub.next_due() is None


HubModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_the_hub_does_what_two_dictionaries_say = HubModel.TestCase
