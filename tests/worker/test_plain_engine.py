"""With an engine that announces nothing: the reference, as far as its protocol lets a worker see it."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from iii_trio.errors import CallError, ChannelBroken, MisuseError
from iii_trio.transport.frames import CloseFrame
from iii_trio.transport.remote_ends import RemoteReader
from iii_trio.wire import (
    CancelInvocation,
    Close,
    ErrorMessage,
    InvocationResult,
    InvokeFunction,
    Outcome,
    Reattach,
    RegisterFunction,
    RegisterTrigger,
    RegisterTriggerType,
    RegistrationRejected,
    TriggerRegistrationResult,
    UnregisterTrigger,
    UnregisterTriggerType,
    WorkerRegistered,
    decode,
)
from iii_trio.worker import BoundTrigger, ChannelReader, ChannelWriter, open_worker
from tests.helpers.fake_engine import REGISTER, FakeEnd, FakeEngine, parsed, raw

OURS = ("cancelinvocation", "channelended")
KNOWN = {
    "reattach", "registertriggertype", "unregistertriggertype", "registerfunction", "unregisterfunction",
    "registertrigger", "unregistertrigger", "triggerregistrationresult", "invokefunction", "invocationresult", "ping",
    "pong",
}  # fmt: skip


def plain() -> FakeEngine:
    return FakeEngine(features=())


async def nothing() -> None:
    pass


async def test_its_greeting_has_an_id_and_a_token_and_nothing_else() -> None:
    greeting = b'{"type":"workerregistered","worker_id":"0b0e","reattach_token":"c2aa"}'
    assert decode(greeting) == WorkerRegistered("0b0e", "c2aa")
    engine = FakeEngine(silent=True)
    async with trio.open_nursery() as nursery:

        async def greet() -> None:
            link = await engine.linked()
            link.say_text(b'{"type":"error","error":{"code":"AUTH_ERROR","message":"x"}}')
            link.say_text(greeting)

        nursery.start_soon(greet)
        async with open_worker(engine) as worker:
            assert worker.worker_id == "0b0e" and worker.connected
            assert not await worker.supports_extensions()


async def test_it_is_told_who_we_are_first_since_it_buffers_until_then() -> None:
    engine = plain()
    async with open_worker(engine, namespace="fleet") as worker:
        worker.register_trigger_type("tide", (lambda bound: None, None))
        worker.register_function("f", lambda: None)
        worker.register_trigger("tide", "f")
        await worker.wait_registered()
        first = engine.link.heard[0]
        assert isinstance(first, InvokeFunction) and first.function_id == REGISTER
        assert first.invocation_id is None and first.action is not None and first.action.type == "void"
        assert parsed(first.data)["namespace"] == "fleet"


async def test_it_hears_nothing_that_its_protocol_does_not_know(autojump_clock: trio.testing.MockClock) -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        provided = worker.register_trigger_type("tide", (lambda bound: None, None))
        function = worker.register_function("f", nothing)
        binding = worker.register_trigger("tide", "f")
        engine.link.say(RegisterTrigger("b1", "tide", "f", config=raw(None)))
        await engine.link.hear(TriggerRegistrationResult)
        await engine.link.call("f")
        await worker.wait_registered()
        with trio.move_on_after(1):
            await worker.trigger("slow")
        function.unregister()
        binding.unregister()
        provided.unregister()
        engine.link.drop()
        await worker.wait_state("connected")
        await worker.wait_registered()
        for link in engine.links:
            said = {type(message).__struct_config__.tag for message in link.heard}
            assert said <= KNOWN and not said & set(OURS), said


async def test_a_result_without_result_and_error_is_none() -> None:
    engine = plain()
    values: list[Any] = []
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:

        async def call() -> None:
            values.append(await worker.trigger("f"))

        for number, text in enumerate((b"", b',"result":null', b',"error":null', b',"result":0,"error":null'), 1):
            nursery.start_soon(call)
            asked = await engine.link.hear(InvokeFunction, number)
            assert asked.invocation_id is not None
            head = (
                b'{"type":"invocationresult","function_id":"f","invocation_id":"' + asked.invocation_id.encode() + b'"'
            )
            engine.link.say_text(head + text + b"}")
            await trio.testing.wait_all_tasks_blocked()
        assert values == [None, None, None, 0]


async def test_its_missing_fields_are_null() -> None:
    engine = plain()
    seen: list[Any] = []
    async with open_worker(engine) as worker:
        worker.register_function("whole", lambda data: seen.append(data), description="keeps")
        worker.register_trigger_type("tide", (lambda bound: seen.append((bound.config, bound.metadata)), None))
        engine.link.say_text(b'{"type":"invokefunction","invocation_id":"i1","function_id":"whole"}')
        await engine.link.answer_to("i1")
        engine.link.say_text(b'{"type":"registertrigger","id":"b1","trigger_type":"tide","function_id":"f"}')
        await engine.link.hear(TriggerRegistrationResult)
        assert seen == [None, (None, None)]


async def test_a_missing_value_is_said_so_as_it_would_drop_the_message_otherwise() -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        await worker.trigger_void("f")
        worker.register_trigger("tide", "f")
        (call,) = engine.link.of(InvokeFunction)
        assert bytes(call.data) == b"null"
        assert bytes(engine.link.of(RegisterTrigger)[0].config) == b"null"


async def test_a_cancelled_call_is_not_told_and_its_late_answer_hurts_nobody() -> None:
    engine = plain()
    async with open_worker(engine) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(worker.trigger, "slow")
        call = await engine.link.hear(InvokeFunction)
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        engine.link.answer(call, "late")
        with trio.CancelScope(shield=True):
            assert await worker.wait_registered() == {}
        assert engine.link.of(CancelInvocation) == []


async def test_a_function_that_another_worker_has_is_refused_and_the_rest_stays() -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        worker.register_function("mine", lambda: 1)
        other = worker.register_function("theirs", lambda: 2)
        engine.link.say(RegistrationRejected("FUNCTION_NAMESPACE_CONFLICT", "default", "w9", function_id="theirs"))
        assert list(await worker.wait_registered()) == ["theirs"]
        assert other.refused is not None and "w9" in other.refused
        assert await engine.link.call("mine") == 1


async def test_after_a_lost_link_it_is_told_the_old_id_and_everything_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        worker.register_trigger("tide", "f")
        worker.register_function("f", lambda: None)
        worker.register_trigger_type("tide", (lambda bound: None, None))
        old = engine.link.worker_id
        engine.link.drop("a FIN, and no Close")
        link = await engine.linked(2)
        await link.hear(RegisterTrigger)
        reattach, first, *rest = link.heard
        assert reattach == Reattach(old, "token-0")
        assert isinstance(first, InvokeFunction) and first.function_id == REGISTER
        assert [type(message) for message in rest] == [RegisterTriggerType, RegisterFunction, RegisterTrigger]


async def test_results_of_an_old_link_are_not_said_on_the_new_one(autojump_clock: trio.testing.MockClock) -> None:
    engine = plain()
    going = trio.Event()
    async with open_worker(engine) as worker:

        @worker.function("slow")
        async def slow() -> str:
            going.set()
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            return "late"

        engine.link.invoke("slow")
        await going.wait()
        engine.link.drop()
        link = await engine.linked(2)
        await trio.sleep(20)
        assert link.of(InvocationResult) == []


async def test_it_does_not_know_unregistertriggertype_and_goes_on_binding() -> None:
    engine = plain()
    seen: list[BoundTrigger] = []
    async with open_worker(engine) as worker:
        worker.register_trigger_type("tide", (seen.append, None)).unregister()
        assert len(engine.link.of(UnregisterTriggerType)) == 1
        engine.link.say(RegisterTrigger("b1", "tide", "f", config=raw(None)))
        told = await engine.link.hear(TriggerRegistrationResult)
        assert parsed(told.error)["code"] == "trigger_type_not_found" and seen == []


async def test_a_withdrawal_names_the_type_which_its_other_sdks_need() -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        worker.register_trigger("tide", "f").unregister()
        assert engine.link.of(UnregisterTrigger)[0].trigger_type == "tide"


async def test_ends_are_attached_as_nobody_and_outcomes_are_not_told() -> None:
    engine = plain()
    async with open_worker(engine) as worker, worker.create_channel() as channel:
        await channel.writer.send(b"x")
        assert engine.ends[channel.id, "write"].identity is None
        with pytest.raises(MisuseError, match="does not tell"):
            await channel.wait_outcome()


async def test_a_channel_takes_only_what_it_knows() -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        for more in ({"max_bytes": 5}, {"expires_after_seconds": 3.0}):
            with pytest.raises(MisuseError):
                async with worker.create_channel(2, **more):  # type: ignore[arg-type]
                    raise AssertionError("entered")
        async with worker.create_channel(2):
            (call,) = engine.link.of(InvokeFunction)
            assert parsed(call.data) == {"buffer_size": 2}


async def test_a_stream_goes_through_a_handler_in_both_directions() -> None:
    engine = plain()

    def prepare(end: FakeEnd) -> None:
        if end.ref.direction == "read":
            end.items.extend([b"a", b"b"])
            end.finished = True

    engine.prepare = prepare
    async with open_worker(engine) as worker:

        @worker.function("copy")
        async def copy(reader: ChannelReader, writer: ChannelWriter) -> int:
            count = 0
            async for item in reader:
                await writer.send(item)
                count += 1
            return count

        refs = {
            "reader": {"channel_id": "r", "access_key": "k", "direction": "read"},
            "writer": {"channel_id": "w", "access_key": "k", "direction": "write"},
        }
        assert await engine.link.call("copy", refs) == 2
        writer = await engine.attached("w", "write")
        await writer.wait_ended()
        assert list(writer.items) == [b"a", b"b"] and writer.done == ["close"]


async def test_an_end_that_is_cut_is_an_error_to_who_reads() -> None:
    engine = plain()
    async with open_worker(engine) as worker, worker.create_channel() as channel:
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.reader.receive()
        end = await engine.attached(channel.id, "read")
        end.finish(Outcome.READER_LOST, "the connection to the engine is gone")
        with pytest.raises(ChannelBroken):
            await channel.reader.receive()


async def test_an_error_of_any_shape_is_a_call_error() -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        for number, (error, code) in enumerate(
            [({"code": "c", "message": "m"}, "c"), ("a text", "UNKNOWN"), ({"code": 7}, "UNKNOWN")], 1
        ):
            caught: list[CallError] = []

            async def call(caught: list[CallError]) -> None:
                with pytest.raises(CallError) as error:
                    await worker.trigger("f")
                caught.append(error.value)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, caught)
                engine.link.answer(await engine.link.hear(InvokeFunction, number), error=error)
            assert caught[0].code == code


async def test_what_it_says_besides_hurts_nobody() -> None:
    engine = plain()
    async with open_worker(engine) as worker:
        engine.link.say(ErrorMessage(raw({"code": "AUTH_ERROR", "message": "x"})))
        engine.link.say_text(b'{"type":"functionregistered","id":"f","revision":1}')
        engine.link.say_text(b'{"type":"registertrigger"}')
        engine.link.say_text(b"not json")
        assert await worker.wait_registered() == {}


@pytest.mark.parametrize("knows_us", [False, True])
async def test_a_close_without_code_ends_a_stream_of_the_reference_and_cuts_one_of_ours(knows_us: bool) -> None:
    reader = RemoteReader(knows_our_codes=knows_us)
    reader.on_close(CloseFrame(Close.NO_STATUS_RCVD, ""))
    with pytest.raises(ChannelBroken if knows_us else trio.EndOfChannel):
        await reader.take()


async def test_a_close_of_the_reference_that_is_not_clean_cuts_a_stream() -> None:
    reader = RemoteReader(knows_our_codes=False)
    reader.on_close(CloseFrame(Close.GOING_AWAY, ""))
    with pytest.raises(ChannelBroken):
        await reader.take()
