"""Sessions and channel ends at one engine, which a check uses and which end with it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from ..records import define
from ..transport.frames import PING, PONG
from ..wire import FEATURE, Ref, attach_target, is_ref
from .peer import Message, NotAnEngine, Peer, Seen

SOON: Final = 1.0
"""Seconds within which an effect must be seen on a loopback or a near network."""
QUIET: Final = 0.25
"""Seconds without a sign after which nothing more is expected."""


class Broken(Exception):
    """A clause is broken. The text states the observation."""


class NotObservable(Exception):
    """A clause cannot be observed with this engine. The text states the reason."""


Check: TypeAlias = Callable[["Bench"], Awaitable[None]]


def expect(true: object, saw: object) -> None:
    """Raise Broken with the observation, unless the condition is true."""
    if not true:
        raise Broken(str(saw))


@asynccontextmanager
async def soon(what: str, seconds: float = SOON) -> AsyncIterator[None]:
    """Bound the time of the block. Raises Broken if it takes longer."""
    with trio.move_on_after(seconds) as deadline:  # noqa: ASYNC100 - the block waits
        yield
    # A cancellation from outside is not the engine's fault, so only this deadline is a verdict.
    if deadline.cancelled_caught:
        raise Broken(f"{what} had not happened after {seconds:g} s")


@define(eq=False)
class Session:
    """A worker's session, played by hand."""

    peer: Peer
    hello: dict[str, Any] = attrs.field(factory=dict)
    """What the engine said of itself: its `workerregistered`."""
    heard: list[dict[str, Any]] = attrs.field(factory=list)
    """What it said since, but for answers and pings."""
    answers: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    on_call: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    ended: bool = False

    @property
    def aware(self) -> bool:
        """Return whether the engine announced the extensions of iii-trio."""
        return FEATURE in (self.hello.get("features") or ()) and bool(self.hello.get("channel_secret"))

    @property
    def identity(self) -> dict[str, str]:
        """Return the header that makes this session the holder of an end (clause C8.2)."""
        return {"Iii-Session": f"{self.hello['worker_id']} {self.hello['channel_secret']}"}

    async def listen(self) -> None:
        """Keep what the engine says."""
        while (message := await self.peer.next_message()) is not None:
            said = _read(message)
            match said.get("type"):
                case "workerregistered":
                    self.hello = said
                case "invocationresult":
                    self.answers[said["invocation_id"]] = said
                # An engine cuts off a silent worker, so a session that is played by hand answers pings too.
                case "ping":
                    await self.peer.tell(type="pong")
                # A check that plays the callee has to act when the call comes, not when it looks for it.
                case "invokefunction" if self.on_call is not None:
                    self.heard.append(said)
                    await self.on_call(said)
                case _:
                    self.heard.append(said)
            self.news.unpark_all()
        self.ended = True
        self.news.unpark_all()

    async def call(self, function_id: str, **data: Any) -> Any:
        """Call a function and return its result. Raises Broken for an error, NotObservable for an unknown function."""
        invocation_id = await self.begin_call(function_id, data)
        async with soon(f"an answer to {function_id}", 5):
            # Answers come in any order, and any message wakes this task.
            while invocation_id not in self.answers and not self.ended:
                await self.news.park()
        # Without this a dropped session would look like a slow answer.
        if self.ended:
            raise Broken(f"instead of answering {function_id} the engine ended the session")
        answer = self.answers.pop(invocation_id)
        # A function that an engine lacks leaves a clause unseen, and does not break it.
        if (answer.get("error") or {}).get("code") == "function_not_found":
            raise NotObservable(f"the engine has no function {function_id}")
        if answer.get("error"):
            raise Broken(f"{function_id} was answered with {json.dumps(answer['error'])[:200]}")
        return answer.get("result")

    async def begin_call(self, function_id: str, data: Any) -> str:
        """Send a call, and give back its id."""
        invocation_id = str(uuid.uuid4())
        await self.peer.tell(type="invokefunction", function_id=function_id, invocation_id=invocation_id, data=data)
        return invocation_id

    async def hear(self, kind: str, seconds: float = SOON) -> dict[str, Any]:
        """Wait for the first message of this type and return it."""
        async with soon(f"a {kind} message", seconds):
            while True:
                for said in self.heard:
                    if said.get("type") == kind:
                        return said
                await self.news.park()
        raise AssertionError

    async def create_channel(self, **options: Any) -> tuple[Ref, Ref]:
        """Create a channel and return the refs of its writer and its reader."""
        told = await self.call("engine::channels::create", **options)
        # All other checks build on these refs, so a wrong one is named here rather than later.
        if not isinstance(told, dict) or not is_ref(told.get("writer")) or not is_ref(told.get("reader")):
            raise Broken(f"engine::channels::create gave {json.dumps(told)[:200]}")
        return Ref.from_json(told["writer"]), Ref.from_json(told["reader"])


@define(eq=False)
class Bench:
    """One engine under test, and the peers of a check."""

    url: str
    nursery: trio.Nursery
    peers: list[Peer] = attrs.field(factory=list)

    async def session(self, *, announce: bool = False) -> Session:
        """Open a worker's session, which announces the extensions if `announce` is true. Raises Broken if it is refused."""
        peer = await self.connect(_below(self.url))
        if peer.status != 101:
            raise Broken(f"a worker's connection was answered with {peer.status}")
        session = Session(peer)
        self.nursery.start_soon(session.listen)
        about: dict[str, Any] = {
            "runtime": "conformance",
            "version": "1",
            "name": f"conformance-{uuid.uuid4().hex[:8]}",
        }
        # A worker of an SDK announces nothing, and the engine must treat it so (clause C8.1).
        if announce:
            about["features"] = [FEATURE]
        await session.call("engine::workers::register", **about)
        return session

    async def aware(self) -> Session:
        """Open a session that announced the extensions. Raises NotObservable if the engine did not."""
        session = await self.session(announce=True)
        # Our extensions are no duty of an engine that does not announce them.
        if not session.aware:
            raise NotObservable(f"the engine does not announce {FEATURE}")
        return session

    async def connect(self, target: str, headers: dict[str, str] | None = None) -> Peer:
        """Connect, and ask for an upgrade at `target`."""
        peer = await Peer.connect(self.url, target, headers)
        self.peers.append(peer)
        return peer

    async def claim(self, ref: Ref, headers: dict[str, str] | None = None) -> Peer:
        """Try to attach an end and return the peer, whatever the answer is."""
        return await self.connect(attach_target(ref, self.url), headers)

    async def attach(self, ref: Ref, headers: dict[str, str] | None = None) -> Peer:
        """Attach an end and return it. Raises Broken if the engine refuses it."""
        peer = await self.claim(ref, headers)
        if peer.status != 101:
            raise Broken(f"a rightful {ref.direction} end was refused with {peer.status}")
        return peer

    async def pair(self, **options: Any) -> tuple[Peer, Peer]:
        """Return the writer and the reader of a new channel of a new session."""
        writer, reader = await (await self.session()).create_channel(**options)
        return await self.attach(writer), await self.attach(reader)

    async def held_pair(self, owner: Session, holder: Session) -> tuple[Peer, Peer]:
        """Return the writer and the reader of a new channel of `owner`, attached in the name of `holder`."""
        writer, reader = await owner.create_channel()
        return await self.attach(writer, holder.identity), await self.attach(reader, holder.identity)

    async def last_seen(self, peer: Peer, what: str, seconds: float = SOON, *, answer: bool = True) -> Seen:
        """Return everything that an end saw. Raises Broken, with the name `what`, if its end does not come soon.

        If its Close must not be answered, the Close is the end.
        """
        async with soon(what, seconds):
            return await peer.watch(answer=answer, timeout=seconds * 0.75)
        raise AssertionError

    async def takes(self, writer: Peer, *messages: Message) -> bool:
        """Send messages, and return whether the engine reads all of them soon. What it leaves is sent on by a task."""
        sent = trio.Event()

        async def send() -> None:
            await writer.send(*messages)
            sent.set()

        # How much the kernel takes for an engine that does not read is its own affair, so nothing may wait for it.
        self.nursery.start_soon(send)
        with trio.move_on_after(QUIET * 2):
            await sent.wait()
        return sent.is_set() and await self.round_trip(writer)

    async def round_trip(self, writer: Peer) -> bool:
        """Return whether a ping is answered soon. The answer shows that everything sent before was read."""
        mark = uuid.uuid4().bytes
        with trio.move_on_after(QUIET * 2):
            await writer.say(PING, mark)
            # An older pong may still be under way, so the mark decides.
            while (came := await writer.next_frame()) is not None:
                if came.opcode == PONG and came.payload == mark:
                    return True
        return False


def _read(message: Message) -> dict[str, Any]:
    try:
        said = json.loads(message)
    # A peer that is not an engine may send any text, and the report should name that.
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise NotAnEngine(f"a worker was sent {message[:60]!r}")
    return said


def _below(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@asynccontextmanager
async def open_bench(url: str) -> AsyncIterator[Bench]:
    """Open a bench. Its connections are closed at the end in any case.

    Of several errors, in the block and in its tasks, one is raised.
    """
    try:
        async with trio.open_nursery() as nursery:
            bench = Bench(url, nursery)
            try:
                yield bench
            finally:
                nursery.cancel_scope.cancel()
                # The engine must be rid of this check's connections before the next check begins.
                with trio.CancelScope(shield=True):
                    for peer in bench.peers:
                        await peer.drop()
    # A report has room for one cause a check.
    except BaseExceptionGroup as group:
        raise _first(group) from None


def _first(error: BaseException) -> BaseException:
    """Return the most important error: one that must not be swallowed, else a verdict, else any failure."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [_first(inner) for inner in error.exceptions]
    return min(found, key=lambda one: (isinstance(one, Exception), not isinstance(one, Broken | NotObservable)))


__all__ = [
    "QUIET",
    "SOON",
    "Bench",
    "Broken",
    "Check",
    "NotAnEngine",
    "NotObservable",
    "Session",
    "expect",
    "open_bench",
]
