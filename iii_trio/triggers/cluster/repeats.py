"""Trigger types and bindings of other nodes, repeated at this engine.

A trigger type of another node is provided here by a relay, which binds each function over the link to that node. A binding
to a type that every engine has (`http`) is made here too, so that every node serves every route.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import final

import attrs

from ...errors import CallError, MisuseError
from ...lowlevel import end_binding
from ...wire import DEFAULT_NAMESPACE
from ...worker import BoundTrigger, TriggerBinding, TriggerType, Worker
from .directory import Directory
from .intake import BindingRow, TriggerTypeRow, read_row
from .records import BINDING, TRIGGER_TYPE, Key
from .relays import Relays


@final
class RemoteType:
    """The provider of a trigger type that is at another node."""

    def __init__(self, key: Key, node: str, row: bytes, there: Worker) -> None:
        self.node, self.row = node, row
        self.provided: TriggerType | None = None
        self._key = key
        self._there = there
        self._bindings: dict[str, TriggerBinding] = {}

    def register_trigger(self, bound: BoundTrigger) -> None:
        """Bind the function at the node that has the type. The node calls it over its own link to this one."""
        self._bindings[bound.id] = self._there.register_trigger(
            self._key.id,
            bound.function_id,
            config=bound.config,
            metadata=bound.metadata,
            namespace=bound.namespace,
            trigger_namespace=self._key.namespace,
        )

    def unregister_trigger(self, bound: BoundTrigger) -> None:
        """End the binding there, for the reason that it ended here."""
        binding = self._bindings.pop(bound.id, None)
        if binding is not None:
            end_binding(binding, owner_gone=bound.why_ended not in ("withdrawn", "replaced"))


@attrs.frozen
class _Repeated:
    row: bytes
    binding: TriggerBinding


@final
class Repeats:
    """The trigger types and bindings of other nodes at this engine."""

    def __init__(
        self,
        here: str,
        directory: Directory,
        relays: Relays,
        usable: Callable[[str], bool],
        worker_at: Callable[[str], Worker | None],
        local_rows: Callable[[], Mapping[Key, bytes]],
    ) -> None:
        self._here = here
        self._directory = directory
        self._relays = relays
        self._usable = usable
        self._worker_at = worker_at
        self._local_rows = local_rows
        self._types: dict[Key, RemoteType] = {}
        self._bindings: dict[Key, _Repeated] = {}

    def update(self, keys: Iterable[Key]) -> None:
        """Provide, bind or withdraw, as the directory says."""
        for key in keys:
            if key.kind == TRIGGER_TYPE:
                self._update_type(key)
            elif key.kind == BINDING:
                self._update_binding(key)

    def local_changed(self) -> None:
        """Look again at everything that gives way to a registration of this engine's own workers."""
        self.update([key for key in self._directory if key.kind in (TRIGGER_TYPE, BINDING)])

    def _update_type(self, key: Key) -> None:
        remote = self._types.get(key)
        chosen = self._directory.choose(key, self._usable)
        there = self._worker_at(chosen[0]) if chosen is not None else None
        # A type of this engine's own goes first, and a second provider would take its place.
        if chosen is None or chosen[0] == self._here or there is None or key in self._local_rows():
            if remote is not None:
                del self._types[key]
                if remote.provided is not None:
                    remote.provided.unregister()
            return
        node, offer = chosen
        if remote is not None and (remote.node, remote.row) == (node, offer.row):
            return
        relay = self._relays.get(key.namespace)
        if relay is None:
            return  # it is looked at again once it is open
        if remote is not None and remote.provided is not None:
            remote.provided.unregister()
        row: TriggerTypeRow = read_row(key, offer.row)
        remote = self._types[key] = RemoteType(key, node, offer.row, there)
        try:
            remote.provided = relay.worker.register_trigger_type(
                key.id,
                remote,
                description=row.description,
                trigger_request_format=row.trigger_request_format,
                call_request_format=row.call_request_format,
            )
        except MisuseError:
            del self._types[key]  # no name that a worker may give

    def _update_binding(self, key: Key) -> None:
        repeated = self._bindings.get(key)
        chosen = self._directory.choose(key, lambda name: name != self._here and self._usable(name))
        # The engine's own binding of a route goes first, and a later one would take its place.
        if chosen is None or key in self._local_rows() or self._bound_here(key, chosen[1].row):
            if repeated is not None:
                del self._bindings[key]
                repeated.binding.unregister()
            return
        row = chosen[1].row
        if repeated is not None and repeated.row == row:
            return
        relay = self._relays.get(DEFAULT_NAMESPACE)
        if relay is None:
            return
        if repeated is not None:
            repeated.binding.unregister()
        fields: BindingRow = read_row(key, row)
        try:
            binding = relay.worker.register_trigger(
                fields.trigger_type,
                fields.function_id,
                config=fields.config,
                metadata=fields.metadata,
                namespace=key.namespace,
                trigger_namespace=fields.trigger_namespace,
            )
        except CallError:
            return  # no JSON that this engine would take
        self._bindings[key] = _Repeated(row, binding)

    def _bound_here(self, key: Key, row: bytes) -> bool:
        fields: BindingRow = read_row(key, row)
        return any(
            (own := read_row(each_key, each)).trigger_type == fields.trigger_type and own.config == fields.config
            for each_key, each in self._local_rows().items()
            if each_key.kind == BINDING
        )
