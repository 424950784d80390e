"""What a program offers to the mesh through its worker: functions, trigger types, bindings, subscriptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, cast

from ..errors import CallError
from ..wire import DEFAULT_NAMESPACE
from .bindings import Binding
from .declare import Declared, Registered, check_function_id, declare
from .handler import Handler
from .offers import Offers
from .open_call import InlineHandler
from .providing import Home, TriggerType
from .queueing import SUBSCRIBER, subscription

H = TypeVar("H", bound=Handler)
P = TypeVar("P")


class Offering:
    """The worker's part that offers. All of it is said on this link, and anew on every later one."""

    namespace: str | None
    offers: Offers
    new_id: Callable[[], str]

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
        payload are live ends by then. An only parameter annotated `msgspec.Raw` takes the payload's JSON as it came. An
        async handler runs in a cancel scope of its own, any other in a thread. `request_format` and `response_format`, JSON
        Schemas that are shown and not enforced, are made from the signature where they are not given. With
        `forbid_extra_keys` a key that nobody asked for is an error, at any depth.

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

    def register_inline_handler(
        self, function_id: str, prompt: InlineHandler, *, description: str | None = None
    ) -> Registered:
        """Offer a function that is answered without a task: `prompt(call)` is called at once, in the order of the calls,
        must not wait, and has `call.answer(value)` or `call.fail(error)` called once, now or later; what it raises is
        the answer. For modules whose calls are many and small.

        Raises MisuseError if the id is offered already.
        """
        check_function_id(function_id)
        declared = Declared(function_id, prompt=prompt, description=description)
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
            cast(Home, self),
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
            namespace=self.where(function_id, namespace),
            trigger_namespace=trigger_namespace,
            on_error=on_error,
        )
        self.offers.offer(binding)
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
        **described: Any,
    ) -> Callable[[H], H]:
        """Decorator: call this handler with whatever is published to `topic`, at least once each, also with what is
        published while this worker is away (the engine's queue remembers the subscription by its function).

        `function_id` (default: `topic::handler_name`) names it, and has to stay the same. `max_attempts` calls in all (3),
        with a pause of `backoff_seconds` (1) before the second, which grows if `backoff` is exponential; `concurrency`
        side by side (10); with `fifo` one after the other, or with `group_by`, a key of the data, one of each group.
        `visibility_timeout_seconds` bounds one attempt, `delay_seconds` delays the first. A function `condition` that
        answers False skips a message. Further options are those of `register_function`.

        Raises MisuseError.
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
            self.register_function(name, handler, **described)
            self.register_trigger(SUBSCRIBER, name, config=config)
            return handler

        return subscribe_it

    def where(self, function_id: str, namespace: str | None) -> str | None:
        """The namespace in which a function is looked up."""
        if namespace is None:
            return DEFAULT_NAMESPACE if function_id.startswith("engine::") else self.namespace
        return namespace
