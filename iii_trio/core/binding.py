"""The life of one trigger binding: asked for, offered to a provider, and in force until it is withdrawn.

              OFFERED              ACCEPTED             WITHDRAWN
    PARKED ───────────► OFFERED ───────────► BOUND ───────────► WITHDRAWN

A binding without a provider is parked, and so is one that its provider refused: it is offered anew when a provider
of its type registers.
"""

from __future__ import annotations

from enum import auto
from typing import Final

import attrs
from msgspec import Raw

from ..state_machine import StateMachine, Table, TableEnum
from ..wire import ABSENT, DEFAULT_NAMESPACE, RegisterTrigger, TriggerRegistrationResult, UnregisterTrigger
from .later import Later
from .session import Session

_NULL: Final = Raw(b"null")


class BindingState(TableEnum):
    """Where a binding is in its life."""

    PARKED = auto()  # nobody provides its type, or who does has refused it
    OFFERED = auto()  # its provider has been told, and counts as having it: most never answer otherwise
    BOUND = auto()  # its provider has said so
    WITHDRAWN = auto()


class BindingEvent(TableEnum):
    """What happened to a binding."""

    OFFERED = auto()
    ACCEPTED = auto()
    REFUSED = auto()
    PROVIDER_LEFT = auto()
    WITHDRAWN = auto()


_IN_FORCE: Final = {
    BindingEvent.OFFERED: BindingState.OFFERED,  # to another provider, or to the same one anew
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

LIVE: Final = frozenset({BindingState.OFFERED, BindingState.BOUND})


@attrs.define(eq=False)
class Provider:
    """Who provides one trigger type: a session, or (None) the engine itself."""

    namespace: str
    type: str
    session: Session | None
    description: str = ""
    trigger_request_format: Raw = ABSENT
    call_request_format: Raw = ABSENT
    size: int = 0
    """The bytes that it takes of its session's registrations."""

    @property
    def key(self) -> tuple[str, str]:
        """By what it is found."""
        return self.namespace, self.type


@attrs.define(eq=False)
class Binding:
    """One binding of a function to a trigger type."""

    id: str
    trigger_type: str
    function_id: str
    config: Raw
    metadata: Raw
    namespace: str
    """Where its target is."""
    trigger_namespace: str | None
    """Where alone its provider may be; None: in `home`, then in `default`."""
    home: str
    """The namespace of the session that asked for it."""
    owner: Session | None
    """None: durable, it outlives whoever asked for it."""
    size: int = 0
    """The bytes that it takes of its owner's registrations, or of all durable ones."""
    provider: Provider | None = None
    """Who has it; None while it is parked."""
    state: StateMachine[BindingState, BindingEvent] = attrs.field(
        factory=lambda: StateMachine(BINDING, BindingState.PARKED)
    )
    answer: Later | None = None
    """Of a durable one: whoever asked for it waits for the provider's word."""

    @property
    def live(self) -> bool:
        """Whether a provider has it."""
        return self.state.current in LIVE

    @property
    def config_or_null(self) -> Raw:
        """Its config: null where none was given."""
        return self.config or _NULL

    @property
    def homes(self) -> tuple[str, ...]:
        """The namespaces in which to look for a provider, the first one first."""
        if self.trigger_namespace is not None:
            return (self.trigger_namespace,)
        return (self.home,) if self.home == DEFAULT_NAMESPACE else (self.home, DEFAULT_NAMESPACE)

    def offer(self) -> RegisterTrigger:
        """What its provider is told. `default` is left out, as is metadata that is not there; the config never is."""
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

    def withdrawal(self, *, owner_gone: bool = False) -> UnregisterTrigger:
        """What its provider is told when it is over."""
        return UnregisterTrigger(self.id, self.trigger_type, owner_gone)

    def refusal(self, error: bytes) -> TriggerRegistrationResult:
        """What whoever asked for it is told when its provider does not take it."""
        return TriggerRegistrationResult(self.id, self.trigger_type, self.function_id, Raw(error))
