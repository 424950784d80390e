"""The worker: what a program offers to the mesh, and what it asks of it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast, final, overload

import trio

from ..errors import ChannelBroken, ConnectionFailed, IIIError, MisuseError
from ..report import RateLimitedLogger
from ..transport.link import Address, EndReason, Identity
from ..wire import (
    FEATURE,
    Action,
    ChannelEnded,
    Direction,
    InvokeFunction,
    Outcome,
    Ref,
    encode,
)
from .beginning import Beginnings
from .calls import Asked, PendingCall, Session, call_text, checked
from .channels import Channel, check_bounds, open_channel, ref_of
from .ends import ChannelReader, ChannelWriter, Ended
from .handler import Handler
from .introduction import introduction
from .membership import LOGGER, Membership
from .offering import Offering
from .offers import Offers
from .outcomes import Outcomes
from .payload import End
from .queueing import Enqueue, Receipt
from .worker_state import WorkerState

H = TypeVar("H", bound=Handler)
P = TypeVar("P")
RunSync = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]

_ENGINES_DEFAULT: Any = object()


@final
class Worker(Offering):
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
        self.offers = Offers()
        self.log = RateLimitedLogger(name, LOGGER, name_field="iii_worker")
        self.run_sync = run_sync
        self.new_id = new_id
        self.membership = Membership(self, rng)
        self.introduction = introduction(name, namespace, description)
        self.outcomes = Outcomes()
        self.beginnings = Beginnings(self)
        self._held: set[End] = set()
        self._finishing: dict[ChannelWriter, trio.CancelScope] = {}
        self._finished = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Worker {self.name!r} at {self.address}: {self.state}>"

    # --- being connected

    @property
    def connected(self) -> bool:
        """Whether the engine has this worker, and all that it offers, at this moment."""
        return self.membership.session is not None

    @property
    def state(self) -> str:
        """Where its membership is: dialing, greeting, ready, waiting, refused or retired."""
        return self.membership.state.current.name.lower()

    @property
    def worker_id(self) -> str | None:
        """The id that the engine gave it, while connected; a new one for every link."""
        session = self.membership.session
        return session.worker_id if session is not None else None

    async def wait_connected(self) -> None:
        """Wait until `connected`. If cancelled: nothing changes."""
        await self._connected()
        await trio.lowlevel.checkpoint()

    async def wait_state(self, state: str) -> None:
        """Wait until `state` is this one. If cancelled: nothing changes."""
        if state.upper() not in WorkerState.__members__:
            raise MisuseError(f"there is no state {state!r}, but {', '.join(p.name.lower() for p in WorkerState)}")
        await trio.lowlevel.checkpoint()
        while self.state != state:
            await self.membership.changed.park()

    # --- what it offers

    async def wait_registered(self) -> dict[str, str]:
        """Wait until the engine has read all that was offered so far; what it refused: why, by the function's id.

        Without a connection, waits for one. How bindings are taken is their providers' word, which may come later.
        Raises ConnectionFailed when there will be none. If cancelled: nothing changes.
        """
        await trio.lowlevel.checkpoint()
        while True:
            session = await self._connected()
            if await session.ping():
                return {one.id: one.refused for one in self.offers.functions.values() if one.refused is not None}
            membership = self.membership
            while membership.session is session and not membership.state.is_final:  # until its loss is known
                await membership.changed.park()

    # --- what it asks

    @overload
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
    ) -> Any: ...

    @overload
    async def trigger(
        self,
        function_id: str,
        payload: Any = None,
        *,
        namespace: str | None = None,
        metadata: Any = None,
        traceparent: str | None = None,
        baggage: str | None = None,
        action: Enqueue,
    ) -> Receipt: ...

    async def trigger(
        self,
        function_id: str,
        payload: Any = None,
        *,
        namespace: str | None = None,
        metadata: Any = None,
        traceparent: str | None = None,
        baggage: str | None = None,
        action: Action | Enqueue | None = None,
    ) -> Any:
        """Call a function and wait for its value, as JSON values. There is no time limit but the caller's cancel scopes.

        Channel ends in the payload travel as their refs. `namespace` defaults to this worker's own (`default` for the
        engine's functions); the trace headers to those of the call that is being answered. With
        `action=enqueue("mail")` the call becomes a job of that queue, and the value is its `Receipt`: it is kept then, and
        will be done. Without a connection, waits for one.

        Raises CallError with the code that travelled; `invocation_stopped` if the link is lost before the answer.
        If cancelled: the handler is cancelled too, if the engine and its worker understand (clause C5.5); else its late
        answer is ignored.
        """
        settled = trio.Event()
        call = PendingCall(function_id, self.new_id(), settled.set)
        text = call_text(
            function_id,
            call.invocation_id,
            payload,
            namespace=self.where(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=action.action if isinstance(action, Enqueue) else action,
        )
        session = await self._connected()
        if session.link.has_room:
            await trio.lowlevel.checkpoint_if_cancelled()  # the loop has its turn while the answer is waited for
        else:
            await session.link.wait_room()
        session.send(call, text)
        try:
            await settled.wait()
        finally:
            session.give_up(call, "the caller was cancelled")  # unless it is settled
        value = call.value()
        return Receipt.of(value, function_id) if isinstance(action, Enqueue) else value

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
        text = call_text(
            function_id,
            None,
            payload,
            namespace=self.where(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=Action("void"),
        )
        session = await self._connected()
        await session.link.wait_room()
        session.link.send(text)

    @property
    def can_call(self) -> bool:
        """Whether `ask` may be called now: there is a connection, and it takes more."""
        session = self.membership.session
        return session is not None and session.link.has_room

    async def wait_can_call(self) -> None:
        """Wait until `can_call`. Raises ConnectionFailed when it will not be. If cancelled: nothing changes."""
        while not self.can_call:
            await (await self._connected()).link.wait_room()

    def call_nowait(self, message: InvokeFunction, then: Callable[[], object]) -> Asked:
        """Make a call without a task that waits for it: `then` is called once it is settled, and must not wait.

        For modules whose calls are many and small. The message is sent as it is, but for its `invocation_id`, which is
        made here. Only while `can_call`. Raises CallError `payload_too_large`.
        """
        session = self.membership.session
        assert session is not None
        call = PendingCall(message.function_id, self.new_id(), then)
        message.invocation_id = call.invocation_id
        session.send(call, checked(encode(message), message.function_id))
        return Asked(session, call)

    def flush(self) -> None:
        """Have what was asked and answered go out now, and not with what follows in this turn of the loop."""
        if self.membership.session is not None:
            self.membership.session.link.flush_output()

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
        Raises CallError `channel_limit_reached`. Raises MisuseError for a value out of range, and for more than
        `buffer_size` from an engine without the extensions of clause C8. If cancelled: as leaving by an exception.
        """
        check_bounds(
            buffer_size, max_bytes, None if expires_after_seconds is _ENGINES_DEFAULT else expires_after_seconds
        )
        wanted: dict[str, Any] = {"buffer_size": buffer_size}
        if max_bytes is not None:
            wanted["max_bytes"] = max_bytes
        if expires_after_seconds is not _ENGINES_DEFAULT:
            wanted["expires_after_ms"] = None if expires_after_seconds is None else expires_after_seconds * 1000
        return open_channel(self, wanted)

    def open_reader(self, ref: Ref | Mapping[str, Any]) -> ChannelReader:
        """The reading end that a ref names, in the caller's hands. Raises MisuseError for any other value."""
        end = self.make_end(ref_of(ref, Direction.READ), None)
        assert isinstance(end, ChannelReader)
        return end

    def open_writer(self, ref: Ref | Mapping[str, Any]) -> ChannelWriter:
        """The writing end that a ref names, in the caller's hands. Raises MisuseError for any other value."""
        end = self.make_end(ref_of(ref, Direction.WRITE), None)
        assert isinstance(end, ChannelWriter)
        return end

    # --- for the ends, and for answering

    def run(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        """Run this in a task of this worker's, unless it is leaving."""
        if not self.tasks.cancel_scope.cancel_called:
            self.tasks.start_soon(function, *arguments)

    def make_end(self, ref: Ref, invocation_id: str | None) -> End:
        """The live end that a ref names."""
        kind = ChannelReader if ref.direction is Direction.READ else ChannelWriter
        return kind(self, ref, invocation_id)

    def hold(self, end: End) -> None:
        """Start the task that attaches and holds this end."""
        if self.membership.state.is_final:
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
        self._finishing[writer] = trio.CancelScope()
        self.connections.start_soon(self._finish, writer)

    async def wait_finished(self) -> None:
        """Wait until the writers of finished handlers are closed. If cancelled: nothing changes."""
        while self._finishing:
            await self._finished.park()

    def channel_ended(self, session: Session, message: ChannelEnded) -> None:
        """The engine told how a channel ended: whoever waits for it, and the ends of it that are held here, learn of it."""
        self.outcomes.told(session, message.channel_id, Ended(message.outcome, message.reason))
        try:
            ended = EndReason(Outcome(message.outcome), message.reason, message.code)
        except ValueError:
            return  # an outcome of a newer engine: the end's own socket will tell
        for end in [end for end in self._held if end.channel_id == message.channel_id]:
            end.told(ended)

    async def wait_outcome(self, channel_id: str) -> Ended:
        """Wait until a channel that this worker owns, or holds an end of, has ended for both."""
        await trio.lowlevel.checkpoint()
        if channel_id in self.outcomes:
            return self.outcomes[channel_id]
        session = await self._connected()
        if not session.knows_us:
            raise MisuseError(f"{self.address} does not tell how channels end: it has not announced {FEATURE}")
        return await self.outcomes.wait(session, channel_id)

    async def knows_us(self) -> bool:
        """Whether the engine understands the extensions of clause C8."""
        return (await self._connected()).knows_us

    def retire(self) -> None:
        """Leave: what it holds ends, unless it is closing cleanly already."""
        for end in list(self._held):
            if isinstance(end, ChannelWriter):
                end.abort("the worker left")
            else:
                end.cancel("the worker left")
        for scope in self._finishing.values():
            scope.cancel(reason="the worker left")
        self.membership.leave()

    # --- inside

    async def _connected(self) -> Session:
        membership = self.membership
        while membership.session is None:
            if membership.refused is not None:
                raise membership.refused
            if membership.state.is_final:
                await trio.lowlevel.checkpoint()
                raise ConnectionFailed(f"the worker '{self.name}' has left {self.address}")
            await membership.changed.park()
        return membership.session

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
            with self._finishing[writer]:
                await writer.aclose()
        except (ChannelBroken, ConnectionFailed, trio.BusyResourceError, trio.ClosedResourceError) as error:
            LOGGER.info("a stream that a handler wrote did not end well: %s", error)
        finally:
            del self._finishing[writer]
            self._finished.unpark_all()
