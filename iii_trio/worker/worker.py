"""A worker with its functions and trigger types, and the calls that it makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar, final, overload

import trio

from ..environment import Environment
from ..errors import CallError, ConnectionFailed, MisuseError
from ..report import RateLimitedLogger, get_logger
from ..structure import structure_result
from ..transport.link import Address
from ..wire import FEATURE, Action, Ref
from .call_context import CallContext, RunSync
from .calls import PendingCall, WorkerSession, call_text
from .channels import ENGINES_DEFAULT, Channel, channel_request, open_channel, ref_of
from .end_keeper import EndKeeper
from .ends import ChannelReader, ChannelResult, ChannelWriter
from .introduction import introduction
from .jobs import NO_OPTIONS, Enqueue, Receipt
from .membership import Membership
from .registering import Registering
from .start_queue import CallStartQueue
from .worker_state import WorkerState

T = TypeVar("T")
LOGGER: Final = get_logger("iii_trio.worker")


@final
class Worker(Registering):
    """A worker of one engine. Made by `open_worker`."""

    def __init__(
        self,
        address: Address,
        connections: trio.Nursery,
        *,
        name: str,
        namespace: str | None,
        description: str | None,
        run_sync: RunSync,
        environment: Environment,
        features: Iterable[str] = (),
    ) -> None:
        super().__init__(namespace, RateLimitedLogger(name, LOGGER, name_field="iii_worker"), environment.new_id)
        self.name = name
        self.address = address
        self._tasks: trio.Nursery
        """Runs the handlers. It ends before the connections that they answer through."""
        self._environment = environment
        self._ends = EndKeeper(address, connections, lambda: self._membership.session, self._wait_session, LOGGER)
        context = CallContext(run_sync, self._log, self._ends.open, self._ends.finish_later)
        self._start_queue = CallStartQueue(self._registrations.functions, context, self._run)
        self._membership = Membership(
            address,
            connections,
            introduction(name, namespace, description, features),
            self._registrations,
            self._start_queue.add,
            self._ends.on_channel_ended,
            environment,
        )

    def __repr__(self) -> str:
        return f"<Worker {self.name!r} at {self.address}: {self.state}>"

    # --- connection

    @property
    def connected(self) -> bool:
        """Whether the engine has accepted this worker, and has not lost it."""
        return self._membership.session is not None

    @property
    def state(self) -> str:
        """The state of its connection: connecting, registering, connected, backoff, rejected or closed."""
        return self._membership.state.current.name.lower()

    @property
    def worker_id(self) -> str | None:
        """The id that the engine gave it, or None without a connection. It is new for every link."""
        session = self._membership.session
        return session.worker_id if session is not None else None

    async def wait_connected(self) -> None:
        """Wait until `connected`.

        Raises Rejected if the engine refused this worker, ConnectionFailed if it has left. If cancelled: nothing changes.
        """
        await self._wait_session()
        await trio.lowlevel.checkpoint()

    async def wait_state(self, state: str) -> None:
        """Wait until `state` is this one. Raises MisuseError for an unknown state. If cancelled: nothing changes."""
        if state.upper() not in WorkerState.__members__:
            raise MisuseError(f"there is no state {state!r}, but {', '.join(p.name.lower() for p in WorkerState)}")
        await trio.lowlevel.checkpoint()
        while self.state != state:
            await self._membership.changed.park()

    async def supports_extensions(self) -> bool:
        """Wait for a connection, and return whether its engine has the extensions of clause C8.

        If cancelled: nothing changes.
        """
        return (await self._wait_session()).supports_extensions

    async def wait_registered(self) -> dict[str, str]:
        """Wait until the engine has read all registrations so far. Return the refused functions with the reasons.

        Without a connection, it waits for one. It does not wait for the providers of bindings.
        Raises ConnectionFailed when there will be none. If cancelled: nothing changes.
        """
        await trio.lowlevel.checkpoint()
        while True:
            session = await self._wait_session()
            if await session.ping():
                functions = self._registrations.functions.values()
                return {one.id: one.refused for one in functions if one.refused is not None}
            membership = self._membership
            while membership.session is session and not membership.state.is_final:  # until its loss is known
                await membership.changed.park()

    # --- calls

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
        into: type[T],
    ) -> T: ...

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
        into: Any = Any,
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
        into: Any = Any,
    ) -> Any:
        """Call a function and wait for its value.

        The value is made of JSON values, or structured as the annotation `into` (attrs classes, …). Only the caller's
        cancel scopes limit the time. Channel ends in the payload travel as their refs. `namespace` defaults to this
        worker's own, and to `default` for the engine's functions. The trace headers default to those of the call that is
        being answered. With `action=enqueue("mail")` the call becomes a job of that queue, and the value is its
        `Receipt`, which comes when the job is stored. Without a connection, the call waits for one.

        Raises CallError with the code that the handler or the engine gave. The code is `invocation_stopped` if the link is
        lost before the answer, `deserialization_error` for a value that does not fit `into`, and `function_not_found` for
        an empty id, also of a job. Raises MisuseError for an id, a namespace or an action that is none.
        If cancelled: the handler is cancelled too, if the engine and its worker have the extensions (clause C5.5). Otherwise
        its late answer is ignored.
        """
        job = None
        if action is not None:
            if isinstance(action, Enqueue):
                job, action = action, action.action
            # Few other values could be read by the engine, which would blame the message as a whole.
            elif not isinstance(action, Action):
                raise MisuseError(_no_action(action))
        call = PendingCall(function_id, self._environment.new_id())
        text = call_text(
            function_id,
            call.invocation_id,
            payload,
            namespace=self._namespace_of(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=action,
        )
        session = self._membership.session or await self._wait_session()
        # An engine without the extensions would drop the options without a word.
        if job is not None and job.options and not session.supports_extensions:
            raise CallError("enqueue_error", NO_OPTIONS.format(", ".join(job.options)), function_id=function_id)
        if session.link.has_room:
            await trio.lowlevel.checkpoint_if_cancelled()  # other tasks run while the answer is awaited
        else:
            await session.link.wait_room()
        session.send(call, text)
        try:
            await call.wait_settled()
        finally:
            if not call.settled:
                session.give_up(call, "the caller was cancelled")
        value = call.value()
        if job is not None:
            return Receipt.from_json(value, function_id, self.trigger)
        return value if into is Any else structure_result(value, into, function_id)

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
        """Call a function without an answer, and return when the call is on its way. Its arrival is not confirmed.

        Raises CallError for a payload that cannot be sent, MisuseError for an id that is not a string, and ConnectionFailed.
        If cancelled: the call was not made.
        """
        text = call_text(
            function_id,
            None,
            payload,
            namespace=self._namespace_of(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=Action("void"),
        )
        session = await self._wait_session()
        await session.link.wait_room()
        session.link.send(text)

    # --- channels

    def create_channel(
        self,
        buffer_size: int | None = None,
        *,
        max_bytes: int | None = None,
        expires_after_seconds: float | None = ENGINES_DEFAULT,
    ) -> AbstractAsyncContextManager[Channel]:
        """Open a channel that this worker owns, for the length of the block. It needs no connection (clause C1.1).

        Up to `buffer_size` items (default 64, at most 1024) and `max_bytes` (default 1 MiB) wait in it. An attached end
        waits for the other `expires_after_seconds` (`None`: without limit).

        Leaving the block ends both ends, but for those that were passed on and not used here: cleanly, or by abort if an
        exception leaves (clause C5.4). A writer that was neither used nor passed on gives an empty stream.

        Raises CallError `channel_limit_reached`. Raises MisuseError for a value out of range, and for more than
        `buffer_size` from an engine without the extensions of clause C8. If cancelled: as leaving by an exception.
        """
        request = channel_request(buffer_size, max_bytes, expires_after_seconds)

        async def create() -> dict[str, Any]:
            # Another engine would ignore the bounds, and the caller would rely on them.
            if len(request) > 1 and not await self.supports_extensions():
                raise MisuseError(
                    f"{self.address} takes no max_bytes nor expires_after_seconds: it has not announced {FEATURE}"
                )
            refs: dict[str, Any] = await self.trigger("engine::channels::create", request)
            return refs

        return open_channel(self._ends, create)

    def open_reader(self, ref: Ref | Mapping[str, Any]) -> ChannelReader:
        """Make the reading end that a ref names. The caller closes it. Raises MisuseError for any other value."""
        return ChannelReader(self._ends, ref_of(ref))

    def open_writer(self, ref: Ref | Mapping[str, Any]) -> ChannelWriter:
        """Make the writing end that a ref names. The caller closes it. Raises MisuseError for any other value."""
        return ChannelWriter(self._ends, ref_of(ref))

    async def wait_outcome(self, channel_id: str) -> ChannelResult:
        """Wait until a channel that this worker owns, or holds an end of, has ended for both of its ends.

        Raises MisuseError if the engine does not tell, ConnectionFailed if the link is lost. If cancelled: nothing changes.
        """
        return await self._ends.wait_outcome(channel_id)

    # --- inside

    def _run(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> bool:
        """Run this in a task of the worker, unless the worker is leaving. Return whether it runs."""
        # A task of a closing nursery would be cancelled before it could answer.
        if self._tasks.cancel_scope.cancel_called:
            return False
        self._tasks.start_soon(function, *arguments)
        return True

    def _close(self) -> None:
        """End all ends by force, and say goodbye."""
        self._ends.close()
        self._membership.leave()

    async def _wait_session(self) -> WorkerSession:
        while (session := self._membership.session) is None:
            if self._membership.state.is_final:
                await trio.lowlevel.checkpoint()
            self._check_has_not_left()
            await self._membership.changed.park()
        return session

    def _check_has_not_left(self) -> None:
        if self._membership.rejection is not None:
            raise self._membership.rejection
        if self._membership.state.is_final:
            raise ConnectionFailed(f"the worker '{self.name}' has left {self.address}")


def _no_action(action: object) -> str:
    """Return the error about a value that stands in the place of an action."""
    if action == "void":
        return "`action` is 'void'; to call without an answer, write worker.trigger_void(function_id, payload)"
    # A dict, as SDKs of iii have it, may be long.
    shown = repr(action) if isinstance(action, str) else f"of type {type(action).__name__}"
    return f'`action` is {shown}; to enqueue a job, write action=iii_trio.enqueue("QUEUE"); to call, leave it out'
