"""What a worker offers and asks for, remembered so that it can be said again on every new link, each once."""

from __future__ import annotations

from typing import Any

import attrs

from ..errors import CallError, MisuseError
from ..report import get_logger
from ..transport.link import Link
from ..wire import ErrorCode, RegisterTrigger, TriggerRegistrationResult, UnregisterTrigger, WireError
from .bindings import Binding
from .calls import Session, error_in
from .declare import Declared
from .providing import TriggerType, answer

LOGGER = get_logger("iii_trio.worker")


Offer = Declared | TriggerType | Binding


@attrs.define(eq=False)
class Offers:
    """All of it. Saying is synchronous, so an offer is said on a link either with all others or by itself, never twice."""

    functions: dict[str, Declared] = attrs.field(factory=dict)
    trigger_types: dict[str, TriggerType] = attrs.field(factory=dict)
    bindings: dict[str, Binding] = attrs.field(factory=dict)
    _link: Link | None = None
    """The link on which all of it was said, also while the engine has not yet taken this worker."""

    # --- the link

    def introduce(self, link: Link) -> None:
        """Say all of it: what provides comes before what needs it."""
        self._link = link
        said: list[Offer] = [*self.trigger_types.values(), *self.functions.values(), *self.bindings.values()]
        for offer in said:
            offer.renew()
            link.send(offer.message())

    def lost(self, link: Link) -> None:
        """The link is over: what the engine asked of our trigger types is, too. It asks again on the next one."""
        if self._link is link:
            self._link = None
            for provided in list(self.trigger_types.values()):
                provided.withdraw_all("link_lost")

    # --- the worker's side

    def offer(self, offer: Offer) -> None:
        """From now on, and on every new link. Raises MisuseError if there is one of its id."""
        kind = self._kind(offer)
        if offer.id in kind:
            raise MisuseError(f"this worker offers {offer.id} already: unregister it first")
        kind[offer.id] = offer
        if self._link is not None:
            self._link.send(offer.message())

    def withdraw(self, offer: Offer) -> None:
        """No longer. Twice is harmless."""
        kind = self._kind(offer)
        if kind.get(offer.id) is offer:
            del kind[offer.id]
            if self._link is not None:
                self._link.send(offer.withdrawal())

    # --- the engine's side

    def bind(self, session: Session, message: RegisterTrigger) -> None:
        """Somebody wants one of our trigger types."""
        provided = self.trigger_types.get(message.trigger_type)
        if provided is None:
            problem = f"this worker provides no trigger type '{message.trigger_type}'"
            answer(session, message, WireError(ErrorCode.TRIGGER_TYPE_NOT_FOUND, problem))
        else:
            provided.bind(session, message)

    def unbind(self, message: UnregisterTrigger) -> None:
        """Somebody no longer wants it. Engines need not say of which type it was."""
        for provided in self.trigger_types.values():
            if message.trigger_type in (None, provided.id):
                provided.withdraw(message.id, "owner_gone" if message.owner_gone else "withdrawn")

    def told(self, message: TriggerRegistrationResult) -> None:
        """How a binding of ours was taken: engines speak of failures only."""
        binding = self.bindings.get(message.id)
        error = error_in(message.error)
        if binding is None or error is None:
            return
        failed = CallError(error.code, error.message, function_id=binding.function_id)
        LOGGER.warning("the trigger '%s' for %s was refused: %s", binding.trigger_type, binding.function_id, failed)
        binding.failed(failed)

    def _kind(self, offer: Offer) -> dict[str, Any]:
        match offer:
            case Declared():
                return self.functions
            case TriggerType():
                return self.trigger_types
            case Binding():
                return self.bindings
