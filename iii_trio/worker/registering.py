"""The registering of a worker: its functions, its trigger types, its triggers, subscriptions and routes.

`Worker` adds the connection, the calls and the channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import CallError, MisuseError
from ..report import RateLimitedLogger
from ..wire import DEFAULT_NAMESPACE
from .function_spec import FunctionSpec, Registered, no_function_id
from .handler_signature import Handler
from .jobs import SUBSCRIBER, subscription
from .registration import Registration
from .registrations import Registrations
from .trigger_binding import TriggerBinding
from .trigger_types import TriggerCaller, TriggerType

if TYPE_CHECKING:
    from .external import ExternalCall
    from .http import HttpHandlerT

H = TypeVar("H", bound=Handler)
P = TypeVar("P")


class Registering(TriggerCaller):
    """The part of a worker that registers. The registrations are kept, and repeated on every new link."""

    def __init__(self, namespace: str | None, log: RateLimitedLogger, new_id: Callable[[], str]) -> None:
        self.namespace = namespace
        """The namespace of its functions and calls, or None for the engine's default."""
        self._registrations = Registrations()
        self._log = log
        self._new_id = new_id

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
        """Return a decorator that registers its handler as `register_function` does.

        Raises MisuseError if the parentheses of the decorator were forgotten.
        """
        _check_is_no_handler(function_id, "function", "some::id")

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

        Raises MisuseError if the id is taken or no id, for a handler that no call could reach, and for a description,
        metadata or a schema that JSON cannot hold. Raises ConnectionFailed if the worker has left.
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

        The engine calls the URL. A refusal by the engine is kept as `refused`. Raises as `register_function`, and
        MisuseError for a call that is not an `ExternalCall`.
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
        """Return a decorator that registers its provider as `register_trigger_type` does.

        Raises MisuseError if the parentheses of the decorator were forgotten.
        """
        _check_is_no_handler(type_id, "trigger_type", "some-type")

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

        Raises MisuseError if the type is provided already, for a provider or a config that is none, and for a schema that
        JSON cannot hold. Raises ConnectionFailed if the worker has left.
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
        self._add(provided)
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

        Raises CallError `serialization_error` for a config or metadata that is not JSON. Raises MisuseError for an unknown
        `http_method` of the type `http`, and for an id that is not a string. Raises ConnectionFailed if the worker has
        left.
        """
        binding = self._binding(
            trigger_type,
            function_id,
            config=config,
            metadata=metadata,
            namespace=namespace,
            trigger_namespace=trigger_namespace,
            on_error=on_error,
        )
        self._add(binding)
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

        Raises MisuseError for options that cannot be meant. The decorator raises as `register_function`, and registers
        nothing then.
        """
        _check_is_no_handler(topic, "subscribe", "some-topic")
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
            spec = FunctionSpec.from_handler(
                name,
                handler,
                description=description,
                metadata=metadata,
                request_format=request_format,
                response_format=response_format,
                forbid_extra_keys=forbid_extra_keys,
            )
            self._register_bound(spec, SUBSCRIBER, config=config)
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

    def _register(self, spec: FunctionSpec) -> Registered:
        self._add(spec)
        return Registered(spec, self._registrations.withdraw)

    def _register_bound(self, spec: FunctionSpec, trigger_type: str, *, config: Any, metadata: Any = None) -> None:
        """Offer a function and bind it to a trigger type, or raise and do neither."""
        binding = self._binding(trigger_type, spec.id, config=config, metadata=metadata)
        self._add(spec)
        self._add(binding)

    def _binding(
        self, trigger_type: str, function_id: str, *, namespace: str | None = None, **options: Any
    ) -> TriggerBinding:
        return TriggerBinding(
            self._registrations.withdraw,
            self._new_id(),
            trigger_type,
            function_id,
            namespace=self._namespace_of(function_id, namespace),
            **options,
        )

    def _add(self, registration: Registration) -> None:
        # A registration of a worker that has left would never be sent.
        self._check_has_not_left()
        self._registrations.add(registration)

    def _check_has_not_left(self) -> None:
        """Raise Rejected or ConnectionFailed if there will be no connection any more."""
        raise NotImplementedError

    def _namespace_of(self, function_id: str, namespace: str | None) -> str | None:
        """Return the namespace of a call or a binding. Raises MisuseError for an id or a namespace that is not a string."""
        if not isinstance(function_id, str):
            raise MisuseError(no_function_id(function_id))
        if namespace is None:
            return DEFAULT_NAMESPACE if function_id.startswith("engine::") else self.namespace
        if not isinstance(namespace, str):
            raise MisuseError(f"`namespace` is of type {type(namespace).__name__}; give a string, or leave it out")
        return namespace


def _check_is_no_handler(value: object, decorator: str, example: str) -> None:
    """Raise MisuseError for a handler in the place of a name, because the decorator stands without its parentheses."""
    # The handler's name would be bound to a decorator, and nothing would be registered.
    if callable(value):
        name = getattr(value, "__name__", repr(value))
        raise MisuseError(f'the decorator of {name} has no parentheses: write @worker.{decorator}("{example}")')
