"""A trigger type that a worker provides, and the bindings to it.

Each binding has a task of the worker, for as long as it lives. So binding and unbinding never overlap for one id. Each
`register_trigger` that succeeded has exactly one `unregister_trigger`, and the work of a binding ends with it.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, Protocol, TypeAlias, final

import trio
from msgspec import Raw

from ..errors import IIIError, MisuseError
from ..nursery import sort_failure
from ..report import RateLimitedLogger, get_logger
from ..structure import check_annotation, structure_as
from ..text import named_error
from ..wire import (
    ABSENT,
    DEFAULT_NAMESPACE,
    ErrorCode,
    RegisterTrigger,
    RegisterTriggerType,
    TriggerRegistrationResult,
    UnregisterTriggerType,
    WireError,
    encode,
    from_json,
    to_json,
)
from .calls import WorkerSession
from .failures import describe
from .function_spec import first_line
from .payload import check_text
from .registration import Withdraw, checked_description, derived_json, given_json
from .schemas import schema_of

LOGGER = get_logger("iii_trio.worker")

WhyEnded: TypeAlias = Literal["withdrawn", "owner_gone", "replaced", "link_lost", "provider_left"]

_UNBIND_SECONDS: Final = 2.0  # that a cancelled provider has to let go of a binding


class TriggerCaller(Protocol):
    """The parts of a worker that a trigger type uses."""

    def _run(self, function: Callable[..., Awaitable[object]], *arguments: Any) -> bool:
        """Run this in a task of the worker's, unless the worker is leaving. Return whether it runs."""

    async def trigger(self, function_id: str, payload: Any = None, *, namespace: str | None, metadata: Any) -> Any:
        """Call a function."""

    async def trigger_void(
        self, function_id: str, payload: Any = None, *, namespace: str | None, metadata: Any
    ) -> None:
        """Call a function without an answer."""


@final
class BoundTrigger:
    """One binding to a trigger type, in the hands of its provider."""

    def __init__(self, caller: TriggerCaller, message: RegisterTrigger) -> None:
        self._caller = caller
        self.id = message.id
        self.trigger_type = message.trigger_type
        self.function_id = message.function_id
        """The id of the function to call."""
        self.namespace = message.namespace or DEFAULT_NAMESPACE
        """The namespace of that function."""
        self.config: Any = from_json(bytes(message.config)) if message.config else None
        """The configuration. It holds JSON values, or a value of the trigger type's `config` annotation."""
        self.metadata = from_json(bytes(message.metadata)) if message.metadata else None
        """The metadata that travels beside the payload at each firing."""
        self.binding = trio.CancelScope()
        self.withdrawn = trio.Event()
        """Set when the binding was removed or the link was lost. The engine repeats the binding on the next link."""
        self.finished = trio.Event()
        self.why_ended: WhyEnded = "provider_left"
        """The reason of the end.

        `withdrawn`: it was removed. `owner_gone`: its owner is gone. `replaced`: its owner bound the id anew.
        `link_lost` and `provider_left`: the link or this worker ended, and the binding was not removed.
        """

    def __repr__(self) -> str:
        return f"<BoundTrigger {self.id}: {self.trigger_type} calls {self.function_id}>"

    async def fire(self, payload: Any = None) -> Any:
        """Call the bound function with the binding's namespace and metadata, and return its value.

        Raises CallError. If cancelled: the handler is cancelled, as by `Worker.trigger`.
        """
        return await self._caller.trigger(self.function_id, payload, namespace=self.namespace, metadata=self.metadata)

    async def fire_void(self, payload: Any = None) -> None:
        """Call the bound function without an answer. If cancelled: the call was not made."""
        await self._caller.trigger_void(self.function_id, payload, namespace=self.namespace, metadata=self.metadata)

    def withdraw(self, why: WhyEnded) -> None:
        """End the binding. The first reason stays."""
        # A lost link also withdraws, and must not overwrite an earlier reason.
        if not self.withdrawn.is_set():
            self.why_ended = why
        self.withdrawn.set()
        self.binding.cancel(reason="the binding was withdrawn")


@final
class TriggerType:
    """A trigger type that a worker provides. Made by `Worker.register_trigger_type`."""

    def __init__(
        self,
        caller: TriggerCaller,
        withdraw: Withdraw,
        log: RateLimitedLogger,
        type_id: str,
        provider: Any,
        *,
        description: str | None,
        config: Any,
        payload: Any,
        trigger_request_format: Any,
        call_request_format: Any,
    ) -> None:
        check_text(type_id, "the id of a trigger type")
        self.id = type_id
        self._caller = caller
        self._withdraw_type = withdraw
        self._log = log
        self._serve = _server(type_id, provider)
        # A wrong annotation has to fail at registration, and not at the first binding.
        if config is not None:
            check_annotation(config, f"the config of the trigger type {type_id}")
        self._config = config
        self._kept: dict[str, BoundTrigger] = {}  # the latest of each id, until it is unbound
        self._message = encode(
            RegisterTriggerType(
                id=type_id,
                description=checked_description(
                    description or first_line(provider) or "", f"the trigger type {type_id}"
                ),
                trigger_request_format=_shown(trigger_request_format, config, "trigger_request_format", type_id),
                call_request_format=_shown(call_request_format, payload, "call_request_format", type_id),
            )
        )

    def __repr__(self) -> str:
        return f"<TriggerType {self.id}: {len(self.bindings)} bindings>"

    @property
    def bindings(self) -> list[BoundTrigger]:
        """The bindings in force and those that are being bound, the oldest first."""
        return [bound for bound in self._kept.values() if not bound.withdrawn.is_set()]

    def unregister(self) -> None:
        """Stop providing the type, and end its bindings. A second time is harmless."""
        self._withdraw_type(self)
        self.withdraw_all("withdrawn")

    def message(self) -> bytes:
        """Return the message that registers it."""
        return self._message

    def withdrawal(self) -> bytes:
        """Return the message that takes it back."""
        return encode(UnregisterTriggerType(self.id))

    def renew(self) -> None:
        """Do nothing, because bindings end with their link."""

    def bind(self, session: WorkerSession, message: RegisterTrigger) -> None:
        """Bind a function. A binding of the same id is replaced."""
        before = self._kept.get(message.id)
        if before is not None:
            before.withdraw("replaced")
        try:
            bound = BoundTrigger(self._caller, message)
        except ValueError as error:
            answer_binding(session, message, WireError(ErrorCode.TRIGGER_REGISTRATION_FAILED, str(error)))
            return
        self._kept.pop(message.id, None)
        self._kept[message.id] = bound
        self._caller._run(self._keep, session, message, bound, before)

    def withdraw(self, binding_id: str, why: WhyEnded = "withdrawn") -> None:
        """End a binding."""
        bound = self._kept.get(binding_id)
        if bound is not None:
            bound.withdraw(why)

    def withdraw_all(self, why: WhyEnded) -> None:
        """End all bindings."""
        for bound in self._kept.values():
            bound.withdraw(why)

    async def _keep(
        self, session: WorkerSession, message: RegisterTrigger, bound: BoundTrigger, before: BoundTrigger | None
    ) -> None:
        """Run one binding from its request to its end."""
        try:
            if before is not None:
                await before.finished.wait()
            if bound.withdrawn.is_set():
                return
            error = await self._serve_one(session, message, bound)
            over = bound.withdrawn.is_set() or trio.current_effective_deadline() == -math.inf  # the worker leaves
            if error is not None and over:
                LOGGER.warning("the trigger '%s' for %s failed as it ended", self.id, bound.function_id, exc_info=error)
            elif error is not None:
                self._log_failure(bound, error)
                answer_binding(session, message, WireError(ErrorCode.TRIGGER_REGISTRATION_FAILED, describe(error)[0]))
        finally:
            bound.finished.set()
            if self._kept.get(bound.id) is bound:
                del self._kept[bound.id]

    def _log_failure(self, bound: BoundTrigger, error: BaseException) -> None:
        """Log why a provider does not have a binding. An error of ours is a refusal, and all else may be a bug."""
        level = logging.DEBUG if isinstance(error, IIIError) else logging.WARNING
        text = f"the provider of '{self.id}' failed at a binding of {bound.function_id}: {named_error(error)}"
        about = {"trigger_type": self.id, "binding": bound.id, "function": bound.function_id}
        self._log.log(trio.current_time(), level, text, about, peer_controlled=True, error=error)

    async def _serve_one(
        self, session: WorkerSession, message: RegisterTrigger, bound: BoundTrigger
    ) -> BaseException | None:
        """Serve a binding, and return the failure of its provider."""

        def bound_now() -> None:
            if not bound.withdrawn.is_set():
                answer_binding(session, message, None)

        try:
            if self._config is not None:
                bound.config = structure_as(bound.config, self._config, "config")
            await self._serve(bound, bound_now)
        except BaseException as error:  # one provider's bug must not end the worker
            failure, passing = sort_failure(error)
            if passing is error:
                raise
            if passing is None:
                return failure  # noqa: ASYNC104
            # The provider was cancelled, and something failed on the way out.
            LOGGER.warning("the trigger '%s' failed while it was ended", self.id, exc_info=failure)
            raise passing from None  # noqa: ASYNC104
        return None


def answer_binding(session: WorkerSession, message: RegisterTrigger, error: WireError | None) -> None:
    """Tell the engine whether a binding was accepted."""
    body = ABSENT if error is None else Raw(to_json(error))
    session.link.send(
        encode(TriggerRegistrationResult(message.id, message.trigger_type, message.function_id, error=body))
    )


def _shown(given: Any, annotation: Any, name: str, type_id: str) -> Raw:
    if given is None and annotation is not None:
        return derived_json(schema_of(annotation), f"the trigger type {type_id}", name)
    return given_json(given, f"`{name}` of the trigger type {type_id}")


# --- what may provide a type, all as: bind, tell that it is bound, stay until it is withdrawn

_Serve = Callable[[BoundTrigger, Callable[[], None]], Awaitable[None]]


def _server(type_id: str, provider: Any) -> _Serve:
    if inspect.isclass(provider):
        provider = provider()
    if hasattr(provider, "register_trigger"):
        return _pair(provider.register_trigger, getattr(provider, "unregister_trigger", None))
    if isinstance(provider, tuple) and len(provider) == 2:
        return _pair(*provider)
    if inspect.iscoroutinefunction(provider) and "task_status" in inspect.signature(provider).parameters:
        return _task(provider)
    raise MisuseError(
        f"{provider!r} cannot provide {type_id}: it is neither an object with `register_trigger` (and "
        "`unregister_trigger`), nor a pair of such functions, nor an async function that takes `task_status`"
    )


def _pair(bind: Callable[[BoundTrigger], Any], unbind: Callable[[BoundTrigger], Any] | None) -> _Serve:
    async def serve(bound: BoundTrigger, tell: Callable[[], None]) -> None:
        is_bound = False
        with bound.binding:
            await _maybe_wait(bind(bound))
            is_bound = True
        if not is_bound:
            return  # withdrawn while it was being bound
        tell()
        try:
            await bound.withdrawn.wait()
        finally:
            if unbind is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _UNBIND_SECONDS):
                    await _maybe_wait(unbind(bound))

    return serve


def _task(provider: Callable[..., Awaitable[None]]) -> _Serve:
    async def serve(bound: BoundTrigger, tell: Callable[[], None]) -> None:
        with bound.binding:
            async with trio.open_nursery() as nursery:

                async def run(*, task_status: trio.TaskStatus[None]) -> None:
                    await provider(bound, task_status=task_status)

                await nursery.start(run)
                tell()

    return serve


async def _maybe_wait(value: Any) -> None:
    if inspect.isawaitable(value):
        await value
