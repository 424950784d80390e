"""The functions of other nodes, registered at this engine. They stand by for its own workers' functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Final, final

import attrs

from ...errors import CallError
from ...lowlevel import InlineCall, relay_function
from ...wire import RELAY_NODE, RELAY_WORKER, ErrorCode
from ...worker import Registered
from .directory import Directory
from .intake import FunctionRow, read_row
from .passing import PassedCall
from .records import FUNCTION, Key
from .relays import Relays

WORKER: Final = "iii-cluster"


@attrs.frozen
class _Proxy:
    node: str
    row: bytes
    registered: Registered


@final
class Proxies:
    """The proxies of one engine."""

    def __init__(
        self,
        relays: Relays,
        here: str,
        directory: Directory,
        usable: Callable[[str], bool],
        expected: Callable[[str], bool],
        pass_on: Callable[[str, InlineCall, Key], object],
    ) -> None:
        self._relays = relays
        self._here = here
        self._directory = directory
        self._usable = usable
        self._expected = expected
        self._pass_on = pass_on
        self._proxies: dict[Key, _Proxy] = {}

    def __len__(self) -> int:
        return len(self._proxies)

    def __contains__(self, key: Key) -> bool:
        return key in self._proxies

    def node_of(self, key: Key) -> str | None:
        """Return the node to which calls of this function go from here, or None if they go to none."""
        proxy = self._proxies.get(key)
        return proxy.node if proxy is not None else None

    def call_here(self, passed: PassedCall) -> None:
        """Have a call answered by this engine's own function. Raises CallError if the engine is not there."""
        relay = self._relays.get(passed.key.namespace)
        if relay is None:
            raise CallError(ErrorCode.FUNCTION_NOT_FOUND, f"Function {passed.key.id} not found", origin="engine")
        relay.passing.pass_on(passed)

    def update(self, keys: Iterable[Key]) -> None:
        """Register, describe again, or withdraw the proxies of these functions, as the directory says."""
        for key in keys:
            if key.kind == FUNCTION:
                self._update(key)

    def _update(self, key: Key) -> None:
        # A node that is reached comes first. Calls wait for one that has just joined only if there is no other.
        chosen = self._directory.choose(key, self._usable) or self._directory.choose(key, self._expected)
        proxy = self._proxies.get(key)
        # A worker of this engine that is the next one takes over in this very step.
        if chosen is None or chosen[0] == self._here:
            if proxy is not None:
                del self._proxies[key]
                proxy.registered.unregister()
            return
        # A proxy that only moves to another node keeps its place at the engine.
        node, offer = chosen
        if proxy is not None and (proxy.node, proxy.row) == (node, offer.row):
            return
        relay = self._relays.get(key.namespace)
        if relay is None:
            return  # it is looked at again once it is open
        row: FunctionRow = read_row(key, offer.row)
        metadata = row.metadata
        registered = relay_function(
            relay.worker,
            key.id,
            functools.partial(self._called, key),
            description=row.description,
            metadata={
                **(metadata if isinstance(metadata, dict) else {}),
                RELAY_NODE: node,
                RELAY_WORKER: row.worker,
            },
            request_format=row.request_format,
            response_format=row.response_format,
        )
        self._proxies[key] = _Proxy(node, offer.row, registered)

    def _called(self, key: Key, call: InlineCall) -> None:
        proxy = self._proxies.get(key)
        self._pass_on(proxy.node if proxy is not None else "", call, key)
