"""What a worker asks of trigger types: call this function when that happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from msgspec import Raw

from ..errors import CallError
from ..wire import ABSENT, RegisterTrigger, UnregisterTrigger, encode
from .failures import contain
from .payload import encode_payload

if TYPE_CHECKING:
    from .offers import Offers


@final
class Binding:
    """One function bound to one trigger type, on this link and on every later one. Made by `Worker.register_trigger`."""

    def __init__(
        self,
        offers: Offers,
        binding_id: str,
        trigger_type: str,
        function_id: str,
        *,
        config: Any,
        metadata: Any,
        namespace: str | None,
        trigger_namespace: str | None,
        on_error: Callable[[CallError], object] | None,
    ) -> None:
        self.id = binding_id
        self.trigger_type = trigger_type
        self.function_id = function_id
        self.error: CallError | None = None
        """Why its provider, or the engine, refused it on this link, as far as that was told.

        A binding that nobody provides for is no failure: it waits. One that was refused is offered again to a provider
        that comes later, and no engine tells of a success.
        """
        self._offers = offers
        self._on_error = on_error
        self._message = encode(
            RegisterTrigger(
                id=binding_id,
                trigger_type=trigger_type,
                function_id=function_id,
                config=Raw(encode_payload(config, "the config")),
                metadata=ABSENT if metadata is None else Raw(encode_payload(metadata, "the metadata")),
                namespace=namespace,
                trigger_namespace=trigger_namespace,
            )
        )

    def __repr__(self) -> str:
        return f"<Binding {self.id}: {self.trigger_type} calls {self.function_id}>"

    def unregister(self) -> None:
        """Want it no longer. Twice is harmless."""
        self._offers.withdraw(self)

    # --- for the worker

    def message(self) -> bytes:
        """How it is said to the engine."""
        return self._message

    def withdrawal(self) -> bytes:
        """How it is taken back."""
        return encode(UnregisterTrigger(self.id, self.trigger_type))

    def renew(self) -> None:
        """It is about to be said on a new link."""
        self.error = None

    def failed(self, error: CallError) -> None:
        """It was refused."""
        self.error = error
        if self._on_error is not None:
            contain(self._on_error, error, what=f"on_error of {self!r}")
