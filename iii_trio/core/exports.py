"""The registrations of this engine's workers, as another engine of the mesh is told.

Engines have functions and trigger types of their own and of their modules. Those, and those of other engines that relays
have registered here, are left out. But what a module registers in a namespace of its own is meant for the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Raw

from ..wire import DEFAULT_NAMESPACE, is_given, to_json
from .binding import Provider, TriggerBinding
from .registry import Function
from .session import WorkerSession
from .state import State
from .views import function_worker, readable, type_worker, worker_row

FUNCTION: Final = "function"
TRIGGER_TYPE: Final = "trigger_type"
BINDING: Final = "binding"
WORKER: Final = "worker"
NAME: Final = "name"


class Export(msgspec.Struct, frozen=True):
    """One registration. `row` is a JSON object."""

    kind: str
    namespace: str
    id: str
    row: bytes


def export_registrations(state: State) -> Iterator[Export]:
    """Yield what the workers of this engine have registered."""
    for function in state.registry:
        row = _function(state, function)
        # Neither this engine's own, nor waited for by one of its workers.
        if row is not None:
            yield Export(FUNCTION, function.namespace, function.id, row)
    for provider in state.triggers.providers():
        if _is_offered(provider.session):
            yield Export(TRIGGER_TYPE, provider.namespace, provider.type, _type(provider))
    for binding in state.triggers:
        if _is_local(binding.owner):
            yield Export(BINDING, binding.namespace, binding.id, _binding(binding))
    for session in state.sessions.values():
        if _is_local(session) and session.info.name is not None:
            yield Export(WORKER, session.namespace, session.id, _worker(state, session))
        if _is_local(session) and session.lease is not None:
            yield Export(NAME, *session.lease, to_json({"worker": session.id}))


def _is_local(session: WorkerSession | None) -> bool:
    return session is not None and not session.internal and not session.relays


def _is_offered(session: WorkerSession | None) -> bool:
    if session is None or session.relays:
        return False
    return not session.internal or session.namespace != DEFAULT_NAMESPACE


def _function(state: State, function: Function) -> bytes | None:
    """Return the row of a function, of a worker that stands by for another engine's, or None for neither."""
    if _is_offered(function.owner):
        # The row of a registration never changes, and there may be many of them.
        if function.exported is None:
            row = {
                "worker": function_worker(function, function.id),
                "description": function.description,
                **_given(function, "metadata", "request_format", "response_format"),
            }
            # The other nodes call it, and their users are not to see it in every list.
            if function.owner is not None and function.owner.internal:
                row.pop("metadata", None)
                row["metadata"] = {"internal": True}  # the last one, by which other nodes know such rows
            function.exported = to_json(row)
        return function.exported
    if function.owner is None or not function.owner.relays:
        return None
    standby = next((each for each in state.registry.standbys(function) if _is_local(each.owner)), None)
    return None if standby is None else to_json({"worker": function_worker(standby, standby.id), "standby": True})


def _type(provider: Provider) -> bytes:
    formats = _given(provider, "trigger_request_format", "call_request_format")
    return to_json({"worker": type_worker(provider), "description": provider.description, **formats})


def _binding(binding: TriggerBinding) -> bytes:
    return to_json(
        {
            "trigger_type": binding.trigger_type,
            "function_id": binding.function_id,
            "config": readable(binding.config_or_null),
            "trigger_namespace": binding.trigger_namespace,
            **_given(binding, "metadata"),
        }
    )


def _worker(state: State, session: WorkerSession) -> bytes:
    # What changes with each call is not told.
    return to_json({**worker_row(state, session), "active_invocations": 0})


def _given(owner: object, *names: str) -> dict[str, object]:
    """Return the payloads that are given, each one in a form that keeps the row readable."""
    found: dict[str, Raw] = {name: getattr(owner, name) for name in names}
    return {name: readable(value) for name, value in found.items() if is_given(value)}
