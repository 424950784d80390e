"""Names of workers in a mesh, over a model of the store in virtual time (promise N30 of docs/cluster.md)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from iii_trio.errors import Rejected
from iii_trio.triggers.cluster.records import EntryKind, Node

from .mesh_world import LEASE_SECONDS, MeshWorld, mesh_world


class Claim:
    """A worker that claims a name at a node, and what has become of it."""

    def __init__(
        self, world: MeshWorld, node: str, name: str = "harbour", over: str = "memory", **options: Any
    ) -> None:
        self.refused = ""
        self.has_name = False
        self.scope = trio.CancelScope()
        self._open: Callable[[], Any] = lambda: world.open_worker(node, name, over, **options)

    async def run(self, *, task_status: trio.TaskStatus[Claim]) -> None:
        try:
            with self.scope:
                async with self._open():
                    self.has_name = True
                    task_status.started(self)
                    await trio.sleep_forever()
        except* Rejected as refused:
            self.refused = str(refused.exceptions[0])
        finally:
            self.has_name = False


@pytest.mark.parametrize(("first", "second"), [*itertools.product(("memory", "network"), repeat=2)])
async def test_N30_the_second_worker_of_a_name_is_refused_at_another_node(
    autojump_clock: MockClock, first: str, second: str
) -> None:
    async with mesh_world("a", "b") as world, trio.open_nursery() as nursery:
        holder = await nursery.start(Claim(world, "a", over=first).run)
        await world.settle()
        elsewhere = await nursery.start(Claim(world, "b", over=second, namespace="other").run)
        newcomer = await nursery.start(Claim(world, "b", over=second).run)
        began = trio.current_time()
        await world.until(lambda: newcomer.refused)
        # No time limit was waited for.
        assert trio.current_time() - began < 1
        assert "this worker was refused: worker " in newcomer.refused
        assert "has the name 'harbour' in namespace 'default'" in newcomer.refused
        assert world["b"].cluster.directory.nodes.keys() == {"a", "b"}
        await trio.sleep(3 * LEASE_SECONDS)
        assert holder.has_name and elsewhere.has_name
        # The name is free again once its holder has left.
        holder.scope.cancel()
        await world.settle()
        third = await nursery.start(Claim(world, "b", over=second).run)
        await trio.sleep(3 * LEASE_SECONDS)
        assert third.has_name
        nursery.cancel_scope.cancel()


async def test_N30_a_holder_that_shows_no_sign_of_life_loses_its_name_to_one_at_another_node(
    autojump_clock: MockClock,
) -> None:
    async with mesh_world("a", "b") as world, trio.open_nursery() as nursery:
        await nursery.start(Claim(world, "a", over="network").run)
        await world.settle()
        # Its machine has vanished, and no kernel tells node a.
        world.network.partition("worker harbour>a")
        newcomer = await nursery.start(Claim(world, "b").run)
        await world.until(lambda: not _listed(world, "a", "harbour"), 10)
        await trio.sleep(3 * LEASE_SECONDS)
        assert newcomer.has_name and _listed(world, "b", "harbour")
        nursery.cancel_scope.cancel()


def _listed(world: MeshWorld, node: str, name: str) -> bool:
    return any(key.kind == "name" and key.id == name for key in world[node].cluster.local_rows)


@pytest.mark.parametrize("apart", ["store", "link"])
async def test_N30_of_two_that_took_a_name_apart_the_one_published_first_stays(
    autojump_clock: MockClock, apart: str
) -> None:
    async with mesh_world("a", "b", "c") as world, trio.open_nursery() as nursery:
        if apart == "store":
            world.cut_from_store("a", "b")
        else:
            world.cut("a", "b")
        one = await nursery.start(Claim(world, "a").run)
        if apart == "link":
            await world.until(lambda: _known(world, "c", "a"))
        two = await nursery.start(Claim(world, "b").run)
        await trio.sleep(2)
        # Neither node can tell, so both serve.
        assert one.has_name and two.has_name
        world.mend("a", "b")
        world.reach_store("b")
        await world.until(lambda: _known(world, "c", "b"))
        world.reach_store("a")
        await world.until(lambda: one.refused or two.refused)
        await trio.sleep(3 * LEASE_SECONDS)
        # With the store apart, b came back first. With the link apart, a had published first.
        assert (one.has_name, two.has_name) == ((False, True) if apart == "store" else (True, False))
        nursery.cancel_scope.cancel()


async def test_N30_a_name_is_asked_for_once_a_lease_that_had_run_out_is_renewed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh_world("a", "b") as world, trio.open_nursery() as nursery:
        holder = await nursery.start(Claim(world, "a").run)
        await world.settle()
        publish, lapsed = world.store.publish, []

        def answered_late(node: Node, number: int, changes: Any) -> None:
            publish(node, number, changes)
            # The node reads its own row while its lease has run out by its clock. The store still grants it more time.
            if node.name == "b" and any(key.id == "harbour" for key in changes):
                lapsed.append(world["b"].cluster.lease.check(math.inf))

        monkeypatch.setattr(world.store, "publish", answered_late)
        newcomer = await nursery.start(Claim(world, "b").run)
        await world.until(lambda: lapsed)
        assert lapsed == [True]
        await world.until(lambda: newcomer.refused, LEASE_SECONDS)
        assert holder.has_name
        nursery.cancel_scope.cancel()


def _known(world: MeshWorld, at: str, node: str) -> bool:
    return any(key.kind == "name" and key.id == "harbour" for key in world[at].cluster.directory.of_node(node))


async def test_N30_asking_for_a_holder_takes_no_name_and_leaves_nothing(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world, trio.open_nursery() as nursery:
        holder = await nursery.start(Claim(world, "a").run)
        await world.settle()
        rows = set(world.store.snapshot().offers["a"])
        newcomer = await nursery.start(Claim(world, "b").run)
        await world.until(lambda: newcomer.refused)
        await world.settle()
        assert set(world.store.snapshot().offers["a"]) == rows and holder.has_name
        assert not any(key.id == "harbour" for key in world.store.snapshot().offers["b"])
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("row", [b"{}", b'{"worker":7}', b"[1]", b"no JSON"])
async def test_N30_a_holder_is_found_though_its_row_is_of_another_version(
    autojump_clock: MockClock, row: bytes
) -> None:
    async with mesh_world("a", "b") as world, trio.open_nursery() as nursery:
        await nursery.start(Claim(world, "a").run)
        await world.settle()
        (key,) = [key for key in world.store.offers["a"] if key.kind == "name" and key.id == "harbour"]
        world.store._add(EntryKind.OFFERS, world.store.nodes["a"], {key: row})
        await world.until(lambda: world["b"].cluster.directory.offers(key)[0][1].row == row)
        newcomer = await nursery.start(Claim(world, "b").run)
        await world.until(lambda: newcomer.refused)
        assert "worker unknown" in newcomer.refused
        await trio.sleep(2 * LEASE_SECONDS)
        assert world.agreed
        nursery.cancel_scope.cancel()
