"""Bindings of functions to trigger types, as the worker that asked for them sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from msgspec import Raw

from ..errors import CallError
from ..wire import ABSENT, RegisterTrigger, UnregisterTrigger, encode
from .failures import contain
from .http_method import check_binding
from .payload import check_text, encode_payload
from .registration import Withdraw


@final
class TriggerBinding:
    """One function bound to one trigger type, on this link and on every later one. Made by `Worker.register_trigger`."""

    def __init__(
        self,
        withdraw: Withdraw,
        binding_id: str,
        trigger_type: str,
        function_id: str,
        *,
        config: Any,
        metadata: Any,
        namespace: str | None,
        trigger_namespace: str | None = None,
        on_error: Callable[[CallError], object] | None = None,
    ) -> None:
        check_text(trigger_type, "the trigger type")
        check_text(function_id, "the id of the function")
        for name, value in (("namespace", namespace), ("trigger_namespace", trigger_namespace)):
            if value is not None:
                check_text(value, f"`{name}`")
        check_binding(trigger_type, config)
        self.id = binding_id
        self.trigger_type = trigger_type
        self.function_id = function_id
        self.error: CallError | None = None
        """The refusal by its provider or the engine on this link, if one was told.

        A binding without a provider is not a failure, because it waits for one. A refused binding is offered again to a
        provider that comes later. No engine tells of a success.
        """
        self._withdraw = withdraw
        self._owner_gone = False
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
        return f"<TriggerBinding {self.id}: {self.trigger_type} calls {self.function_id}>"

    def unregister(self) -> None:
        """Remove the binding. A second time is harmless."""
        self._withdraw(self)

    def end_for_owner(self) -> None:
        """Remove the binding, and say that it was not withdrawn, but that its owner is gone. A second time is harmless."""
        self._owner_gone = True
        self._withdraw(self)

    def message(self) -> bytes:
        """Return the message that registers it."""
        return self._message

    def withdrawal(self) -> bytes:
        """Return the message that takes it back."""
        return encode(UnregisterTrigger(self.id, self.trigger_type, self._owner_gone))

    def renew(self) -> None:
        """Forget a refusal on the last link."""
        self.error = None

    def failed(self, error: CallError) -> None:
        """Keep a refusal, and tell the callback of it."""
        self.error = error
        # An exception of the callback must not end the task that reads the link.
        if self._on_error is not None:
            contain(self._on_error, error, what=f"on_error of {self!r}")
