"""Trigger types that a worker provides, and bindings that it asks for; the engine is played by the test."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from iii_trio.errors import CallError, MisuseError
from iii_trio.wire import (
    InvokeFunction,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    RegistrationRejected,
    TriggerRegistrationResult,
    UnregisterTrigger,
    UnregisterTriggerType,
)
from iii_trio.worker import BoundTrigger, Worker, open_worker
from tests.helpers.fake_engine import REGISTER, FakeEngine, FakeLink, parsed, raw


@attrs.define(eq=False)
class Tides:
    """fires at high water"""

    bound: list[BoundTrigger] = attrs.field(factory=list)
    unbound: list[str] = attrs.field(factory=list)
    before_bound: Callable[[], Any] = lambda: None

    async def register_trigger(self, bound: BoundTrigger) -> None:
        await trio.lowlevel.checkpoint()
        self.before_bound()
        self.bound.append(bound)

    async def unregister_trigger(self, bound: BoundTrigger) -> None:
        self.unbound.append(bound.id)


def wish(binding_id: str = "b1", config: Any = None, **fields: Any) -> RegisterTrigger:
    """What the engine tells a provider."""
    if "metadata" in fields:
        fields["metadata"] = raw(fields["metadata"])
    return RegisterTrigger(binding_id, "tide", "boats::launch", config=raw(config), **fields)


def result(message: TriggerRegistrationResult) -> Any:
    return parsed(message.error)


# --- providing


async def test_a_trigger_type_is_said_with_its_description_and_schemas() -> None:
    @attrs.frozen
    class Config:
        harbour: str

    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", Tides(), config=Config, call_request_format={"type": "number"})
        said = await engine.link.hear(RegisterTriggerType)
        assert said.id == "tide" and said.description == "fires at high water" and said.namespace is None
        assert parsed(said.trigger_request_format)["properties"] == {"harbour": {"type": "string"}}
        assert parsed(said.call_request_format) == {"type": "number"}
        with pytest.raises(MisuseError, match="tide"):
            worker.register_trigger_type("tide", Tides())


async def test_a_binding_is_given_to_the_provider_and_its_success_is_told() -> None:
    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", tides)
        engine.link.say(wish(config={"harbour": "brest"}, metadata={"lane": 3}, namespace="fleet"))
        told = await engine.link.hear(TriggerRegistrationResult)
        assert (told.id, told.trigger_type, told.function_id, result(told)) == ("b1", "tide", "boats::launch", None)
        (bound,) = tides.bound
        assert (bound.config, bound.metadata, bound.namespace) == ({"harbour": "brest"}, {"lane": 3}, "fleet")
        assert not bound.withdrawn.is_set()


async def test_a_binding_without_a_namespace_is_for_a_function_in_default() -> None:
    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine, namespace="sea") as worker:
        worker.register_trigger_type("tide", tides)
        engine.link.say(wish())
        await engine.link.hear(TriggerRegistrationResult)
        assert tides.bound[0].namespace == "default" and tides.bound[0].metadata is None


async def test_firing_calls_the_bound_function_with_the_bindings_namespace_and_metadata() -> None:
    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        worker.register_trigger_type("tide", tides)
        engine.link.say(wish(metadata={"lane": 3}, namespace="fleet"))
        await engine.link.hear(TriggerRegistrationResult)
        values: list[Any] = []

        async def fire() -> None:
            values.append(await tides.bound[0].fire({"height": 7}))
            await tides.bound[0].fire_void({"height": 8})

        nursery.start_soon(fire)
        call = await engine.link.hear(InvokeFunction)
        assert (call.function_id, call.namespace, call.action) == ("boats::launch", "fleet", None)
        assert parsed(call.data) == {"height": 7} and parsed(call.metadata) == {"lane": 3}
        engine.link.answer(call, "launched")
        call = await engine.link.hear(InvokeFunction, 2)
        assert call.invocation_id is None and call.namespace == "fleet" and parsed(call.metadata) == {"lane": 3}
        assert values == ["launched"]


@pytest.mark.parametrize("error", [ValueError("unknown harbour"), CallError("nowhere", "unknown harbour")])
async def test_a_providers_error_is_told_and_the_binding_is_not_kept(error: Exception) -> None:
    def fail() -> None:
        raise error

    engine = FakeEngine()
    tides = Tides(before_bound=fail)
    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", tides)
        engine.link.say(wish())
        told = await engine.link.hear(TriggerRegistrationResult)
        assert result(told) == {"code": "trigger_registration_failed", "message": "unknown harbour"}
        await trio.testing.wait_all_tasks_blocked()
        assert provided.bindings == []
    assert tides.unbound == []


async def test_an_error_text_that_is_no_unicode_is_told_all_the_same() -> None:
    def fail() -> None:
        raise ValueError("caf\udce9")

    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", Tides(before_bound=fail))
        engine.link.say(wish())
        assert result(await engine.link.hear(TriggerRegistrationResult))["message"] == "caf?"


async def test_a_type_that_is_not_provided_is_answered_so() -> None:
    engine = FakeEngine()
    async with open_worker(engine):
        engine.link.say(wish())
        told = await engine.link.hear(TriggerRegistrationResult)
        assert result(told)["code"] == "trigger_type_not_found" and "tide" in result(told)["message"]


async def test_a_config_is_structured_or_refused_naming_the_field() -> None:
    @attrs.frozen
    class Config:
        harbour: str

    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", tides, config=Config)
        engine.link.say(wish("b1", {"harbour": "brest"}))
        assert result(await engine.link.hear(TriggerRegistrationResult)) is None
        assert tides.bound[0].config == Config("brest")
        engine.link.say(wish("b2", {"harbour": 7}))
        told = await engine.link.hear(TriggerRegistrationResult, 2)
        assert result(told)["code"] == "trigger_registration_failed"
        assert result(told)["message"] == "config.harbour: expected a string, got an integer"
    assert tides.unbound == ["b1"]


@pytest.mark.parametrize("named", [True, False])
async def test_a_withdrawn_binding_is_unbound_once(named: bool) -> None:
    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", tides)
        engine.link.say(wish("b1"))
        engine.link.say(wish("b2"))
        await engine.link.hear(TriggerRegistrationResult, 2)
        for _ in range(2):
            engine.link.say(UnregisterTrigger("b1", "tide" if named else None))
            await trio.testing.wait_all_tasks_blocked()
        assert tides.unbound == ["b1"]
        assert [bound.id for bound in provided.bindings] == ["b2"]


async def test_a_pair_of_plain_functions_may_provide_and_a_class_is_instantiated() -> None:
    engine = FakeEngine()
    seen: list[tuple[str, str]] = []
    async with open_worker(engine) as worker:
        worker.register_trigger_type(
            "tide", (lambda bound: seen.append(("bind", bound.id)), lambda bound: seen.append(("unbind", bound.id)))
        )
        engine.link.say(wish())
        await engine.link.hear(TriggerRegistrationResult)

        @worker.trigger_type("moon", description="fires at full moon")
        class Moons:
            def register_trigger(self, bound: BoundTrigger) -> None:
                seen.append(("moon", bound.id))

        said = await engine.link.hear(RegisterTriggerType, 2)
        assert (said.id, said.description) == ("moon", "fires at full moon")
        engine.link.say(RegisterTrigger("m1", "moon", "f"))
        await engine.link.hear(TriggerRegistrationResult, 2)
        engine.link.say(UnregisterTrigger("m1", "moon"))
        await trio.testing.wait_all_tasks_blocked()
    assert seen == [("bind", "b1"), ("moon", "m1"), ("unbind", "b1")]


@pytest.mark.parametrize("provider", [None, lambda bound: None, (1, 2, 3)])
async def test_what_cannot_provide_is_refused_at_once(provider: Any) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(MisuseError, match="cannot provide tide"):
            worker.register_trigger_type("tide", provider)
        await worker.wait_registered()
        assert engine.link.of(RegisterTriggerType) == []


async def test_a_provider_may_be_a_task_for_each_binding() -> None:
    engine = FakeEngine()
    events: list[str] = []
    async with open_worker(engine) as worker:

        @worker.trigger_type("tide")
        async def tide(bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
            if bound.config is None:
                raise ValueError("no config")
            task_status.started()
            try:
                await bound.fire_void({"height": 7})
                await trio.sleep_forever()
            finally:
                events.append(f"{bound.id} over")

        engine.link.say(wish("b1"))
        assert result(await engine.link.hear(TriggerRegistrationResult))["message"] == "no config"
        engine.link.say(wish("b2", {}))
        assert result(await engine.link.hear(TriggerRegistrationResult, 2)) is None
        assert (await engine.link.hear(InvokeFunction)).function_id == "boats::launch"
        engine.link.say(UnregisterTrigger("b2", "tide"))
        await trio.testing.wait_all_tasks_blocked()
        assert events == ["b2 over"]
        engine.link.say(wish("b3", {}))
        await engine.link.hear(TriggerRegistrationResult, 3)
    assert events == ["b2 over", "b3 over"]


async def test_a_task_that_fails_later_refuses_its_binding() -> None:
    engine = FakeEngine()
    dry = trio.Event()

    async def tide(bound: BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await dry.wait()
        raise ValueError("the harbour is dry")

    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", tide)
        engine.link.say(wish())
        assert result(await engine.link.hear(TriggerRegistrationResult)) is None
        dry.set()
        told = await engine.link.hear(TriggerRegistrationResult, 2)
        assert result(told) == {"code": "trigger_registration_failed", "message": "the harbour is dry"}
        await trio.testing.wait_all_tasks_blocked()
        assert provided.bindings == []


async def test_a_binding_withdrawn_while_it_is_bound_is_neither_told_nor_unbound() -> None:
    engine = FakeEngine()
    unbound: list[str] = []
    binding = trio.Event()

    async def bind(bound: BoundTrigger) -> None:
        binding.set()
        await trio.sleep_forever()

    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", (bind, lambda bound: unbound.append(bound.id)))
        engine.link.say(wish())
        await binding.wait()
        engine.link.say(UnregisterTrigger("b1", "tide"))
        await trio.testing.wait_all_tasks_blocked()
        assert engine.link.of(TriggerRegistrationResult) == [] and unbound == []


async def test_a_binding_withdrawn_just_as_it_is_bound_is_unbound_and_not_told() -> None:
    engine = FakeEngine()
    unbound: list[str] = []
    gate = trio.Event()

    async def bind(bound: BoundTrigger) -> None:
        await gate.wait()

    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", (bind, lambda bound: unbound.append(bound.id)))
        engine.link.say(wish())
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        provided.withdraw("b1")
        await trio.testing.wait_all_tasks_blocked()
        assert engine.link.of(TriggerRegistrationResult) == [] and unbound == ["b1"]


async def test_a_binding_that_is_replaced_is_unbound_before_the_new_one_is_bound() -> None:
    engine = FakeEngine()
    seen: list[Any] = []
    gate = trio.Event()

    async def bind(bound: BoundTrigger) -> None:
        seen.append(("bind", bound.config))

    async def unbind(bound: BoundTrigger) -> None:
        await gate.wait()
        seen.append(("unbind", bound.config))

    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", (bind, unbind))
        engine.link.say(wish(config=1))
        await engine.link.hear(TriggerRegistrationResult)
        engine.link.say(wish(config=2))
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [("bind", 1)]
        assert [bound.config for bound in provided.bindings] == [2]
        engine.link.say(UnregisterTrigger("b1", "tide"))
        await trio.testing.wait_all_tasks_blocked()
        assert provided.bindings == []
        engine.link.say(wish(config=3))
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
        await engine.link.hear(TriggerRegistrationResult, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [("bind", 1), ("unbind", 1), ("bind", 3)], "what was replaced before its turn is left out"
        assert len(engine.link.of(TriggerRegistrationResult)) == 2


async def test_a_type_that_is_no_longer_provided_is_said_so_and_unbound() -> None:
    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", tides)
        engine.link.say(wish())
        await engine.link.hear(TriggerRegistrationResult)
        provided.unregister()
        provided.unregister()
        await trio.testing.wait_all_tasks_blocked()
        assert [said.id for said in engine.link.of(UnregisterTriggerType)] == ["tide"]
        assert tides.unbound == ["b1"]
        engine.link.say(wish("b2"))
        told = await engine.link.hear(TriggerRegistrationResult, 2)
        assert result(told)["code"] == "trigger_type_not_found"
        worker.register_trigger_type("tide", tides)


async def test_bindings_end_with_their_link_and_are_bound_anew_on_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    tides = Tides()
    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", tides)
        engine.link.say(wish("b1"))
        engine.link.say(wish("b2"))
        await engine.link.hear(TriggerRegistrationResult, 2)
        engine.link.drop()
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(tides.unbound) == ["b1", "b2"] and provided.bindings == []
        link = await engine.linked(2)
        assert (await link.hear(RegisterTriggerType)).id == "tide"
        link.say(wish("b2"))  # nobody wants b1 any more
        await link.hear(TriggerRegistrationResult)
        assert [bound.id for bound in provided.bindings] == ["b2"]
        assert sorted(tides.unbound) == ["b1", "b2"]


async def test_leaving_unbinds_even_if_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()

    async def unbind(bound: BoundTrigger) -> None:
        raise ValueError(f"{bound.id} is stuck")

    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", (lambda bound: None, unbind))
        engine.link.say(wish("b1"))
        await engine.link.hear(TriggerRegistrationResult)
        engine.link.say(UnregisterTrigger("b1", "tide"))
        engine.link.say(wish("b2"))
        await engine.link.hear(TriggerRegistrationResult, 2)
    assert engine.link.said_goodbye is not None
    assert "b1 is stuck" in caplog.text and "b2 is stuck" in caplog.text
    assert len(engine.link.of(TriggerRegistrationResult)) == 2, "a binding that is over was not refused"


# --- binding


async def test_a_binding_is_asked_for_with_all_its_fields() -> None:
    @attrs.frozen
    class Config:
        harbour: str

    engine = FakeEngine()
    async with open_worker(engine, namespace="fleet") as worker:
        binding = worker.register_trigger(
            "tide", "boats::launch", config=Config("brest"), metadata={"lane": 3}, trigger_namespace="sea"
        )
        asked = await engine.link.hear(RegisterTrigger)
        assert (asked.id, asked.trigger_type, asked.function_id) == (binding.id, "tide", "boats::launch")
        assert (asked.namespace, asked.trigger_namespace) == ("fleet", "sea")
        assert parsed(asked.config) == {"harbour": "brest"} and parsed(asked.metadata) == {"lane": 3}


async def test_what_is_not_given_is_left_out_but_the_config() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_trigger("tide", "boats::launch")
        asked = await engine.link.hear(RegisterTrigger)
        assert bytes(asked.config) == b"null", "the reference drops a message that has none"
        assert not asked.metadata and asked.namespace is None and asked.trigger_namespace is None


async def test_a_config_that_is_no_json_is_refused_and_nothing_is_bound() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        with pytest.raises(CallError, match="config") as caught:
            worker.register_trigger("tide", "boats::launch", config={"at": float("nan")})
        assert caught.value.code == "serialization_error"
        await worker.wait_registered()
        assert engine.link.of(RegisterTrigger) == []


async def test_a_refusal_is_kept_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    told: list[CallError] = []

    def on_error(error: CallError) -> None:
        told.append(error)
        raise KeyError("the callback's own bug")

    async with open_worker(engine) as worker:
        binding = worker.register_trigger("tide", "boats::launch", on_error=on_error)
        error = raw({"code": "trigger_registration_failed", "message": "unknown harbour"})
        engine.link.say(TriggerRegistrationResult("another", "tide", "boats::launch", error))
        engine.link.say(TriggerRegistrationResult(binding.id, "tide", "boats::launch"))  # a success tells nothing
        await worker.wait_registered()
        assert binding.error is None
        engine.link.say(TriggerRegistrationResult(binding.id, "tide", "boats::launch", error))
        await worker.wait_registered()
        assert binding.error is not None and binding.error.code == "trigger_registration_failed"
        assert told == [binding.error] and binding.error.message == "unknown harbour"
    assert "unknown harbour" in caplog.text and "the callback's own bug" in caplog.text


async def test_an_unregistered_binding_is_withdrawn_once_and_not_said_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        binding = worker.register_trigger("tide", "boats::launch")
        binding.unregister()
        binding.unregister()
        (unsaid,) = engine.link.of(UnregisterTrigger)
        assert (unsaid.id, unsaid.trigger_type) == (binding.id, "tide")
        engine.link.drop()
        await worker.wait_state("connected")
        await worker.wait_registered()
        assert engine.link.of(RegisterTrigger) == []


# --- both, on every link


def kinds(link: FakeLink) -> list[str]:
    return [
        "register" if getattr(message, "function_id", "") == REGISTER else type(message).__name__
        for message in link.heard
        if not isinstance(message, TriggerRegistrationResult)
    ]


def offer_all(worker: Worker) -> None:
    worker.register_trigger("tide", "boats::launch")
    worker.register_function("boats::launch", lambda: None)
    worker.register_trigger_type("tide", Tides())


async def test_every_new_link_is_told_of_everything_once_providers_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        offer_all(worker)
        first = engine.link.of(RegisterTrigger)[0]
        for number in (2, 3):
            engine.link.drop()
            link = await engine.linked(number)
            await link.hear(RegisterTrigger)
            await worker.wait_connected()
            await worker.wait_registered()
            told = ["Reattach", "register", "RegisterTriggerType", "RegisterFunction", "RegisterTrigger", "Ping"]
            assert kinds(link) == told
            assert link.of(RegisterTrigger) == [first]


async def test_what_is_offered_between_links_is_said_on_the_next_and_an_old_error_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        binding = worker.register_trigger("moon", "boats::launch")
        engine.link.say(
            TriggerRegistrationResult(binding.id, "moon", "boats::launch", raw({"code": "c", "message": ""}))
        )
        await worker.wait_registered()
        assert binding.error is not None
        engine.link.drop()
        await worker.wait_state("backoff")
        offer_all(worker)
        link = await engine.linked(2)
        await link.hear(RegisterTrigger, 2)
        assert [len(link.of(kind)) for kind in (RegisterTriggerType, RegisterFunction, RegisterTrigger)] == [1, 1, 2]
        assert binding.error is None


async def test_what_is_offered_while_the_engine_considers_the_worker_is_not_forgotten(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        engine.deaf = True
        engine.link.drop()
        link = await engine.linked(2)
        call = await link.hear_register()
        offer_all(worker)
        link.answer(call, {"success": True})
        await worker.wait_connected()
        engine.deaf = False
        await worker.wait_registered()
        assert [len(link.of(kind)) for kind in (RegisterTriggerType, RegisterFunction, RegisterTrigger)] == [1, 1, 1]


# --- knowing that it was taken


async def test_waiting_until_registered_tells_what_was_refused() -> None:
    engine = FakeEngine()
    async with open_worker(engine) as worker:
        worker.register_function("a", lambda: None)
        worker.register_function("b", lambda: None)
        engine.link.say(RegistrationRejected("FUNCTION_NAMESPACE_CONFLICT", "default", "w7", function_id="b"))
        refused = await worker.wait_registered()
        assert list(refused) == ["b"] and "w7" in refused["b"]


async def test_pongs_are_for_the_pings_in_their_order() -> None:
    from iii_trio.wire import Ping, Pong

    engine = FakeEngine()
    done: list[str] = []
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        engine.deaf = True

        async def wait(name: str) -> None:
            await worker.wait_registered()
            done.append(name)

        with trio.CancelScope() as scope:
            nursery.start_soon(wait, "first")
            await engine.link.hear(Ping)
            scope.cancel()
        nursery.start_soon(wait, "second")
        await engine.link.hear(Ping, 2)
        engine.link.say(Pong())
        await trio.testing.wait_all_tasks_blocked()
        assert done == ["first"]
        engine.link.say(Pong())
        engine.link.say(Pong())  # one too many is harmless


async def test_waiting_until_registered_survives_a_lost_link(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    from iii_trio.wire import Ping

    engine = FakeEngine()
    done = trio.Event()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        engine.deaf = True

        async def wait() -> None:
            assert await worker.wait_registered() == {}
            done.set()

        nursery.start_soon(wait)
        await engine.link.hear(Ping)
        engine.deaf = False
        engine.link.drop()
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        await done.wait()
        assert len(engine.links) == 2 and len(engine.link.of(Ping)) == 1


async def test_waiting_until_registered_ends_with_the_worker() -> None:
    from iii_trio.errors import ConnectionFailed
    from iii_trio.wire import Ping

    engine = FakeEngine()
    async with trio.open_nursery() as nursery:

        async def wait(worker: Worker) -> None:
            with pytest.raises(ConnectionFailed):
                await worker.wait_registered()

        async with open_worker(engine) as worker:
            engine.deaf = True
            nursery.start_soon(wait, worker)
            await engine.link.hear(Ping)
