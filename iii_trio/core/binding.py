"""The states of one trigger binding, which is requested, offered to a provider, and in force until it is withdrawn.

              OFFERED              ACCEPTED             WITHDRAWN
    PARKED ───────────► OFFERED ───────────► BOUND ───────────► WITHDRAWN

A binding is parked while it has no provider, or after its provider refused it. It is offered again when a provider of its
type registers.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import msgspec
from msgspec import Raw

from ..state_machine import StateMachine, Table, TableEnum
from ..wire import ABSENT, DEFAULT_NAMESPACE, NULL, RegisterTrigger, TriggerRegistrationResult, UnregisterTrigger
from .request import Request
from .session import WorkerSession


class BindingState(TableEnum):
    """The states of a binding."""

    PARKED = auto()  # its type has no provider, or the provider refused it
    OFFERED = auto()  # sent to its provider, and counted as in force, because most providers never answer otherwise
    BOUND = auto()  # its provider has accepted it
    WITHDRAWN = auto()


class BindingEvent(TableEnum):
    """The events in the life of a binding."""

    OFFERED = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    PROVIDER_LEFT = auto()
    WITHDRAWN = auto()


_IN_FORCE: Final = {
    BindingEvent.OFFERED: BindingState.OFFERED,  # to another provider, or again to the same one
    BindingEvent.ACCEPTED: BindingState.BOUND,
    BindingEvent.REFUSED: BindingState.PARKED,
    BindingEvent.PROVIDER_LEFT: BindingState.PARKED,
    BindingEvent.WITHDRAWN: BindingState.WITHDRAWN,
}

BINDING: Final[Table[BindingState, BindingEvent]] = {
    BindingState.PARKED: {BindingEvent.OFFERED: BindingState.OFFERED, BindingEvent.WITHDRAWN: BindingState.WITHDRAWN},
    BindingState.OFFERED: _IN_FORCE,
    BindingState.BOUND: _IN_FORCE,
    BindingState.WITHDRAWN: {},
}

III_PROVIDERS: Final = {
    "http": "iii-http",
    "cron": "iii-cron",
    "subscribe": "iii-pubsub",
    "state": "iii-state",
    "durable:subscriber": "queue",
    "stream": "iii-stream",
    "stream:join": "iii-stream",
    "stream:leave": "iii-stream",
    "log": "iii-observability",
    "trace": "iii-observability",
    "configuration": "configuration",
}
"""The trigger types that iii has built in, with the worker that provides each there."""

LIVE: Final = frozenset({BindingState.OFFERED, BindingState.BOUND})


class Provider(msgspec.Struct, eq=False):
    """The provider of one trigger type. It is a session, or the engine itself (`session` is None)."""

    namespace: str
    type: str
    session: WorkerSession | None
    description: str = ""
    trigger_request_format: Raw = ABSENT
    call_request_format: Raw = ABSENT
    size: int = 0
    """The bytes that it takes of its session's registrations."""

    @property
    def key(self) -> tuple[str, str]:
        """The key in the ledger."""
        return self.namespace, self.type


class TriggerBinding(msgspec.Struct, eq=False):
    """One binding of a function to a trigger type."""

    id: str
    trigger_type: str
    function_id: str
    config: Raw
    metadata: Raw
    namespace: str
    """The namespace of its target function."""
    trigger_namespace: str | None
    """The only namespace in which its provider may be. None means `home`, then `default`."""
    home: str
    """The namespace of the session that requested it."""
    owner: WorkerSession | None
    """None for a durable binding, which outlives its maker."""
    size: int = 0
    """The bytes that it takes of its owner's registrations, or of all durable ones."""
    number: int = 0
    """Its place in the order in which bindings came."""
    provider: Provider | None = None
    """Its provider, or None while it is parked."""
    state: StateMachine[BindingState, BindingEvent] = msgspec.field(
        default_factory=lambda: StateMachine(BINDING, BindingState.PARKED)
    )
    request: Request | None = None
    """The request for a durable binding, while it waits for the provider's answer."""

    @property
    def holder(self) -> str:
        """The id of its owner's session, or an empty text for a durable binding."""
        return "" if self.owner is None else self.owner.id

    @property
    def live(self) -> bool:
        """Whether a provider has it."""
        return self.state.current in LIVE

    @property
    def config_or_null(self) -> Raw:
        """The configuration, or null where none was given."""
        return self.config or NULL

    @property
    def provider_namespaces(self) -> tuple[str, ...]:
        """The namespaces in which to look for a provider, in order."""
        # A binding that names the namespace of its provider looks nowhere else.
        if self.trigger_namespace is not None:
            return (self.trigger_namespace,)
        return (self.home,) if self.home == DEFAULT_NAMESPACE else (self.home, DEFAULT_NAMESPACE)

    def offer(self) -> RegisterTrigger:
        """Return the message that offers it to its provider.

        The namespace `default` and absent metadata are left out. The configuration is always there.
        """
        assert self.provider is not None
        return RegisterTrigger(
            id=self.id,
            trigger_type=self.trigger_type,
            function_id=self.function_id,
            config=self.config_or_null,
            metadata=self.metadata,
            namespace=None if self.namespace == DEFAULT_NAMESPACE else self.namespace,
            trigger_namespace=None if self.provider.namespace == DEFAULT_NAMESPACE else self.provider.namespace,
        )

    def withdrawal(self, *, owner_gone: bool) -> UnregisterTrigger:
        """Return the message that withdraws it from its provider."""
        return UnregisterTrigger(self.id, self.trigger_type, owner_gone)

    def refusal(self, error: bytes) -> TriggerRegistrationResult:
        """Return the refusal sent to the worker that requested the binding."""
        return TriggerRegistrationResult(self.id, self.trigger_type, self.function_id, Raw(error))
