"""Conversations are plain values. They hold the streams of some workers and the failures meanwhile.

A conversation can be drawn (from a seed, or by a Hypothesis strategy), held in a simulated world, and shown. A `Stream`'s
`Told` records the experience of each end, for `promises.py` to judge.
"""

from __future__ import annotations

import math
from enum import Enum
from random import Random
from typing import Final, TypeAlias

import attrs
import trio

from ..errors import CallError, ChannelBroken, ConnectionFailed
from ..records import define, frozen
from ..wire import Ref
from ..worker import ChannelReader, ChannelWriter, Worker
from .sim_stream import Conditions
from .world import Over, World

Item: TypeAlias = bytes | str


class Ending(Enum):
    """The action of a writer after its items."""

    CLOSES = "closes"
    ABORTS = "aborts"
    FAILS = "fails"  # an exception leaves its block
    STAYS = "stays"  # it says nothing for a while, then it fails


@frozen
class Stream:
    """One channel of a conversation, with the indices of its owner, writer and reader, and their behaviour."""

    items: tuple[Item, ...]
    ending: Ending = Ending.CLOSES
    takes: int | None = None
    """After how many items the reader cancels; None: it wants all."""
    owner: int = 0
    writer: int = 0
    reader: int = 0
    buffer_size: int = 64
    writer_waits: float = 0.0
    """Seconds before the first item."""
    writer_pauses: float = 0.0
    """Seconds after each item."""
    reader_waits: float = 0.0
    reader_pauses: float = 0.0


class Mishap(Enum):
    """A kind of failure of a worker or the engine."""

    CRASH = "crash"  # its process is killed, and started again
    RESET = "reset"  # its connections are reset
    PARTITION = "partition"  # what it sends, and is sent, vanishes, and arrives later
    ENGINE_CRASH = "engine crash"
    ENGINE_RESTART = "engine restart"


@frozen
class Fault:
    """One failure with its time, its worker and its duration."""

    at: float
    mishap: Mishap
    worker: int = 0
    lasts: float = 0.0


@frozen
class Conversation:
    """Streams between workers, and what goes wrong meanwhile."""

    workers: tuple[Over, ...]
    """How each worker reaches the engine."""
    streams: tuple[Stream, ...]
    faults: tuple[Fault, ...] = ()
    conditions: Conditions = attrs.field(factory=Conditions)

    @property
    def takes_no_time(self) -> bool:
        """Return whether no task waits for time, so that virtual time must not move (clause C3.5)."""
        return (
            not self.faults
            and not (self.conditions.delay_seconds or self.conditions.jitter_seconds)
            and self.conditions.bytes_per_second == math.inf
            and not any(
                stream.ending is Ending.STAYS
                or stream.writer_waits
                or stream.writer_pauses
                or stream.reader_waits
                or stream.reader_pauses
                for stream in self.streams
            )
        )


@define
class Told:
    """The actions of the ends of one stream, and the outcomes they observed."""

    stream: Stream
    channel_id: str | None = None
    offered: int = 0
    """How many items the writer began to send."""
    sent: int = 0
    closing: bool = False
    """The writer began to close cleanly."""
    writer_ended: str | None = None
    """`closed`, `aborted`, the outcome it was told, or the name of another error; None if it was cut off."""
    received: list[Item] = attrs.field(factory=list)
    reader_ended: str | None = None
    """`clean`, `cancelled`, the outcome it was told, or the name of another error; None if it was cut off."""
    owner_heard: str | None = None
    """The outcome that the owner was told; None if it was cut off."""
    refs: dict[str, Ref] | None = None
    allocated: trio.Event = attrs.field(factory=trio.Event, repr=False, eq=False)
    parties: int = 2
    parted: trio.Event = attrs.field(factory=trio.Event, repr=False, eq=False)

    settled: trio.Event = attrs.field(factory=trio.Event, repr=False, eq=False)

    def part(self) -> None:
        """One of the two ends is done with it."""
        self.parties -= 1
        if not self.parties:
            self.parted.set()


class WriterFailed(Exception):
    """The exception that leaves the block of a writer that `FAILS`."""


async def hold(world: World, conversation: Conversation) -> list[Told]:
    """Hold a conversation in a world, and return the observed outcomes once all streams are over."""
    told = [Told(stream) for stream in conversation.streams]
    begun: set[int] = set()
    over = trio.Event()

    def program(index: int) -> _Part:
        return _Part(world, index, told, begun, over)

    for index, way in enumerate(conversation.workers):
        await world.start_worker(f"w{index}", program(index), way)
    async with trio.open_nursery() as nursery:
        for fault in conversation.faults:
            nursery.start_soon(_befall, world, fault, len(conversation.workers))
        for one in told:
            await one.parted.wait()
            await one.settled.wait()
        nursery.cancel_scope.cancel()
    over.set()
    return told


async def _befall(world: World, fault: Fault, workers: int) -> None:
    await trio.sleep(fault.at)
    name = f"w{fault.worker % workers}"
    match fault.mishap:
        case Mishap.CRASH:
            world.crash_worker(name)
            await trio.sleep(fault.lasts)
            # Another crash at the same time may have had it started already.
            if not world.has_crashed(name):
                return
            try:
                await world.restart_worker(name)
            except ConnectionFailed as error:  # its name is not free yet, say
                world.note(name, "does not come back:", error)
        case Mishap.RESET:
            world.note(name, "is reset")
            world.network.reset(name)
        case Mishap.PARTITION:
            world.note(name, "is cut off for", fault.lasts)
            world.network.partition(name)
            try:
                await trio.sleep(fault.lasts)
            finally:
                world.network.heal(name)
        case Mishap.ENGINE_CRASH | Mishap.ENGINE_RESTART:
            await world.restart_engine(crash=fault.mishap is Mishap.ENGINE_CRASH)


@define
class _Part:
    """The part of one worker in a conversation."""

    world: World
    index: int
    told: list[Told]
    begun: set[int]
    over: trio.Event

    async def __call__(self, worker: Worker) -> None:
        if self.index not in self.begun:  # in its second life it only serves
            self.begun.add(self.index)
            async with trio.open_nursery() as nursery:
                for told in self.told:
                    for role, act in (
                        (told.stream.owner, own),
                        (told.stream.writer, write),
                        (told.stream.reader, read),
                    ):
                        if role == self.index:
                            nursery.start_soon(act, self.world, worker, told)
        await self.over.wait()


async def own(world: World, worker: Worker, told: Told) -> None:
    """Create the channel, and keep it while it is used."""
    try:
        async with worker.create_channel(told.stream.buffer_size) as channel:
            told.channel_id = channel.id
            told.refs = {"writer": channel.writer_ref, "reader": channel.reader_ref}
            told.allocated.set()
            await told.parted.wait()
            with trio.move_on_after(_OUTCOME_SECONDS):
                told.owner_heard = (await channel.wait_outcome()).outcome
    except (CallError, ConnectionFailed) as error:
        world.note("the owner was told:", error)
    finally:
        told.allocated.set()
        told.settled.set()


async def write(world: World, worker: Worker, told: Told) -> None:
    """Be the writer of a stream."""
    stream = told.stream
    try:
        await told.allocated.wait()
        if told.refs is not None:
            await trio.sleep(stream.writer_waits)
            await _write(world, worker.open_writer(told.refs["writer"]), told)
    except ChannelBroken as error:
        told.writer_ended = error.outcome
    except (ConnectionFailed, trio.BrokenResourceError) as error:
        told.writer_ended = type(error).__name__
    except WriterFailed:
        told.writer_ended = "aborted"
    finally:
        told.part()


async def _write(world: World, writer: ChannelWriter, told: Told) -> None:
    stream = told.stream
    async with writer:
        for item in stream.items:
            told.offered += 1
            await writer.send(item)
            told.sent += 1
            if stream.writer_pauses:
                await trio.sleep(stream.writer_pauses)
        match stream.ending:
            case Ending.CLOSES:
                told.closing = True
            case Ending.ABORTS:
                writer.abort("as it was to be")
                told.writer_ended = "aborted"
                return
            case Ending.FAILS:
                raise WriterFailed("as it was to be")
            case Ending.STAYS:
                await trio.sleep(_STAYS_SECONDS)
                await writer.wait_room()
                raise WriterFailed("stayed long enough")
    told.writer_ended = "closed"


_STAYS_SECONDS: Final = 30.0
_OUTCOME_SECONDS: Final = 400.0  # long enough for what expires; a channel that nobody could attach has none


async def read(world: World, worker: Worker, told: Told) -> None:
    """Be the reader of a stream."""
    stream = told.stream
    try:
        await told.allocated.wait()
        if told.refs is not None:
            await trio.sleep(stream.reader_waits)
            await _read(world, worker.open_reader(told.refs["reader"]), told)
    except ChannelBroken as error:
        told.reader_ended = error.outcome
    except (ConnectionFailed, trio.BrokenResourceError) as error:
        told.reader_ended = type(error).__name__
    finally:
        told.part()


async def _read(world: World, reader: ChannelReader, told: Told) -> None:
    stream = told.stream
    while stream.takes is None or len(told.received) < stream.takes:
        try:
            told.received.append(await reader.receive())
        except trio.EndOfChannel:
            told.reader_ended = "clean"
            return
        if stream.reader_pauses:
            await trio.sleep(stream.reader_pauses)
    reader.cancel("as it was to be")
    told.reader_ended = "cancelled"


# --- drawn from a seed


def draw_conversation(random: Random) -> Conversation:
    """Draw a conversation of a few small streams. About half of them have a failure, a fifth use sockets."""
    sockets = 0.7 if random.random() < 0.2 else 0.0
    workers: tuple[Over, ...] = tuple(
        "network" if random.random() < sockets else "memory" for _ in range(random.randint(1, 3))
    )
    streams = tuple(_draw_stream(random, len(workers)) for _ in range(random.choice((1, 1, 1, 2, 3))))
    faults: tuple[Fault, ...] = ()
    if random.random() < 0.5:
        faults = tuple(_draw_fault(random, len(workers)) for _ in range(random.choice((1, 1, 2))))
    return Conversation(workers, streams, faults, _draw_conditions(random))


def _draw_conditions(random: Random) -> Conditions:
    if random.random() < 0.5:
        return Conditions()
    return Conditions(
        delay_seconds=random.choice((0.0, 0.01)),
        jitter_seconds=random.choice((0.0, 0.01)),
        bytes_per_second=random.choice((math.inf, 100_000.0)),
        segment_bytes=random.choice((7, 100, 1_460)),
        split=random.choice((0.0, 0.5)),
        merge=random.choice((0.0, 0.5, 1.0)),
        short_writes=random.choice((0.0, 0.5)),
        lost_by_reset=random.choice((0.0, 1.0)),
        send_buffer_bytes=random.choice((100, 10_000)),
        receive_buffer_bytes=random.choice((100, 10_000)),
    )


def _draw_stream(random: Random, workers: int) -> Stream:
    def now_and_then(most: float) -> float:
        return round(random.random() * most, 3) if random.random() < 0.3 else 0.0

    items = tuple(_draw_item(random, i) for i in range(random.choice((0, 1, 2, 5, 10, 30))))
    return Stream(
        items=items,
        ending=random.choices(list(Ending), (6, 1, 1, 1))[0],
        takes=None if random.random() < 0.8 else random.randint(0, len(items) + 1),
        owner=random.randrange(workers),
        writer=random.randrange(workers),
        reader=random.randrange(workers),
        buffer_size=random.choice((1, 2, 4, 64)),
        writer_waits=now_and_then(2.0),
        writer_pauses=now_and_then(0.1),
        reader_waits=now_and_then(2.0),
        reader_pauses=now_and_then(0.1),
    )


def _draw_item(random: Random, i: int) -> Item:
    size = random.choice((0, 1, 10, 125, 126, 1000, 3000))
    if random.random() < 0.3:
        return (f"{i}é" * size)[:size]
    return (i.to_bytes(2, "big") * size)[:size]


def _draw_fault(random: Random, workers: int) -> Fault:
    return Fault(
        at=round(random.random() * 2.0, 3),
        mishap=random.choices(list(Mishap), (4, 3, 2, 1, 1))[0],
        worker=random.randrange(workers),
        lasts=random.choice((0.0, 0.5, 5.0, 200.0)),
    )
