"""The worker: what a program offers to the mesh, and what it asks of it."""

from __future__ import annotations

import os
import platform
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar, cast, final

import trio
from msgspec import Raw

from ..core.membership import Phase
from ..errors import CallError, ChannelBroken, ConnectionFailed, IIIError, MisuseError
from ..transport.link import Address, Identity
from ..wire import (
    DEFAULT_NAMESPACE,
    FEATURE,
    LARGE_MESSAGES,
    MAX_MESSAGE_BYTES,
    Action,
    CancelInvocation,
    Direction,
    ErrorCode,
    InvokeFunction,
    Ref,
    UnregisterFunction,
    encode,
)
from .calls import PendingCall, Session
from .channels import Channel, open_channel
from .context import CURRENT
from .declare import Declared, declare
from .ends import ChannelReader, ChannelWriter, Ended
from .handler import Handler
from .membership import LOGGER, Membership
from .payload import End, encode_payload

H = TypeVar("H", bound=Handler)
RunSync = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]

_ENGINES_DEFAULT: Any = object()
_REMEMBERED_OUTCOMES: Final = 1_000


@final
class Worker:
    """A member of the mesh. Made by `open_worker`."""

    def __init__(
        self,
        address: Address,
        connections: trio.Nursery,
        *,
        name: str,
        namespace: str | None,
        description: str | None,
        run_sync: RunSync,
        new_id: Callable[[], str],
        rng: random.Random,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self.connections = connections
        """Where its link and the ends that it holds live."""
        self.tasks: trio.Nursery
        """Where what it does lives: it ends before the connections that it speaks through."""
        self.declared: dict[str, Declared] = {}
        self.run_sync = run_sync
        self.new_id = new_id
        self.membership = Membership(self, rng)
        self._description = description
        self._outcomes: OrderedDict[str, Ended] = OrderedDict()
        self._held: set[End] = set()

    def __repr__(self) -> str:
        return f"<Worker {self.name!r} at {self.address}: {self.phase}>"

    # --- being connected

    @property
    def connected(self) -> bool:
        """Whether the engine has this worker, and all that it offers, at this moment."""
        return self.membership.session is not None

    @property
    def phase(self) -> str:
        """Where its membership is: dialing, greeting, ready, waiting, refused or retired."""
        return self.membership.life.phase.name.lower()

    @property
    def worker_id(self) -> str | None:
        """The id that the engine gave it, while connected; a new one for every link."""
        session = self.membership.session
        return session.worker_id if session is not None else None

    async def wait_connected(self) -> None:
        """Wait until `connected`. If cancelled: nothing changes."""
        await self._connected()
        await trio.lowlevel.checkpoint()

    async def wait_phase(self, phase: str) -> None:
        """Wait until `phase` is this one. If cancelled: nothing changes."""
        if phase.upper() not in Phase.__members__:
            raise MisuseError(f"there is no phase {phase!r}, but {', '.join(p.name.lower() for p in Phase)}")
        await trio.lowlevel.checkpoint()
        while self.phase != phase:
            await self.membership.changed.park()

    # --- what it offers

    def function(self, function_id: str, **described: Any) -> Callable[[H], H]:
        """Decorator: offer this handler as `function_id`. Options as for `register_function`."""

        def register(handler: H) -> H:
            self.register_function(function_id, handler, **described)
            return handler

        return register

    def register_function(
        self,
        function_id: str,
        handler: Handler,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_format: Any = None,
        response_format: Any = None,
    ) -> Registered:
        """Offer a function, from now on and on every new link.

        The handler's parameters are keys of the payload, structured by their annotations (attrs classes, lists, …);
        one parameter without a matching key takes the payload whole; `metadata` takes what travels beside it. Refs in the
        payload are live ends by then. An async handler runs in a cancel scope of its own, any other in a thread.

        Raises MisuseError if the id is offered already, or the handler's parameters have no names.
        """
        if function_id in self.declared:
            raise MisuseError(f"this worker offers {function_id} already: unregister it first")
        declared = declare(
            function_id,
            handler,
            description=description or _first_line(handler),
            metadata=metadata,
            request_format=request_format,
            response_format=response_format,
        )
        self.declared[function_id] = declared
        session = self.membership.session
        if session is not None:
            session.link.send(declared.message())
        return Registered(self, declared)

    def withdraw(self, declared: Declared) -> None:
        """Offer a function no longer; calls under way go on."""
        if self.declared.get(declared.id) is declared:
            del self.declared[declared.id]
            session = self.membership.session
            if session is not None:
                session.link.send(encode(UnregisterFunction(declared.id)))

    # --- what it asks

    async def trigger(
        self,
        function_id: str,
        payload: Any = None,
        *,
        namespace: str | None = None,
        metadata: Any = None,
        traceparent: str | None = None,
        baggage: str | None = None,
        action: Action | None = None,
    ) -> Any:
        """Call a function and wait for its value, as JSON values. There is no time limit but the caller's cancel scopes.

        Channel ends in the payload travel as their refs. `namespace` defaults to this worker's own (`default` for the
        engine's functions); the trace headers to those of the call that is being answered. With
        `action=Action("enqueue", queue)` the value is the queue's receipt. Without a connection, waits for one.

        Raises CallError with the code that travelled; `invocation_stopped` if the link is lost before the answer.
        If cancelled: the handler is cancelled too, if the engine and its worker understand (clause C5.5); else its late
        answer is ignored.
        """
        call = PendingCall(function_id, self.new_id())
        text = self._call_text(
            call.invocation_id, function_id, payload, namespace, metadata, traceparent, baggage, action
        )
        session = await self._connected()
        await session.link.wait_room()
        session.pending[call.invocation_id] = call
        try:
            session.link.send(text)
            if session.link.ended is not None and not call.settled.is_set():
                call.lost = session.link.ended.reason
                call.settled.set()
            await call.settled.wait()
        except trio.Cancelled:
            if session.knows_us and not call.settled.is_set():
                session.link.send(encode(CancelInvocation(call.invocation_id, "the caller was cancelled")))
            raise
        finally:
            session.pending.pop(call.invocation_id, None)
        return call.value()

    async def trigger_void(
        self,
        function_id: str,
        payload: Any = None,
        *,
        namespace: str | None = None,
        metadata: Any = None,
        traceparent: str | None = None,
        baggage: str | None = None,
    ) -> None:
        """Call a function and want no answer; returns when the call is on its way. Nothing tells whether it arrived.

        If cancelled: the call was not made.
        """
        text = self._call_text(None, function_id, payload, namespace, metadata, traceparent, baggage, Action("void"))
        session = await self._connected()
        await session.link.wait_room()
        session.link.send(text)

    def create_channel(
        self,
        buffer_size: int | None = None,
        *,
        max_bytes: int | None = None,
        expires_after_seconds: float | None = _ENGINES_DEFAULT,
    ) -> AbstractAsyncContextManager[Channel]:
        """A new channel, owned by this worker, for the length of the block. No connection is opened for it (clause C1.1).

        `buffer_size` items (default 64, at most 1024) and `max_bytes` (default 1 MiB) may wait in it;
        `expires_after_seconds` is how long one attached end waits for the other (None: for ever).

        Leaving the block ends what was used of it here: cleanly, or by abort if an exception leaves (clause C5.4). Ends
        that were passed on and not used here are let go untouched.
        Raises CallError `channel_limit_reached`; MisuseError if the engine is not one of ours and is asked for more than
        `buffer_size`. If cancelled: as leaving by an exception.
        """
        wanted: dict[str, Any] = {"buffer_size": buffer_size}
        if max_bytes is not None:
            wanted["max_bytes"] = max_bytes
        if expires_after_seconds is not _ENGINES_DEFAULT:
            wanted["expires_after_ms"] = None if expires_after_seconds is None else expires_after_seconds * 1000
        return open_channel(self, wanted)

    def open_reader(self, ref: Ref | Mapping[str, Any]) -> ChannelReader:
        """The reading end that a ref names, in the caller's hands. Raises MisuseError for any other value."""
        end = self.make_end(_a_ref(ref, Direction.READ), None)
        assert isinstance(end, ChannelReader)
        return end

    def open_writer(self, ref: Ref | Mapping[str, Any]) -> ChannelWriter:
        """The writing end that a ref names, in the caller's hands. Raises MisuseError for any other value."""
        end = self.make_end(_a_ref(ref, Direction.WRITE), None)
        assert isinstance(end, ChannelWriter)
        return end

    # --- for the ends, and for answering

    def make_end(self, ref: Ref, invocation_id: str | None) -> End:
        """The live end that a ref names."""
        kind = ChannelReader if ref.direction is Direction.READ else ChannelWriter
        return kind(self, ref, invocation_id)

    def hold(self, end: End) -> None:
        """Start the task that attaches and holds this end."""
        if self.membership.life.over:
            end.not_attached(ConnectionFailed(f"the worker '{self.name}' has left {self.address}"))
            return
        self._held.add(end)
        self.connections.start_soon(self._hold, end)

    def identity(self, invocation_id: str | None) -> Identity | None:
        """As whom to attach an end: this session, where the engine knows holders (clause C8.2)."""
        session = self.membership.session
        if session is None or not session.knows_us or session.channel_secret is None:
            return None
        return Identity(session.worker_id, session.channel_secret, invocation_id)

    def finish_later(self, writer: ChannelWriter) -> None:
        """Close a writer cleanly, in a task of this worker's."""
        self.connections.start_soon(self._finish, writer)

    def channel_ended(self, session: Session, channel_id: str, ended: Ended) -> None:
        """The engine told of an outcome."""
        self._outcomes[channel_id] = ended
        while len(self._outcomes) > _REMEMBERED_OUTCOMES:
            self._outcomes.popitem(last=False)
        event = session.outcomes.pop(channel_id, None)
        if event is not None:
            event.set()

    async def wait_outcome(self, channel_id: str) -> Ended:
        """Wait until a channel that this worker owns, or holds an end of, has ended for both."""
        await trio.lowlevel.checkpoint()
        if channel_id not in self._outcomes:
            session = await self._connected()
            if not session.knows_us:
                raise MisuseError(f"{self.address} does not tell how channels end: it has not announced {FEATURE}")
            await session.outcomes.setdefault(channel_id, trio.Event()).wait()
            if channel_id not in self._outcomes:
                raise ConnectionFailed(f"the link to {self.address} was lost before the channel's outcome was told")
        return self._outcomes[channel_id]

    async def knows_us(self) -> bool:
        """Whether the engine understands the extensions of clause C8."""
        return (await self._connected()).knows_us

    def description(self) -> dict[str, Any]:
        """What it says of itself (`engine::workers::register`)."""
        said: dict[str, Any] = {
            "runtime": "python",
            "version": _version(),
            "name": self.name,
            "os": f"{platform.system()} {platform.release()} ({platform.machine()})",
            "pid": os.getpid(),
            "isolation": os.environ.get("III_ISOLATION"),
            "namespace": self.namespace,
            "telemetry": {"language": "python", "framework": "iii-trio"},
            "features": [FEATURE, LARGE_MESSAGES],
        }
        if self._description is not None:
            said["description"] = self._description
        return said

    def retire(self) -> None:
        """Leave: what it holds ends, unless it is closing cleanly already."""
        for end in list(self._held):
            if isinstance(end, ChannelWriter):
                end.abort("the worker left")
            else:
                end.cancel("the worker left")
        self.membership.leave()

    # --- inside

    async def _connected(self) -> Session:
        membership = self.membership
        while membership.session is None:
            if membership.refused is not None:
                raise membership.refused
            if membership.life.over:
                await trio.lowlevel.checkpoint()
                raise ConnectionFailed(f"the worker '{self.name}' has left {self.address}")
            await membership.changed.park()
        return membership.session

    def _call_text(
        self,
        invocation_id: str | None,
        function_id: str,
        payload: Any,
        namespace: str | None,
        metadata: Any,
        traceparent: str | None,
        baggage: str | None,
        action: Action | None,
    ) -> bytes:
        around = CURRENT.get()
        if around is not None:
            traceparent = traceparent or around.traceparent
            baggage = baggage or around.baggage
        if namespace is None:
            namespace = DEFAULT_NAMESPACE if function_id.startswith("engine::") else self.namespace
        message = InvokeFunction(
            function_id=function_id,
            invocation_id=invocation_id,
            data=Raw(encode_payload(payload, "the payload")),
            traceparent=traceparent,
            baggage=baggage,
            action=action,
            namespace=namespace,
        )
        if metadata is not None:
            message.metadata = Raw(encode_payload(metadata, "the metadata"))
        text = encode(message)
        if len(text) > MAX_MESSAGE_BYTES:
            problem = f"the call is {len(text)} bytes as JSON, the limit is {MAX_MESSAGE_BYTES}: use a channel"
            raise CallError(ErrorCode.PAYLOAD_TOO_LARGE, problem, function_id=function_id)
        return text

    async def _hold(self, end: End) -> None:
        ref, identity = end.attach_as()
        try:
            if isinstance(end, ChannelWriter):
                await self.address.attach_writer(ref, identity, task_status=cast(Any, end))
            else:
                await self.address.attach_reader(ref, identity, task_status=cast(Any, end))
        except (IIIError, trio.BrokenResourceError) as error:
            end.not_attached(error)
        finally:
            self._held.discard(end)

    async def _finish(self, writer: ChannelWriter) -> None:
        try:
            await writer.aclose()
        except (ChannelBroken, ConnectionFailed, trio.BusyResourceError) as error:
            LOGGER.info("a stream that a handler wrote did not end well: %s", error)


@final
class Registered:
    """A function that a worker offers."""

    def __init__(self, worker: Worker, declared: Declared) -> None:
        self._worker = worker
        self._declared = declared

    @property
    def id(self) -> str:
        return self._declared.id

    @property
    def refused(self) -> str | None:
        """Why the engine refused it, if it did: another worker has it in this namespace."""
        return self._declared.refused

    def unregister(self) -> None:
        """Offer it no longer; calls under way go on. Twice is harmless."""
        self._worker.withdraw(self._declared)


def _a_ref(ref: Ref | Mapping[str, Any], direction: Direction) -> Ref:
    try:
        found = ref if isinstance(ref, Ref) else Ref.from_json(ref)
    except IIIError as error:
        raise MisuseError(str(error)) from None
    if found.direction is not direction:
        raise MisuseError(f"this ref is for the other end of the channel: its direction is {found.direction}")
    return found


def _first_line(handler: Handler) -> str | None:
    doc = getattr(handler, "__doc__", None)
    return doc.strip().splitlines()[0] if isinstance(doc, str) and doc.strip() else None


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("iii-trio")
    except PackageNotFoundError:
        return "unknown"
