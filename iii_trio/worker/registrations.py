"""All registrations of a worker, kept so that they can be repeated on every new link, each once."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import CallError, MisuseError
from ..report import get_logger
from ..transport.link import Link
from ..wire import (
    MAX_MESSAGE_BYTES,
    ErrorCode,
    RegisterTrigger,
    TriggerRegistrationResult,
    UnregisterTrigger,
    WireError,
)
from .calls import WorkerSession, error_in
from .function_spec import FunctionSpec
from .registration import Registration
from .trigger_binding import TriggerBinding
from .trigger_types import TriggerType, answer_binding

LOGGER = get_logger("iii_trio.worker")


class Registrations(msgspec.Struct, eq=False):
    """The registrations of a worker.

    Registering is synchronous. So a registration is sent on a link with all others or by itself, and never twice.
    """

    functions: dict[str, FunctionSpec] = msgspec.field(default_factory=dict)
    trigger_types: dict[str, TriggerType] = msgspec.field(default_factory=dict)
    bindings: dict[str, TriggerBinding] = msgspec.field(default_factory=dict)
    _link: Link | None = None
    """The link on which all of them were sent, also before the engine has accepted this worker."""

    # --- the link

    def introduce(self, link: Link) -> None:
        """Send all registrations on a new link. A provider comes before its users."""
        self._link = link
        all_of_them: list[Registration] = [
            *self.trigger_types.values(),
            *self.functions.values(),
            *self.bindings.values(),
        ]
        for registration in all_of_them:
            registration.renew()
            link.send(registration.message())

    def lost(self, link: Link) -> None:
        """End all bindings to our trigger types with their link. The engine repeats them on the next one."""
        # A late report about an old link must not end the bindings of its successor.
        if self._link is link:
            self._link = None
            for provided in list(self.trigger_types.values()):
                provided.withdraw_all("link_lost")

    # --- the worker's side

    def add(self, registration: Registration) -> None:
        """Register from now on, and on every new link.

        Raises MisuseError, and keeps nothing, if the id is taken or the message is too large.
        """
        kind = self._kind(registration)
        if registration.id in kind:
            raise MisuseError(f"this worker offers {registration.id} already: unregister it first")
        text = _checked(registration)
        kind[registration.id] = registration
        if self._link is not None:
            self._link.send(text)

    def put(self, spec: FunctionSpec) -> None:
        """Register a function, or describe it again. The engine keeps its place among the workers that stand by for it.

        Raises MisuseError, and keeps what was there, if the message is too large.
        """
        text = _checked(spec)
        self.functions[spec.id] = spec
        if self._link is not None:
            self._link.send(text)

    def withdraw(self, registration: Registration) -> None:
        """Take a registration back. A second time is harmless."""
        kind = self._kind(registration)
        # The id may belong to a newer registration by now.
        if kind.get(registration.id) is registration:
            del kind[registration.id]
            if self._link is not None:
                self._link.send(registration.withdrawal())

    # --- the engine's side

    def bind(self, session: WorkerSession, message: RegisterTrigger) -> None:
        """Bind a function of any worker to one of our trigger types."""
        provided = self.trigger_types.get(message.trigger_type)
        if provided is None:
            problem = f"this worker provides no trigger type '{message.trigger_type}'"
            answer_binding(session, message, WireError(ErrorCode.TRIGGER_TYPE_NOT_FOUND, problem))
        else:
            provided.bind(session, message)

    def unbind(self, message: UnregisterTrigger) -> None:
        """End a binding to one of our trigger types. Engines need not name the type."""
        for provided in self.trigger_types.values():
            if message.trigger_type in (None, provided.id):
                provided.withdraw(message.id, "owner_gone" if message.owner_gone else "withdrawn")

    def told(self, message: TriggerRegistrationResult) -> None:
        """Keep the refusal of a binding of ours. Engines tell of refusals only."""
        binding = self.bindings.get(message.id)
        error = error_in(message.error)
        # The binding may have been taken back while its refusal was on the way.
        if binding is None or error is None:
            return
        failed = CallError(error.code, error.message, function_id=binding.function_id)
        LOGGER.warning("the trigger '%s' for %s was refused: %s", binding.trigger_type, binding.function_id, failed)
        binding.failed(failed)

    def _kind(self, registration: Registration) -> dict[str, Any]:
        if isinstance(registration, FunctionSpec):
            return self.functions
        return self.trigger_types if isinstance(registration, TriggerType) else self.bindings


def _checked(registration: Registration) -> bytes:
    """Return the message of a registration. Raises MisuseError if it is too large for a link, which it would end."""
    text = registration.message()
    if len(text) > MAX_MESSAGE_BYTES:
        raise MisuseError(
            f"the registration of {registration.id} is {len(text)} bytes as JSON, the limit is {MAX_MESSAGE_BYTES}: "
            "give less metadata, or shorter schemas"
        )
    return text
