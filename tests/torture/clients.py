"""Those who want work done, and remember for which of it they have a receipt."""

from __future__ import annotations

from random import Random

import attrs
import trio

import iii_trio

from .plan import WORKERS, Conduct, Stream, conduct_of

_LINK_LOST = ("invocation_stopped", "engine_draining", "No queue provider", "function_not_found")
"""What a client is told while the engine is on its way out."""


@attrs.define(eq=False)
class Clients:
    """All of them, in this process; each engine has a link of theirs."""

    address: str
    wanted: dict[str, Conduct] = attrs.field(factory=dict)
    """By its key: what was asked for, and how its handler is to behave."""
    promised: set[str] = attrs.field(factory=set)
    """What a receipt came for."""
    refused: list[str] = attrs.field(factory=list)
    expected: tuple[str, ...] = ()
    """The refusals that the round's mishap brings with it."""
    _link: iii_trio.Worker | None = None
    _up: trio.Event = attrs.field(factory=trio.Event)
    _stopped: trio.Event = attrs.field(factory=trio.Event)

    async def stay_linked(self, *, task_status: trio.TaskStatus[None]) -> None:
        """A link to the engine that runs now, until cancelled."""
        try:
            async with iii_trio.open_worker(self.address, name="clients") as self._link:
                self._up.set()
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._link, self._up = None, trio.Event()

    @property
    def link(self) -> iii_trio.Worker:
        assert self._link is not None
        return self._link

    def stop(self) -> None:
        """No more work."""
        self._stopped.set()

    async def want_one(self, group: str) -> None:
        """A single job, that must be taken. What was said to the queue before is on disk then, too: subscriptions have no
        receipt of their own."""
        key = f"plain/{group}/1"
        payload = {"kind": "plain", "group": group, "n": 1, "conduct": "well", "seconds": 0}
        self.wanted[key] = "well"
        await self.link.trigger(f"{WORKERS[0]}::work", payload, action=iii_trio.enqueue("plain"))
        self.promised.add(key)

    async def want_poison(self) -> None:
        """A job for each worker that kills it, among the others."""
        for n, name in enumerate(WORKERS, 1):
            payload = {"kind": "plain", "group": "poison", "n": n, "conduct": "poison", "seconds": 0}
            self.wanted[f"plain/poison/{n}"] = "poison"
            await self.link.trigger(f"{name}::work", payload, action=iii_trio.enqueue("plain"))
            self.promised.add(f"plain/poison/{n}")

    async def want(self, stream: Stream, rng: Random) -> None:
        """One stream: one job after the other."""
        n = 0
        while not self._stopped.is_set():
            while self._link is None:
                await self._up.wait()
            n += 1
            conduct = conduct_of(rng)
            payload = {
                "kind": stream.kind,
                "group": stream.group,
                "n": n,
                "conduct": conduct,
                "seconds": rng.choice((0.0, 0.0, rng.uniform(0, 0.01), rng.uniform(0, 0.05))),
                "filler": "x" * rng.choice((0, 0, 0, 100, 20_000)),
            }
            kinds = [f"topic-{name}" for name in WORKERS] if stream.kind == "topic" else [stream.kind]
            keys = [f"{kind}/{stream.group}/{n}" for kind in kinds]
            self.wanted.update(dict.fromkeys(keys, conduct))
            try:
                if stream.kind == "topic":
                    await self.link.trigger("iii::durable::publish", {"topic": "news", "data": payload})
                else:
                    function = f"{rng.choice(WORKERS)}::work"
                    await self.link.trigger(function, payload, action=iii_trio.enqueue(stream.kind))
            except (iii_trio.CallError, iii_trio.ConnectionFailed) as error:
                if not any(word in str(error) for word in (*_LINK_LOST, *self.expected)) and isinstance(
                    error, iii_trio.CallError
                ):
                    self.refused.append(str(error))
            else:
                self.promised.update(keys)
            await trio.sleep(rng.expovariate(200))
