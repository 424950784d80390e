"""The worker: what a program offers to the mesh, and what it asks of it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast, final

import trio

from ..core.membership import Phase
from ..errors import CallError, ChannelBroken, ConnectionFailed, IIIError, MisuseError
from ..transport.link import Address, Identity
from ..transport.link import End as TransportEnd
from ..wire import (
    DEFAULT_NAMESPACE,
    FEATURE,
    Action,
    CancelInvocation,
    ChannelEnded,
    Direction,
    Outcome,
    Ref,
    encode,
)
from .bindings import Binding
from .calls import PendingCall, Session, call_text
from .channels import Channel, open_channel, ref_of
from .declare import Registered, declare
from .ends import ChannelReader, ChannelWriter, Ended
from .handler import Handler
from .introduction import introduction
from .membership import LOGGER, Membership
from .offers import Offers
from .outcomes import Outcomes
from .payload import End
from .providing import TriggerType

H = TypeVar("H", bound=Handler)
P = TypeVar("P")
RunSync = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[Any]]

_ENGINES_DEFAULT: Any = object()


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
        self.offers = Offers()
        self.run_sync = run_sync
        self.new_id = new_id
        self.membership = Membership(self, rng)
        self.introduction = introduction(name, namespace, description)
        self.outcomes = Outcomes()
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
        forbid_extra_keys: bool = False,
    ) -> Registered:
        """Offer a function, from now on and on every new link.

        The handler's parameters are keys of the payload, structured by their annotations (attrs classes, lists, …);
        one parameter without a matching key takes the payload whole; `metadata` takes what travels beside it. Refs in the
        payload are live ends by then. An async handler runs in a cancel scope of its own, any other in a thread.
        `request_format` and `response_format`, JSON Schemas that are shown and not enforced, are made from the signature
        where they are not given. With `forbid_extra_keys` a key that nobody asked for is an error, at any depth.

        Raises MisuseError if the id is offered already, or the handler's parameters have no names.
        """
        declared = declare(
            function_id,
            handler,
            description=description,
            metadata=metadata,
            request_format=request_format,
            response_format=response_format,
            forbid_extra_keys=forbid_extra_keys,
        )
        self.offers.offer(declared)
        return Registered(self.offers, declared)

    def trigger_type(self, type_id: str, **described: Any) -> Callable[[P], P]:
        """Decorator: provide this trigger type. Options as for `register_trigger_type`."""

        def register(provider: P) -> P:
            self.register_trigger_type(type_id, provider, **described)
            return provider

        return register

    def register_trigger_type(
        self,
        type_id: str,
        provider: Any,
        *,
        description: str | None = None,
        config: Any = None,
        payload: Any = None,
        trigger_request_format: Any = None,
        call_request_format: Any = None,
    ) -> TriggerType:
        """Provide a trigger type, from now on and on every new link: be told of each binding to it, and fire them.

        `provider` is an async function `(bound, *, task_status)` that runs for as long as the binding lives: it raises to
        refuse it, calls `task_status.started()` to take it, and is cancelled when nobody wants it any more. Or it is an
        object (or a class of one) with `register_trigger(bound)` and `unregister_trigger(bound)`, or a pair of such
        functions, async or plain (not to block): each success of the first has one call of the second, under the
        cancellation if the worker is leaving. `bound` is a `BoundTrigger`.

        `config` and `payload` are annotations (attrs classes, …): configurations are structured by the one, or refused;
        their JSON Schemas are shown where `trigger_request_format` and `call_request_format` are not given.

        Raises MisuseError if the type is provided already, or `provider` is none.
        """
        provided = TriggerType(
            self,
            self.offers,
            type_id,
            provider,
            description=description,
            config=config,
            payload=payload,
            trigger_request_format=trigger_request_format,
            call_request_format=call_request_format,
        )
        self.offers.offer(provided)
        return provided

    def register_trigger(
        self,
        trigger_type: str,
        function_id: str,
        *,
        config: Any = None,
        metadata: Any = None,
        namespace: str | None = None,
        trigger_namespace: str | None = None,
        on_error: Callable[[CallError], object] | None = None,
    ) -> Binding:
        """Have a function called whenever a trigger fires, from now on and on every new link.

        `metadata` reaches it beside the payload. `namespace` is where the function is (default: this worker's own),
        `trigger_namespace` where the type is provided (default: this worker's own, then `default`). Neither need be there
        yet. A refusal is kept as `error`, logged, and told to `on_error`.

        Raises CallError `serialization_error` for a config or metadata that is no JSON.
        """
        binding = Binding(
            self.offers,
            self.new_id(),
            trigger_type,
            function_id,
            config=config,
            metadata=metadata,
            namespace=self._where(function_id, namespace),
            trigger_namespace=trigger_namespace,
            on_error=on_error,
        )
        self.offers.offer(binding)
        return binding

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
            while membership.session is session and not membership.life.over:  # until its loss is known
                await membership.changed.park()

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
        text = call_text(
            function_id,
            call.invocation_id,
            payload,
            namespace=self._where(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=action,
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
        text = call_text(
            function_id,
            None,
            payload,
            namespace=self._where(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=Action("void"),
        )
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

    def channel_ended(self, session: Session, message: ChannelEnded) -> None:
        """The engine told how a channel ended: whoever waits for it, and the ends of it that are held here, learn of it."""
        self.outcomes.told(session, message.channel_id, Ended(message.outcome, message.reason))
        try:
            ended = TransportEnd(Outcome(message.outcome), message.reason, message.code)
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

    def _where(self, function_id: str, namespace: str | None) -> str | None:
        """The namespace in which a function is looked up."""
        if namespace is None:
            return DEFAULT_NAMESPACE if function_id.startswith("engine::") else self.namespace
        return namespace

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
