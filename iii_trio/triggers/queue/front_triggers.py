"""The trigger type `durable:subscriber` at a node of a mesh. Each binding is made at the owner of its topic's shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from ...lowlevel import end_binding
from ...records import define
from ...wire import to_json
from ...worker import BoundTrigger, TriggerBinding, Worker
from .protocol import read_subscriber
from .shards import namespace_of_shard, shard_of
from .subscriptions import TRIGGER_TYPE


@define(eq=False)
class _Passed:
    bound: BoundTrigger
    topic: str
    place: tuple[str, int] | None = None
    """The node and the shard of its last owner."""
    there: TriggerBinding | None = None


@final
class FrontTriggers:
    """The provider of the trigger type at one node."""

    def __init__(self, worker: Worker, forget: Callable[[str, str, str], object]) -> None:
        self._worker = worker
        self._forget = forget
        """Has the owner of a topic forget a subscriber, by its namespace and function, which has no bindings left."""
        self._owners: Sequence[str | None] = ()
        self._bindings: dict[str, _Passed] = {}
        self._replaced: dict[str, TriggerBinding] = {}

    def owned_by(self, owners: Sequence[str | None]) -> None:
        """Make all bindings at these nodes from now on, which own one shard each."""
        if owners == self._owners:
            return
        self._owners = owners
        for passed in self._bindings.values():
            before = passed.there
            # The new owner knows the subscribers by the store. So nothing is withdrawn where this one is still there.
            if self._bind(passed) and before is not None:
                end_binding(before, owner_gone=True)

    def register_trigger(self, bound: BoundTrigger) -> None:
        """Take a binding. Raises ValueError for a configuration that cannot be read."""
        passed = self._bindings[bound.id] = _Passed(bound, read_subscriber(to_json(bound.config)).topic)
        self._bind(passed)
        # The earlier one ends after the new one has begun, so that a subscriber of both stays one.
        before = self._replaced.pop(bound.id, None)
        if before is not None:
            before.unregister()

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """End a binding. Its subscriber is forgotten if it was withdrawn, and remembered if its worker has gone."""
        passed = self._bindings.pop(bound.id, None)
        if passed is None:
            return
        if bound.why_ended != "replaced":
            if passed.there is not None:
                end_binding(passed.there, owner_gone=bound.why_ended != "withdrawn")
            # The next owner may know the subscriber by the store, and may never have had the binding.
            if bound.why_ended == "withdrawn" and passed.topic:
                self._forget(passed.topic, bound.namespace, bound.function_id)
        elif passed.there is not None:
            self._replaced[bound.id] = passed.there

    def _bind(self, passed: _Passed) -> bool:
        """Make the binding at the owner of its shard. Return whether there is one that has not had it."""
        if not self._owners:
            return False
        shard = shard_of(passed.topic, len(self._owners))
        owner = self._owners[shard]
        if owner is None or passed.place == (owner, shard):
            return False
        bound, passed.place = passed.bound, (owner, shard)
        passed.there = self._worker.register_trigger(
            TRIGGER_TYPE,
            bound.function_id,
            config=bound.config,
            metadata=bound.metadata,
            namespace=bound.namespace,
            trigger_namespace=namespace_of_shard(owner, shard),
        )
        return True
