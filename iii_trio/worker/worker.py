"""A worker with its functions and trigger types, and the calls that it makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final, overload

import trio

from ..environment import Environment
from ..errors import CallError, ConnectionFailed, MisuseError
from ..report import RateLimitedLogger, get_logger
from ..structure import structure_result
from ..transport.link import Address
from ..wire import DEFAULT_NAMESPACE, FEATURE, Action, Ref
from .call_context import CallContext, RunSync
from .calls import PendingCall, WorkerSession, call_text
from .channels import ENGINES_DEFAULT, Channel, channel_request, open_channel, ref_of
from .end_keeper import EndKeeper
from .ends import ChannelReader, ChannelResult, ChannelWriter
from .function_spec import FunctionSpec, Registered
from .handler_signature import Handler
from .introduction import introduction
from .jobs import NO_OPTIONS, SUBSCRIBER, Enqueue, Receipt, subscription
from .membership import Membership
from .registrations import Registrations
from .start_queue import CallStartQueue
from .trigger_binding import TriggerBinding
from .trigger_types import TriggerType
from .worker_state import WorkerState

if TYPE_CHECKING:
    from .external import ExternalCall
    from .http import HttpHandlerT

H = TypeVar("H", bound=Handler)
P = TypeVar("P")
T = TypeVar("T")
LOGGER: Final = get_logger("iii_trio.worker")


@final
class Worker:
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
        self.name = name
        self.namespace = namespace
        """The namespace of its functions and calls, or None for the engine's default."""
        self.address = address
        self._tasks: trio.Nursery
        """Runs the handlers. It ends before the connections that they answer through."""
        self._environment = environment
        self._registrations = Registrations()
        self._membership = Membership(
            address,
            connections,
            introduction(name, namespace, description, features),
            self._registrations,
            lambda session, call: self._start_queue.add(session, call),
            lambda session, message: self._ends.on_channel_ended(session, message),
            environment,
        )
        self._ends = EndKeeper(address, connections, lambda: self._membership.session, self._wait_session, LOGGER)
        self._log = RateLimitedLogger(name, LOGGER, name_field="iii_worker")
        context = CallContext(run_sync, self._log, self._ends.open, self._ends.finish_later)
        self._start_queue = CallStartQueue(self._registrations.functions, context, self._run)

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

    # --- functions and triggers

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

    def function(
        self,
        function_id: str,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_format: Any = None,
        response_format: Any = None,
        forbid_extra_keys: bool = False,
    ) -> Callable[[H], H]:
        """Return a decorator that registers its handler as `register_function` does."""

        def register(handler: H) -> H:
            self.register_function(
                function_id,
                handler,
                description=description,
                metadata=metadata,
                request_format=request_format,
                response_format=response_format,
                forbid_extra_keys=forbid_extra_keys,
            )
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

        The handler's parameters are keys of the payload. They are structured by their annotations (attrs classes, lists, …).
        One parameter without a matching key takes the payload whole. `metadata` takes the call's metadata. Refs in the
        payload have become live ends. An only parameter annotated `msgspec.Raw` takes the payload's JSON as it came.

        An async handler runs in a cancel scope of its own, any other in a thread. `request_format` and `response_format` are
        JSON Schemas that are shown and not enforced. They are made from the signature where they are not given. With
        `forbid_extra_keys` an unknown key is an error, at any depth.

        Raises MisuseError if the id is taken or no id, or for a handler that no call could reach.
        """
        spec = FunctionSpec.from_handler(
            function_id,
            handler,
            description=description,
            metadata=metadata,
            request_format=request_format,
            response_format=response_format,
            forbid_extra_keys=forbid_extra_keys,
        )
        return self._register(spec)

    def register_external_function(
        self, function_id: str, call: ExternalCall, *, description: str | None = None
    ) -> Registered:
        """Offer a function whose code is behind a URL, from now on and on every new link (docs/external.md).

        The engine calls the URL. A refusal by the engine is kept as `refused`. Raises MisuseError if the id is taken.
        """
        return self._register(FunctionSpec.external_function(function_id, call, description))

    def trigger_type(
        self,
        type_id: str,
        *,
        description: str | None = None,
        config: Any = None,
        payload: Any = None,
        trigger_request_format: Any = None,
        call_request_format: Any = None,
    ) -> Callable[[P], P]:
        """Return a decorator that registers its provider as `register_trigger_type` does."""

        def register(provider: P) -> P:
            self.register_trigger_type(
                type_id,
                provider,
                description=description,
                config=config,
                payload=payload,
                trigger_request_format=trigger_request_format,
                call_request_format=call_request_format,
            )
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
        """Provide a trigger type, from now on and on every new link.

        `provider` is one of these:

        - An async function `(bound, *, task_status)` that runs for as long as a binding lives. It raises to refuse the
          binding, calls `task_status.started()` to accept it, and is cancelled when the binding ends.
        - An object (or its class) with `register_trigger(bound)` and `unregister_trigger(bound)`, or a pair of such
          functions, async or plain. A plain one must not block. Each success of the first has one call of the second.

        `bound` is a `BoundTrigger`. `config` and `payload` are annotations. Configurations are structured by the one, or
        refused. Their JSON Schemas are shown where `trigger_request_format` and `call_request_format` are not given.

        Raises MisuseError if the type is provided already, or for a provider or a config that is none.
        """
        provided = TriggerType(
            self,
            self._registrations.withdraw,
            self._log,
            type_id,
            provider,
            description=description,
            config=config,
            payload=payload,
            trigger_request_format=trigger_request_format,
            call_request_format=call_request_format,
        )
        self._registrations.add(provided)
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
    ) -> TriggerBinding:
        """Have a function called whenever a trigger fires, from now on and on every new link.

        The function gets `metadata` beside the payload. `namespace` is the function's (default: this worker's own).
        `trigger_namespace` is the trigger type's (default: this worker's own, then `default`). Both may come later. A
        refusal is kept as `error`, logged, and passed to `on_error`.

        Raises CallError `serialization_error` for a config or metadata that is no JSON, and MisuseError for an unknown
        `http_method` of the type `http`.
        """
        binding = TriggerBinding(
            self._registrations.withdraw,
            self._environment.new_id(),
            trigger_type,
            function_id,
            config=config,
            metadata=metadata,
            namespace=self._namespace_of(function_id, namespace),
            trigger_namespace=trigger_namespace,
            on_error=on_error,
        )
        self._registrations.add(binding)
        return binding

    def subscribe(
        self,
        topic: str,
        function_id: str | None = None,
        *,
        max_attempts: int | None = None,
        concurrency: int | None = None,
        fifo: bool = False,
        group_by: str | None = None,
        backoff_seconds: float | None = None,
        backoff: Literal["exponential", "fixed"] | None = None,
        visibility_timeout_seconds: float | None = None,
        delay_seconds: float | None = None,
        condition: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        request_format: Any = None,
        response_format: Any = None,
        forbid_extra_keys: bool = False,
    ) -> Callable[[H], H]:
        """Return a decorator that subscribes its handler to a topic of the engine's queue.

        The handler is called with each message that is published to `topic`, at least once. The queue remembers the
        subscription by its function, and keeps messages while this worker is away. `function_id` (default:
        `topic::handler_name`) has to stay the same.

        There are at most `max_attempts` calls for a message (3). A pause of `backoff_seconds` (1) comes before the
        second, and grows if `backoff` is exponential. `concurrency` messages are handled side by side (10), with `fifo`
        one after the other, with `group_by` (a key of the data) one of each group. `visibility_timeout_seconds` bounds
        one attempt, and `delay_seconds` delays the first. A function `condition` that answers False skips a message. The
        other options are those of `register_function`.

        Raises MisuseError for options that cannot be meant.
        """
        config = subscription(
            topic,
            max_attempts=max_attempts,
            concurrency=concurrency,
            fifo=fifo,
            group_by=group_by,
            backoff_seconds=backoff_seconds,
            backoff=backoff,
            visibility_timeout_seconds=visibility_timeout_seconds,
            delay_seconds=delay_seconds,
            condition=condition,
        )

        def subscribe_it(handler: H) -> H:
            name = function_id or f"{topic}::{getattr(handler, '__name__', 'handler')}"
            self.register_function(
                name,
                handler,
                description=description,
                metadata=metadata,
                request_format=request_format,
                response_format=response_format,
                forbid_extra_keys=forbid_extra_keys,
            )
            self.register_trigger(SUBSCRIBER, name, config=config)
            return handler

        return subscribe_it

    def http(
        self,
        method: str,
        path: str,
        *,
        function_id: str | None = None,
        description: str | None = None,
        condition: str | None = None,
        middleware: Sequence[str] = (),
        metadata: Any = None,
    ) -> Callable[[HttpHandlerT], HttpHandlerT]:
        """Return a decorator that serves requests with its handler, by the engine's HTTP module (docs/http.md).

        `path` is like `/files/{name}` or `/site/{rest:path}`. `condition` and `middleware` are as in `http_binding`.
        Raises MisuseError for a method, a path or a handler that no request could reach.
        """
        from .http import Route, serve_route  # here, so that an engine without routes starts sooner

        return serve_route(self, Route.parse(method, path), function_id, description, condition, middleware, metadata)

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
        an empty id, also of a job.
        If cancelled: the handler is cancelled too, if the engine and its worker have the extensions (clause C5.5). Otherwise
        its late answer is ignored.
        """
        call = PendingCall(function_id, self._environment.new_id())
        text = call_text(
            function_id,
            call.invocation_id,
            payload,
            namespace=self._namespace_of(function_id, namespace),
            metadata=metadata,
            traceparent=traceparent,
            baggage=baggage,
            action=action.action if isinstance(action, Enqueue) else action,
        )
        session = self._membership.session or await self._wait_session()
        # An engine without the extensions would drop the options without a word.
        if isinstance(action, Enqueue) and action.options and not session.supports_extensions:
            raise CallError("enqueue_error", NO_OPTIONS.format(", ".join(action.options)), function_id=function_id)
        if session.link.has_room:
            await trio.lowlevel.checkpoint_if_cancelled()  # other tasks run while the answer is awaited
        else:
            await session.link.wait_room()
        session.send(call, text)
        try:
            await call.wait_settled()
        finally:
            session.give_up(call, "the caller was cancelled")  # unless it is settled
        value = call.value()
        if isinstance(action, Enqueue):
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

        Raises CallError for a payload that cannot be sent, and ConnectionFailed. If cancelled: the call was not made.
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

        Leaving the block ends the ends that were used here. It ends them cleanly, or by abort if an exception leaves (clause
        C5.4). Ends that were passed on and not used here are left alone.

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

    def _register(self, spec: FunctionSpec) -> Registered:
        self._registrations.add(spec)
        return Registered(spec, self._registrations.withdraw)

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

    def _namespace_of(self, function_id: str, namespace: str | None) -> str | None:
        default = DEFAULT_NAMESPACE if function_id.startswith("engine::") else self.namespace
        return default if namespace is None else namespace

    async def _wait_session(self) -> WorkerSession:
        while (session := self._membership.session) is None:
            if self._membership.rejection is not None:
                raise self._membership.rejection
            if self._membership.state.is_final:
                await trio.lowlevel.checkpoint()
                raise ConnectionFailed(f"the worker '{self.name}' has left {self.address}")
            await self._membership.changed.park()
        return session
