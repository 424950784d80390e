"""Sessions: who does not take what is sent to it harms nobody else, and answers find the call they belong to."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from msgspec import Raw

from iii_trio import Engine, EngineConfig, Limits, Listener, Timeouts, open_engine
from iii_trio.engine.shell import Shell
from iii_trio.transport.frames import frame_head
from iii_trio.transport.socket import Buffer
from iii_trio.wire import InvocationResult, InvokeFunction, RegisterFunction, decode, encode
from tests.helpers.bare import UPGRADE, Bare, connected, within

TIGHT = EngineConfig(limits=Limits(outbox_bytes=10_000, outbox_reserve_bytes=20_000))


def new_id() -> str:
    return str(uuid.uuid4())


async def name(bare: Bare, *functions: str) -> None:
    """Register with the engine, and offer these functions."""
    assert (await bare.message())["type"] == "workerregistered"
    call = new_id()
    await bare.tell(type="invokefunction", invocation_id=call, function_id="engine::workers::register", data={})
    assert (await bare.message())["invocation_id"] == call
    for function in functions:
        await bare.tell(type="registerfunction", id=function)
    await still_answers(bare)


async def call(bare: Bare, function_id: str, data: Any = None) -> str:
    invocation_id = new_id()
    await bare.tell(type="invokefunction", invocation_id=invocation_id, function_id=function_id, data=data)
    return invocation_id


async def still_answers(bare: Bare) -> None:
    await bare.tell(type="ping")
    assert await bare.message() == {"type": "pong"}


@asynccontextmanager
async def clogged(engine: Engine, *functions: str) -> AsyncIterator[Bare]:
    """A worker that takes a byte only when it reads, and that does not read once it is here."""
    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.serve_stream, far)
        bare = Bare(near)
        await bare.ask("/")
        await name(bare, *functions)
        yield bare
        await trio.aclose_forcefully(near)


@within(300)
async def test_a_callee_that_takes_nothing_costs_its_callers_the_call_and_nobody_else_anything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_engine(TIGHT) as engine, clogged(engine, "slow"), connected(engine) as caller, connected(engine) as other
    ):  # fmt: skip
        await name(caller)
        await name(other, "quick")
        for _ in range(3):
            last = await call(caller, "slow", "x" * 4_000)
        answer = await caller.message()
        assert (answer["invocation_id"], answer["error"]["code"]) == (last, "channel_send_failed")
        assert "does not take what waits for it" in answer["error"]["message"]
        asked = await call(caller, "quick", 7)
        got = await other.message()
        assert got["data"] == 7
        await other.tell(type="invocationresult", invocation_id=got["invocation_id"], function_id="quick", result="ok")
        assert (await caller.message())["result"] == "ok" and asked == got["invocation_id"]
        assert engine.statistics().calls == 2, "the two calls that its outbox took still wait"


@within(300)
async def test_one_message_of_any_size_may_always_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine(TIGHT) as engine, clogged(engine, "slow") as callee, connected(engine) as caller:
        await name(caller)
        asked = await call(caller, "slow", "x" * 100_000)
        got = await callee.message()
        assert got["invocation_id"] == asked and len(got["data"]) == 100_000


@within(300)
async def test_a_session_that_takes_no_byte_in_its_time_is_cut_off_with_its_reason(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iii_trio.engine")
    config = attrs.evolve(TIGHT, timeouts=Timeouts(stalled_session_seconds=60))
    async with open_engine(config) as engine, clogged(engine, "slow"), connected(engine) as caller:
        await name(caller)
        began = trio.current_time()
        asked = await call(caller, "slow", "x")
        answer = await caller.message()
        assert (answer["invocation_id"], answer["error"]["code"]) == (asked, "invocation_stopped")
        assert trio.current_time() - began == pytest.approx(60)
        assert engine.statistics().sessions == 1
    assert any("the peer took nothing for 60 s, with" in record.getMessage() for record in caplog.records)


@within(300)
async def test_a_session_whose_own_answers_pile_up_is_cut_off_at_the_reserve(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Results and control messages cannot be refused to anyone: beyond the reserve, the session goes."""
    caplog.set_level(logging.INFO, "iii_trio.engine")
    async with open_engine(TIGHT) as engine, connected(engine) as other:
        await name(other)
        async with clogged(engine) as bare:
            for _ in range(20_000):
                await bare.tell(type="ping")
                if engine.statistics().sessions == 1:
                    break
            else:
                raise AssertionError("it may pile up for ever")
            begun = trio.current_time()
            await bare.say(1, b"it is thrown away")
            with pytest.raises(trio.BrokenResourceError):
                while True:
                    await trio.sleep(1)
                    await bare.tell(type="ping")
            assert trio.current_time() - begun < 10, "it has a little time to read why"
        await still_answers(other)
        assert engine.statistics().sessions == 1
    assert any("does not take what is sent to it" in record.getMessage() for record in caplog.records)


@within(60)
async def test_late_repeated_and_foreign_answers_are_ignored(autojump_clock: trio.testing.MockClock) -> None:
    async with (
        open_engine() as engine, connected(engine) as callee, connected(engine) as caller, connected(engine) as stranger
    ):  # fmt: skip
        await name(callee, "f")
        await name(caller)
        await name(stranger)
        asked = await call(caller, "f")
        await callee.message()
        for result, bare in (("own", caller), ("foreign", stranger), ("right", callee), ("again", callee)):
            await bare.tell(type="invocationresult", invocation_id=asked, function_id="f", result=result)
            if bare is not callee:
                await still_answers(bare)
        assert (await caller.message())["result"] == "right"
        await callee.tell(type="invocationresult", invocation_id=new_id(), function_id="f", result="of nothing")
        await still_answers(callee)
        await still_answers(caller)
        assert engine.statistics().calls == 0


class Eager:
    """A line to a worker that answers a call within the very step that delivers it."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.session: Any = None
        self.got: list[object] = []

    def put(self, message: bytes, *, bound: int) -> bool:
        told = decode(message)
        self.got.append(told)
        if isinstance(told, InvokeFunction):
            answer = InvocationResult(told.invocation_id or "", told.function_id, told.data)
            self.shell.on_messages(self.session, [encode(answer)])
        return True

    def flush(self) -> None:
        pass

    def hang_up(self, code: int | None, reason: str) -> None:
        pass

    def challenge(self, seconds: float, answered: Callable[[bool], object]) -> None:
        answered(True)


@within(60)
async def test_an_answer_may_come_before_the_call_has_been_sent_in_full(autojump_clock: trio.testing.MockClock) -> None:
    shell = Shell(EngineConfig(), new_id)
    callee, caller = Eager(shell), Eager(shell)
    for line in (callee, caller):
        line.session = shell.connected(line, peer=None, in_process=True)
        shell.on_messages(
            line.session, [b'{"type":"invokefunction","function_id":"engine::workers::register","data":{}}']
        )
    shell.on_messages(callee.session, [encode(RegisterFunction("f"))])
    asked = new_id()
    shell.on_messages(caller.session, [encode(InvokeFunction("f", asked, data=Raw(b"[1]")))])
    answers = [told for told in caller.got if isinstance(told, InvocationResult)]
    assert [(told.invocation_id, bytes(told.result)) for told in answers] == [(asked, b"[1]")]
    assert not shell.hub.calls.given_to(callee.session)


class Dead(trio.abc.Stream):
    """A connection that says a valid head, and breaks at the first write behind the answer to it."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.writes = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.head:
            head, self.head = self.head, b""
            return head
        await trio.sleep_forever()
        raise AssertionError

    def write_now(self, parts: Sequence[Buffer]) -> int:
        self.writes += 1
        if self.writes > 1:
            raise trio.BrokenResourceError("Connection reset by peer")
        return sum(map(len, parts))

    async def send_all(self, data: Buffer) -> None:
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@within(60)
async def test_a_worker_that_is_gone_when_it_is_greeted_leaves_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine:
        stream = Dead(UPGRADE.format(target="/", headers="").encode())
        await engine.serve_stream(stream)
        assert stream.writes == 2
        assert not any(attrs.astuple(engine.statistics()))
        assert not engine._shell.heartbeat._silent_looks


@within(60)
@pytest.mark.parametrize("target", ["/", "/otel"])
async def test_who_breaks_a_rule_is_told_and_let_go_at_once_whatever_it_sent_behind(
    target: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine(EngineConfig(limits=Limits(message_bytes=10))) as engine, connected(engine, target) as bare:
        begun = trio.current_time()
        await bare.say(1, b"x" * 11)
        await bare.say(8, b"\x03\xe8")  # its own Close is not an answer to ours any more
        while (frame := await bare.frame()) is not None and frame[0] != 8:
            pass
        assert frame is not None and int.from_bytes(frame[1][:2], "big") == 1009
        assert await bare.frame() is None
        assert trio.current_time() == begun, "no patience is needed for that"


@within(60)
async def test_a_worker_of_the_name_of_one_that_leaves_is_taken_although_much_of_that_ones_is_unread() -> None:
    """On sockets: what the first one had still to say, its Close last, is in the kernel when the second one registers."""
    async with open_engine() as engine:
        (url,) = await engine.listen(Listener(port=0))

        async def come() -> Bare:
            bare = Bare(await trio.open_tcp_stream("127.0.0.1", int(url.rsplit(":", 1)[1])))
            assert await bare.ask("/") == 101
            assert (await bare.message())["type"] == "workerregistered"
            return bare

        register = {"type": "invokefunction", "function_id": "engine::workers::register", "data": {"name": "same"}}
        word = {"message": "x" * 100}
        chatter = {
            "type": "invokefunction",
            "function_id": "engine::log::debug",
            "action": {"type": "void"},
            "data": word,
        }
        text = json.dumps(chatter).encode()
        flood = masked(1, text) * 5_000 + masked(8, b"\x03\xe8")
        for _ in range(5):
            old, new = await come(), await come()
            await old.tell(**register, invocation_id=new_id())
            assert (await old.message())["result"] == {"success": True}
            await old.stream.send_all(flood)
            await new.tell(**register, invocation_id=new_id())
            answer = await new.message()
            assert answer.get("result") == {"success": True}, answer
            for bare in (old, new):
                await bare.stream.aclose()
            while engine.statistics().sessions:  # noqa: ASYNC110  (nothing tells)
                await trio.sleep(0.001)


def masked(opcode: int, payload: bytes) -> bytes:
    """One frame, masked with zeros."""
    head = bytearray(frame_head(opcode, len(payload)))
    head[1] |= 0x80
    return bytes(head) + bytes(4) + payload
