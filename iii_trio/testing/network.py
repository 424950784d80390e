"""A simulated network, with one random source for all connections and one task that moves their time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Protocol, Unpack, final

import attrs
import trio

from ..transport.dial import SocketAddress
from .sim_stream import ConditionOptions, Conditions, SimStream


class Serves(Protocol):
    """An engine, as far as a network needs it."""

    async def serve_stream(self, stream: trio.abc.Stream, *, peer: str | None = None) -> None:
        """Serve one connection until it is over."""


@final
class Network:
    """Connections in virtual time. Everything random about them comes from `seed`.

    `conditions` hold where a connection says nothing else. `run` must run in a nursery of the caller's (it also serves
    dialled connections) for connections that are not perfect, or that are dialled; cancelling it drops them all.
    """

    def __init__(self, seed: int = 0, conditions: Conditions | None = None) -> None:
        self.random = Random(seed)
        self.conditions = conditions or Conditions()
        self._connections: dict[SimStream, SimStream] = {}  # near to far
        self._apart: set[str] = set()  # whose packets vanish
        self._together = trio.lowlevel.ParkingLot()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._nap = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Move the connections' time and serve dialled connections until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                while True:
                    with trio.CancelScope(deadline=self._next) as self._nap:
                        await trio.sleep_forever()
                    # What happens now may add events for this same moment, so the heap is asked each time.
                    while self._events and self._events[0][0] <= trio.current_time():
                        heapq.heappop(self._events)[2]()
            # Dialling must be refused from now on, because no task would serve the far end.
            finally:
                self._nursery = None

    def at(self, when: float, happen: Callable[[], None]) -> None:
        """Call `happen` at this time, or at once if it has passed, without moving time."""
        # Without a delay everything happens within the write, so that virtual time need not move.
        if when <= trio.current_time():
            happen()
        else:
            heapq.heappush(self._events, (when, next(self._order), happen))
            self._nap.deadline = self._next

    @property
    def _next(self) -> float:
        return self._events[0][0] if self._events else math.inf

    # --- connections

    def pair(self, name: str = "pair", **conditions: Unpack[ConditionOptions]) -> tuple[SimStream, SimStream]:
        """Return two joined ends, the dialling one first. `conditions` are those of `Conditions`."""
        near, far = SimStream.pair(name, attrs.evolve(self.conditions, **conditions), self)
        self._connections = {a: b for a, b in self._connections.items() if not (a.closed and b.closed)}
        self._connections[near] = far
        # A connection that is made during a partition is as mute as the older ones.
        if name in self._apart:
            near.vanish()
            far.vanish()
        return near, far

    async def dial(self, engine: Serves, name: str, **conditions: Unpack[ConditionOptions]) -> SimStream:
        """Connect `name` to an engine and return the dialling end. The engine serves the other end in a task of `run`.

        While the two are apart this waits. Raises ConnectionRefusedError if the network does not run.
        """
        await trio.lowlevel.checkpoint()
        # The name may be cut off again between the healing and this task's turn.
        while name in self._apart:
            await self._together.park()
        if self._nursery is None:
            raise ConnectionRefusedError(f"the network that {name} is in does not run")
        near, far = self.pair(name, **conditions)
        self._nursery.start_soon(_serve, engine, far, name)
        return near

    def address(self, engine: Serves, name: str = "sim", **conditions: Unpack[ConditionOptions]) -> SocketAddress:
        """Return the address by which `name` reaches an engine here, with frames and masks as over any socket."""

        async def dial() -> trio.abc.Stream:
            return await self.dial(engine, name, **conditions)

        return SocketAddress("ws://sim", dial=dial, new_mask=lambda: self.random.randbytes(4))

    def connections(self, name: str | None = None) -> list[tuple[SimStream, SimStream]]:
        """Return the open connections (of `name`), oldest first, as pairs of ends, the dialling one first."""
        return [
            (near, far)
            for near, far in self._connections.items()
            if not (near.closed and far.closed) and (name is None or near.name == f"{name}>")
        ]

    # --- faults

    def partition(self, name: str) -> None:
        """Cut `name` off. Data sent either way vanishes, and dialling waits."""
        self._apart.add(name)
        for near, far in self.connections(name):
            near.vanish()
            far.vanish()

    def heal(self, name: str) -> None:
        """Undo `partition`. Data sent meanwhile arrives."""
        self._apart.discard(name)
        for near, far in self.connections(name):
            near.heal()
            far.heal()
        self._together.unpark_all()

    def reset(self, name: str) -> None:
        """Reset the connections of `name`, as the machine of a dead process does."""
        for near, _ in self.connections(name):
            near.reset()


async def _serve(engine: Serves, stream: SimStream, name: str) -> None:
    try:
        await engine.serve_stream(stream, peer=name)
    # A kernel closes the socket of a connection however its server ended.
    finally:
        stream.close()
