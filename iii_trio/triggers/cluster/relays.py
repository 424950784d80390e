"""The workers of this engine that stand for other nodes: one for each namespace, because a worker has one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import attrs
import trio

from ...environment import Environment
from ...errors import CallError, ConnectionFailed
from ...lowlevel import flush, wait_link_lost
from ...transport.link import Address
from ...wire import RELAY
from ...worker import Worker, open_worker
from .passing import PassedCall, Passing
from .together import BothWays

_NAME: Final = "iii-cluster-relay"


@attrs.frozen
class Relay:
    """One of the workers, with the calls that it makes at its own engine."""

    worker: Worker
    passing: Passing


@final
class Relays:
    """Opens the relays when they are first needed. `on_open` is called with the namespace once one is there."""

    def __init__(
        self,
        address: Address,
        environment: Environment,
        nursery: trio.Nursery,
        on_open: Callable[[str], object],
        ways: BothWays,
    ) -> None:
        self._ways = ways
        self._address = address
        self._environment = environment
        self._nursery = nursery
        self._on_open = on_open
        self._relays: dict[str, Relay | None] = {}
        """By namespace. None: it is being opened."""

    def get(self, namespace: str) -> Relay | None:
        """Return the relay of a namespace, or None while it is being opened."""
        # Most engines have one namespace, and a worker for each takes a task.
        if namespace not in self._relays:
            self._relays[namespace] = None
            self._nursery.start_soon(self._keep, namespace)
        return self._relays[namespace]

    def flush(self) -> None:
        """Have the engine know of everything before its next call."""
        for relay in self._relays.values():
            if relay is not None:
                flush(relay.worker)

    async def _keep(self, namespace: str) -> None:
        try:
            async with open_worker(
                self._address,
                name=_NAME,
                namespace=namespace,
                features=(RELAY,),
                environment=self._environment,
            ) as worker:
                while True:
                    passing = Passing("this engine", _gone, BothWays())
                    passing.connect(worker).link.bracket(self._ways.calls)
                    self._relays[namespace] = Relay(worker, passing)
                    self._on_open(namespace)
                    # A link within the process has room always, so that no call waits.
                    await wait_link_lost(worker)
                    self._relays[namespace] = None
                    await worker.wait_connected()
        except ConnectionFailed as error:
            raise ConnectionFailed(f"the functions of other nodes cannot be offered in {namespace}: {error}") from error


def _gone(passed: PassedCall, error: CallError) -> None:
    """Fail a call for which this engine has no function either."""
    passed.call.fail(error)
