"""An engine, workers and channel ends for the tests of the clauses: in memory, in virtual time."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeVar

import attrs
import msgspec
import trio
import trio.testing

from iii_trio.config import EngineConfig
from iii_trio.embed import Engine, open_engine
from iii_trio.engine.shell import Shell
from iii_trio.environment import Environment
from iii_trio.errors import ChannelBroken
from iii_trio.testing.network import Network
from iii_trio.transport.dial import SocketAddress
from iii_trio.transport.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT
from iii_trio.transport.link import Address, EndReason, Identity, Link, ReadingEnd, WritingEnd
from iii_trio.wire import (
    FEATURE,
    ChannelEnded,
    Direction,
    InvocationResult,
    InvokeFunction,
    Message,
    Outcome,
    Ref,
    Undecodable,
    WorkerRegistered,
    attach_target,
    decode,
    encode,
    to_json,
)

from .raw_peer import MASK, RawPeer

Clock = trio.testing.MockClock
IN_PROCESS: Final = "in_process"
WEBSOCKET: Final = "websocket"
WAITED: Final = "waited_websocket"
"""A WebSocket over a stream that, as TLS, can be read and written by waiting only."""
ENDS: Final = (IN_PROCESS, WEBSOCKET, WAITED)
MIB: Final = 1024 * 1024

T = TypeVar("T")


@attrs.define(eq=False)
class Peer:
    """A worker's session, played by hand: its link, its identity, and what the engine said to it."""

    world: World
    link: Link
    identity: Identity
    heard: list[Message] = attrs.field(factory=list)

    @property
    def header(self) -> tuple[str, str]:
        """With which a foreign client attaches as this session."""
        return ("Iii-Session", f"{self.identity.worker_id} {self.identity.channel_secret}")

    def ended(self) -> list[tuple[str, str]]:
        """The `channelended` messages it got: id and outcome."""
        return [(message.channel_id, message.outcome) for message in self.heard if isinstance(message, ChannelEnded)]

    async def call(self, function_id: str, **data: Any) -> Any:
        """Call a function of the engine; the result, or the error's body as a dict with `code`."""
        invocation_id = self.world.new_id()
        self.link.send(encode(InvokeFunction(function_id, invocation_id, data=to_raw(data))))
        for _ in range(100):
            for message in self.heard:
                if isinstance(message, InvocationResult) and message.invocation_id == invocation_id:
                    return json.loads(bytes(message.error or message.result))
            await self.world.news.park()
        raise AssertionError("no answer")

    async def create_channel(self, **options: Any) -> tuple[Ref, Ref]:
        """The refs of a new channel: writer, reader."""
        told = await self.call("engine::channels::create", **options)
        return Ref.from_json(told["writer"]), Ref.from_json(told["reader"])

    async def listen(self) -> None:
        """Keep what the engine says."""
        while (message := await self.link.receive()) is not None:
            decoded = decode(message)
            assert not isinstance(decoded, Undecodable), decoded
            self.heard.append(decoded)
            self.world.news.unpark_all()


def to_raw(value: Any) -> Any:
    """JSON as a message's payload."""
    return msgspec.Raw(to_json(value))


@attrs.define(eq=False)
class World:
    """One engine, and whoever talks to it."""

    engine: Engine
    nursery: trio.Nursery
    connections: trio.Nursery
    network: Network = attrs.field(factory=Network)
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    opened: list[trio.abc.Stream] = attrs.field(factory=list)
    """The client side of every stream that was dialled, in order."""
    _ids: Iterator[int] = attrs.field(factory=lambda: itertools.count(0xF000))

    @property
    def shell(self) -> Shell:
        """The engine's inside, for what only a test wants to see."""
        return self.engine._shell

    def new_id(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._ids):012x}"

    def address(self, kind: str) -> Address:
        if kind == IN_PROCESS:
            return self.engine.address
        dial = self.dial_waited if kind == WAITED else self.dial
        return SocketAddress("ws://sim", dial=dial, new_mask=lambda: MASK)

    async def dial(self) -> trio.abc.Stream:
        """The client side of a new connection to the engine."""
        return self.connect(*self.network.pair())

    async def dial_waited(self) -> trio.abc.Stream:
        """As `dial`, by a stream without room of its own that can be read and written by waiting only."""
        return self.connect(*trio.testing.lockstep_stream_pair())

    def connect(self, ours: trio.abc.Stream, theirs: trio.abc.Stream) -> trio.abc.Stream:
        """Have the engine serve one side of a pair; the other one."""
        self.opened.append(ours)
        self.connections.start_soon(self.engine.serve_stream, theirs)
        return ours

    async def worker(self, kind: str = IN_PROCESS, *, feature: bool = True) -> Peer:
        """A worker's session. With `feature` it has announced that it knows what is ours."""
        link = await self.nursery.start(self.address(kind).connect)
        hello = decode((await link.receive()) or b"")
        assert isinstance(hello, WorkerRegistered) and hello.channel_secret is not None
        peer = Peer(self, link, Identity(hello.worker_id, hello.channel_secret))
        self.nursery.start_soon(peer.listen)
        if feature:
            await peer.call("engine::workers::register", features=[FEATURE])
        return peer

    async def writer(
        self, kind: str, ref: Ref, holder: Peer | None = None, scope: trio.CancelScope | None = None
    ) -> WritingEnd:
        """Attach a writer; cancelling `scope` cancels the task that holds it."""
        end: WritingEnd = await self._attach(self.address(kind).attach_writer, ref, holder, scope)
        return end

    async def reader(
        self, kind: str, ref: Ref, holder: Peer | None = None, scope: trio.CancelScope | None = None
    ) -> ReadingEnd:
        """Attach a reader; cancelling `scope` cancels the task that holds it."""
        end: ReadingEnd = await self._attach(self.address(kind).attach_reader, ref, holder, scope)
        return end

    async def _attach(
        self, attach: Callable[..., Awaitable[None]], ref: Ref, holder: Peer | None, scope: trio.CancelScope | None
    ) -> Any:
        async def hold(*, task_status: trio.TaskStatus[Any]) -> None:
            with scope or trio.CancelScope():
                await attach(ref, holder.identity if holder is not None else None, task_status=task_status)

        return await self.nursery.start(hold)

    async def raw(self, ref: Ref | str, *headers: tuple[str, str]) -> RawPeer:
        """A foreign client that has asked for the upgrade with these headers, and read the head of the answer."""
        target = ref if isinstance(ref, str) else attach_target(ref)
        return await RawPeer.connect(await self.dial(), target, headers)

    async def settle(self) -> None:
        """Wait until nobody has anything to do. Takes no virtual time."""
        await trio.testing.wait_all_tasks_blocked()

    async def outcome(self) -> tuple[Outcome, str]:
        """How the last channel that ended did, once nobody has anything to do."""
        await self.settle()
        ended = self.engine.ended_channels()[-1]
        return ended.outcome, ended.reason

    def held(self) -> dict[str, int]:
        """How much the engine holds for channels and their ends."""
        shell = self.shell
        return {
            "channels": len(shell.hub.channels),
            "attached_channels": len(shell.attached_channels),
            "connections": shell.connections,
            "tasks": len(self.connections.child_tasks),
            "owned": sum(len(s.owned) + len(s.held_writers) + len(s.held_readers) for s in shell.hub.sessions.values()),
        }


Open = Callable[..., AbstractAsyncContextManager[World]]


@asynccontextmanager
async def open_world(config: EngineConfig | None = None) -> AsyncIterator[World]:
    """A world; at its end everybody leaves, and the engine must hold nothing (clause C4.7)."""
    ids = itertools.count(1)
    config = attrs.evolve(config or EngineConfig(), modules={"queue": None})  # the clauses are of channels
    with trio.fail_after(100_000):  # of virtual time: a hang fails at once
        async with (
            open_engine(config, environment=Environment(lambda: f"00000000-0000-4000-8000-{next(ids):012x}")) as engine,
            trio.open_nursery() as connections,
        ):
            async with trio.open_nursery() as people:
                world = World(engine, people, connections)
                await connections.start(world.network.run)
                try:
                    yield world
                finally:
                    people.cancel_scope.cancel()
                    for stream in world.opened:
                        with trio.CancelScope(shield=True):
                            await trio.aclose_forcefully(stream)
            await trio.sleep(400)  # what nobody fetches expires
            assert len(connections.child_tasks) == 1  # the network's own
            connections.cancel_scope.cancel()
            assert not any(attrs.astuple(engine.statistics())), engine.statistics()
            assert not world.shell.outputs


# --- what ends say


async def take_all(reader: ReadingEnd) -> list[bytes | str]:
    """Every item up to the clean end."""
    got: list[bytes | str] = []
    try:
        while True:
            got.append(await reader.take())
    except trio.EndOfChannel:
        return got


async def put_all(writer: WritingEnd, items: Iterable[bytes | str]) -> None:
    """Write a whole stream, and end it cleanly."""
    for item in items:
        await writer.put(item)
    await writer.close()


async def error_of(operation: Callable[..., Awaitable[object]], *args: object) -> ChannelBroken:
    """The ChannelBroken that an operation raises."""
    try:
        result = await operation(*args)
    except ChannelBroken as error:
        return error
    raise AssertionError(f"nothing was raised; the result is {result!r}")


async def write_until_broken(
    writer: WritingEnd, item: bytes | str = b"x" * 1000, limit: int = 100_000
) -> ChannelBroken:
    """Put items until the channel breaks."""
    for _ in range(limit):
        try:
            await writer.put(item)
        except ChannelBroken as error:
            return error
    raise AssertionError("the channel never broke")


__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "ENDS",
    "IN_PROCESS",
    "MASK",
    "MIB",
    "PING",
    "PONG",
    "TEXT",
    "WAITED",
    "WEBSOCKET",
    "Clock",
    "Direction",
    "EndReason",
    "EngineConfig",
    "Open",
    "Peer",
    "RawPeer",
    "ReadingEnd",
    "World",
    "WritingEnd",
    "attach_target",
    "error_of",
    "open_world",
    "put_all",

    "take_all",
    "to_raw",
    "write_until_broken",
]  # fmt: skip
