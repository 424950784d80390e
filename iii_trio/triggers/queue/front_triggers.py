"""The trigger type `durable:subscriber` at a node of a mesh. Each binding is made at the node that owns the queues."""

from __future__ import annotations

from typing import final

import attrs

from ...lowlevel import end_binding
from ...wire import to_json
from ...worker import BoundTrigger, TriggerBinding, Worker
from .front import namespace_of_node
from .protocol import read_subscriber
from .subscriptions import TRIGGER_TYPE


@attrs.define(eq=False)
class _Passed:
    bound: BoundTrigger
    there: TriggerBinding | None = None


@final
class FrontTriggers:
    """The provider of the trigger type at one node."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._owner: str | None = None
        self._bindings: dict[str, _Passed] = {}
        self._replaced: dict[str, TriggerBinding] = {}

    def owned_by(self, node: str | None) -> None:
        """Make all bindings at this node from now on."""
        if node == self._owner or node is None:
            return
        self._owner = node
        for passed in self._bindings.values():
            before = passed.there
            self._bind(passed)
            if before is not None:
                # The new owner knows the subscribers by the store. So nothing is withdrawn where this one is still there.
                end_binding(before, owner_gone=True)

    def register_trigger(self, bound: BoundTrigger) -> None:
        """Take a binding. Raises ValueError for a configuration that cannot be read."""
        read_subscriber(to_json(bound.config))
        passed = self._bindings[bound.id] = _Passed(bound)
        self._bind(passed)
        # The earlier one ends after the new one has begun, so that a subscriber of both stays one.
        before = self._replaced.pop(bound.id, None)
        if before is not None:
            before.unregister()

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """End a binding. Its subscriber is forgotten if it was withdrawn, and remembered if its worker has gone."""
        passed = self._bindings.pop(bound.id, None)
        if passed is None or passed.there is None:
            return
        if bound.why_ended == "replaced":
            self._replaced[bound.id] = passed.there
        else:
            end_binding(passed.there, owner_gone=bound.why_ended != "withdrawn")

    def _bind(self, passed: _Passed) -> None:
        if self._owner is not None:
            bound = passed.bound
            passed.there = self._worker.register_trigger(
                TRIGGER_TYPE,
                bound.function_id,
                config=bound.config,
                metadata=bound.metadata,
                namespace=bound.namespace,
                trigger_namespace=namespace_of_node(self._owner),
            )
