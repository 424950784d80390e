"""An engine played by the test: an `Address` whose links and ends keep what they are told and say what the test wants."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import attrs
import msgspec
import trio

from iii_trio.errors import ChannelBroken, ConnectionFailed
from iii_trio.transport.link import EndReason, Identity, Link, ReadingEnd, Reads, WritingEnd
from iii_trio.wire import (
    FEATURE,
    ChannelEnded,
    InvocationResult,
    InvokeFunction,
    Message,
    Outcome,
    Ping,
    Pong,
    Ref,
    RegisterFunction,
    RegistrationRejected,
    WireError,
    WorkerRegistered,
    decode,
    encode,
    to_json,
)

M = TypeVar("M", bound=Message)
REGISTER = "engine::workers::register"
CREATE = "engine::channels::create"


def raw(value: Any) -> msgspec.Raw:
    """JSON as a message carries it."""
    return msgspec.Raw(to_json(value))


def parsed(text: msgspec.Raw) -> Any:
    """What a message carries, as a value; None where it carries nothing."""
    return json.loads(bytes(text)) if text else None


def ref(channel_id: str, direction: str) -> dict[str, Any]:
    """A ref as it travels."""
    return {"channel_id": channel_id, "access_key": f"key-{channel_id}-{direction}", "direction": direction}


@attrs.define(eq=False, slots=False)
class FakeLink:
    """One link, from both sides."""

    engine: FakeEngine
    number: int
    worker_id: str
    heard: list[Message] = attrs.field(factory=list)
    over: trio.Event = attrs.field(factory=trio.Event)
    said_goodbye: str | None = None
    ended: EndReason | None = None

    writes: list[int] = attrs.field(factory=list)
    """How many messages came together, for each time that some came."""
    _later: list[bytes] = attrs.field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._into, self._out_of = trio.open_memory_channel[bytes](math.inf)

    # --- as the worker uses it

    async def receive(self) -> bytes | None:
        try:
            return await self._out_of.receive()
        except trio.EndOfChannel:
            return None

    async def listen(self, on_message: Callable[[bytes], object]) -> None:
        while (message := await self.receive()) is not None:
            on_message(message)
            with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:  # all that has come, at once
                    on_message(self._out_of.receive_nowait())

    def send(self, message: bytes) -> None:
        self.send_later(message)
        self._write()

    def send_later(self, message: bytes) -> None:
        if self.ended is None:
            self._later.append(message)

    def _hear(self, message: bytes) -> None:
        decoded = decode(message)
        assert not hasattr(decoded, "problem"), decoded
        self.heard.append(decoded)
        self.engine.react(self, decoded)
        self.engine.news.unpark_all()

    def bracket(self, reads: Reads) -> None:
        pass

    def hold_output(self) -> None:
        pass

    def flush_output(self) -> None:
        self._write()

    def _write(self) -> None:
        later, self._later = self._later, []
        if later:
            self.writes.append(len(later))
        for message in later:
            self._hear(message)

    @property
    def is_checked(self) -> bool:
        return False

    @property
    def has_room(self) -> bool:
        return not self.engine.full or self.ended is not None

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.engine.full and self.ended is None:
            await self.engine.news.park()

    def close(self, reason: str = "") -> None:
        self._write()
        if self.ended is None:
            self.said_goodbye = reason
            self._end(reason)

    # --- as the test uses it

    def say(self, message: Message) -> None:
        """Send a message to the worker."""
        if self.ended is None:
            self._into.send_nowait(encode(message))

    def say_text(self, text: bytes) -> None:
        """Send anything to the worker."""
        self._into.send_nowait(text)

    def drop(self, reason: str = "the test dropped it") -> None:
        """Lose the link."""
        if self.ended is None:
            self._end(reason)

    def of(self, kind: type[M]) -> list[M]:
        """The messages of one type that came, in order; without what every worker says at first."""
        return [m for m in self.heard if isinstance(m, kind) and getattr(m, "function_id", "") != REGISTER]

    async def hear(self, kind: type[M], count: int = 1) -> M:
        """Wait for the message of this type that is number `count`."""
        while len(self.of(kind)) < count:
            assert self.ended is None, f"the link ended before {kind.__name__} came: {self.heard}"
            await self.engine.news.park()
        return self.of(kind)[count - 1]

    async def hear_register(self) -> InvokeFunction:
        """Wait for the register call."""
        while True:
            for message in self.heard:
                if isinstance(message, InvokeFunction) and message.function_id == REGISTER:
                    return message
            await self.engine.news.park()

    def invoke(self, function_id: str, data: Any = None, *, invocation_id: str = "i1", **fields: Any) -> None:
        """Call a function of the worker, not waiting for its answer."""
        if "metadata" in fields:
            fields["metadata"] = raw(fields["metadata"])
        self.say(InvokeFunction(function_id, invocation_id, data=raw(data), **fields))

    async def call(self, function_id: str, data: Any = None, **fields: Any) -> Any:
        """Call a function of the worker; its value, or the body of its error as a dict that has a `code`."""
        invocation_id = fields.pop("invocation_id", None) or self.engine.new_id()
        self.invoke(function_id, data, invocation_id=invocation_id, **fields)
        return outcome(await self.answer_to(invocation_id))

    async def answer_to(self, invocation_id: str) -> InvocationResult:
        """Wait for the answer to a call."""
        while True:
            for message in self.of(InvocationResult):
                if message.invocation_id == invocation_id:
                    return message
            assert self.ended is None, "the link ended before the answer came"
            await self.engine.news.park()

    def answer(self, call: InvokeFunction, value: Any = None, *, error: Any = None) -> None:
        """Answer a call of the worker's."""
        assert call.invocation_id is not None
        if error is not None:
            self.say(InvocationResult(call.invocation_id, call.function_id, error=raw(error)))
        else:
            self.say(InvocationResult(call.invocation_id, call.function_id, raw(value)))

    def _end(self, reason: str) -> None:
        self.ended = EndReason(None, reason)
        self._into.close()
        self.over.set()
        self.engine.news.unpark_all()


def outcome(message: InvocationResult) -> Any:
    """The value of an answer, or its error's body."""
    return parsed(message.error) if message.error else parsed(message.result)


@attrs.define(eq=False)
class FakeEnd:
    """One attached end: what was done with it, and what it gives."""

    engine: FakeEngine
    ref: Ref
    identity: Identity | None
    items: deque[bytes | str] = attrs.field(factory=deque)
    """Of a writer: what was put. Of a reader: what it will give."""
    done: list[Any] = attrs.field(factory=list)
    """What the worker did to end it, in order: `close`, `("abort", reason, code)`, `("cancel", reason, code)`, `lost`."""
    room: bool = True
    finished: bool = False
    """Of a reader: behind its items is the clean end."""
    ended: EndReason | None = None
    over: trio.Event = attrs.field(factory=trio.Event)

    async def put(self, item: bytes | str) -> None:
        await self.wait_room()
        if self.ended is not None:
            raise ChannelBroken(str(self.ended.outcome), self.ended.reason, code=self.ended.code)
        self.items.append(item)
        self.engine.news.unpark_all()

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self.room and self.ended is None:
            await self.engine.news.park()

    async def close(self) -> None:
        self.done.append("close")
        self.engine.news.unpark_all()
        try:
            await self.wait_room()
        except trio.Cancelled:
            self.abort("cancelled while closing")
            raise
        if self.ended is not None and self.ended.outcome is not Outcome.COMPLETED:
            raise ChannelBroken(str(self.ended.outcome), self.ended.reason)
        self.finish(Outcome.COMPLETED)

    def abort(self, reason: str, code: str | None = None) -> None:
        if self.ended is None:
            self.done.append(("abort", reason, code))
            self.finish(Outcome.ABORTED, reason, code)

    async def take(self) -> bytes | str:
        await trio.lowlevel.checkpoint()
        while not self.items and not self.finished and self.ended is None:
            await self.engine.news.park()
        if self.ended is not None and self.ended.outcome is not Outcome.COMPLETED:
            raise ChannelBroken(str(self.ended.outcome), self.ended.reason, code=self.ended.code)
        if self.items:
            return self.items.popleft()
        self.finish(Outcome.COMPLETED)
        raise trio.EndOfChannel

    def cancel(self, reason: str, code: str | None = None) -> None:
        if self.ended is None:
            self.done.append(("cancel", reason, code))
            self.finish(Outcome.READER_CANCELLED, reason, code)

    async def wait_ended(self) -> EndReason:
        await self.over.wait()
        assert self.ended is not None
        return self.ended

    def told(self, end: EndReason) -> None:
        if end.outcome is not None and end.outcome is not Outcome.COMPLETED:
            self.finish(end.outcome, end.reason, end.code)

    def finish(self, outcome: Outcome, reason: str = "", code: str | None = None) -> None:
        """The channel ends."""
        if self.ended is None:
            self.ended = EndReason(outcome, reason, code)
            self.over.set()
            self.engine.news.unpark_all()

    def change(self, **what: Any) -> None:
        """Set something, and wake whoever waits."""
        for name, value in what.items():
            setattr(self, name, value)
        self.engine.news.unpark_all()


@attrs.define(eq=False)
class FakeEngine:
    """The address, and all that happened at it."""

    features: tuple[str, ...] = (FEATURE,)
    links: list[FakeLink] = attrs.field(factory=list)
    dials: list[float] = attrs.field(factory=list)
    """When the worker dialled, whether it got through or not."""
    unreachable: bool = False
    silent: bool = False
    full: bool = False
    register_error: WireError | None = None
    name_taken: bool = False
    deaf: bool = False
    """Pings and the register call are not answered: the test does it."""
    attach_error: Exception | None = None
    attach_gate: trio.Event | None = None
    ends: dict[tuple[str, str], FakeEnd] = attrs.field(factory=dict)
    prepare: Callable[[FakeEnd], None] = lambda end: None
    """What to do with an end when it is attached."""
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def __str__(self) -> str:
        return "ws://fake"

    def new_id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._ids):012x}"

    @property
    def link(self) -> FakeLink:
        """The newest link."""
        return self.links[-1]

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        self.dials.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.unreachable:
            raise ConnectionFailed("no engine at ws://fake: Connection refused")
        link = FakeLink(self, len(self.links), self.new_id())
        self.links.append(link)
        if not self.silent:
            secret = "secret" if FEATURE in self.features else None
            link.say(WorkerRegistered(link.worker_id, f"token-{link.number}", self.features, secret))
        try:
            task_status.started(link)
            self.news.unpark_all()
            await link.over.wait()
        finally:
            link.drop("the link's task was cancelled")

    def react(self, link: FakeLink, message: Message) -> None:
        """What every engine does by itself."""
        match message:
            case InvokeFunction(function_id="engine::workers::register"):
                if self.name_taken:
                    link.say(RegistrationRejected("WORKER_NAMESPACE_CONFLICT", "default", "w0", worker_name="me"))
                if message.invocation_id is not None and not self.deaf:
                    if self.register_error is not None:
                        body = attrs_of(self.register_error)
                        link.say(InvocationResult(message.invocation_id, message.function_id, error=raw(body)))
                    else:
                        link.answer(message, {"success": not self.name_taken})
                if self.name_taken:
                    link.drop("the engine closed with 1000")
            case InvokeFunction(function_id="engine::channels::create"):
                channel_id = f"c{next(self._ids)}"
                link.answer(message, {"writer": ref(channel_id, "write"), "reader": ref(channel_id, "read")})
            case Ping():
                if not self.deaf:
                    link.say(Pong())
            case _:
                pass

    async def linked(self, count: int = 1) -> FakeLink:
        """Wait until the worker has dialled so often, with success."""
        while len(self.links) < count:
            await self.news.park()
        return self.links[count - 1]

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        await self._attach(ref, identity, task_status)

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        await self._attach(ref, identity, task_status)

    async def _attach(self, ref: Ref, identity: Identity | None, task_status: trio.TaskStatus[Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self.attach_gate is not None:
            await self.attach_gate.wait()
        if self.attach_error is not None:
            raise self.attach_error
        end = FakeEnd(self, ref, identity)
        self.prepare(end)
        assert (ref.channel_id, ref.direction) not in self.ends, f"attached twice: {ref}"
        self.ends[ref.channel_id, str(ref.direction)] = end
        try:
            task_status.started(end)
            self.news.unpark_all()
            await end.wait_ended()
        finally:
            if end.ended is None:
                end.done.append("lost")
                end.finish(Outcome.WRITER_LOST if ref.direction == "write" else Outcome.READER_LOST, "cancelled")

    async def attached(self, channel_id: str, direction: str) -> FakeEnd:
        """Wait until an end is attached."""
        while (channel_id, direction) not in self.ends:
            await self.news.park()
        return self.ends[channel_id, direction]

    def tell_ended(self, channel_id: str, outcome: str, reason: str = "") -> None:
        """Say that a channel has its outcome."""
        self.link.say(ChannelEnded(channel_id, outcome, reason))


def attrs_of(error: WireError) -> dict[str, Any]:
    """An error's body."""
    return {"code": error.code, "message": error.message}


def registered(link: FakeLink) -> list[str]:
    """The functions that were registered on a link, in order."""
    return [message.id for message in link.of(RegisterFunction)]
