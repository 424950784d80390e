"""Sessions of nodes that do not answer, over a model of the store in virtual time (promise N13 of docs/cluster.md)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from iii_trio.transport.dial import SocketAddress
from iii_trio.triggers.cluster.memory_store import MemoryStore
from iii_trio.triggers.cluster.node_link import fence_of_link, link_name
from iii_trio.triggers.cluster.records import Node

from .mesh_world import LEASE_SECONDS, MeshWorld, mesh_world

DARK = SocketAddress("ws://dark", dial=trio.sleep_forever)
"""A machine that swallows whatever is sent to it."""


def _sessions_of_b(world: MeshWorld) -> list[int]:
    """Return the fencing numbers of the sessions that node b has at node a."""
    return sorted(fence for name in world["a"].cluster._host.relays() if (fence := fence_of_link("b", name)))


async def _lose(world: MeshWorld) -> None:
    """Let node b vanish with its machine: no connection of it ends at node a."""
    world["a"].cluster.links["b"].address = DARK
    world.cut_from_store("b")
    for near, far in world.network.connections("b>a"):
        near.vanish()
        far.vanish()
    await world.stop("b")
    world.reach_store("b")
    await world.until(lambda: "b" not in world["a"].cluster.directory.nodes)


@pytest.mark.parametrize("is_reached", [True, False])
async def test_N13_a_node_that_took_the_name_of_a_silent_one_keeps_its_sessions(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, is_reached: bool
) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("a", "worker") as worker:

        @worker.function("slow")
        async def slow() -> str:
            await trio.sleep(2 * LEASE_SECONDS)
            return "done"

        await worker.wait_registered()
        await world.settle()
        old = world.store.nodes["b"].fence
        await _lose(world)
        assert _sessions_of_b(world) == [old]
        if not is_reached:
            monkeypatch.setattr(world["a"].cluster.links, "address_of", lambda node: DARK)
        await world.start("b")
        new = world.store.nodes["b"].fence
        await world.until(lambda: _sessions_of_b(world) == [old, new])
        async with world.open_worker("b", "client") as client:
            await world.until(lambda: world["b"].cluster.links["a"].up)
            # The question to the old one finds no answer meanwhile.
            assert await client.trigger("slow") == "done"
        assert _sessions_of_b(world) == [new]


async def test_N13_a_node_that_joined_again_is_not_taken_for_silent_by_an_old_question(
    autojump_clock: MockClock,
) -> None:
    async with mesh_world("a", "b") as world:
        old = world.store.nodes["b"].fence
        world["a"].cluster.links["b"].address = DARK  # what is asked for is lost, and what is dialled later is not
        world.cut_from_store("b")
        await world.until(lambda: "b" not in world["a"].cluster.directory.nodes)
        world.reach_store("b")
        await world.settle()
        assert world.store.nodes["b"].fence > old
        await trio.sleep(2 * LEASE_SECONDS)
        # It is the same process, and its session has lasted.
        assert _sessions_of_b(world) == [old]


async def test_a_node_whose_lease_is_granted_late_opens_its_links_with_its_fencing_number(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = MemoryStore.join

    async def join_late(self: MemoryStore, *arguments: Any) -> Node:
        await trio.sleep(1)
        return await join(self, *arguments)

    async with mesh_world("a") as world:
        monkeypatch.setattr(MemoryStore, "join", join_late)
        await world.start("b")
        await world.settle()
        # The others could not tell its sessions from those of another one of its name.
        assert _sessions_of_b(world) == [world.store.nodes["b"].fence]


async def test_a_node_that_may_not_join_yet_opens_no_links(autojump_clock: MockClock) -> None:
    async with mesh_world("a") as world:
        # Another engine has died with this name a moment ago.
        world.store.join("b", "ws://elsewhere", "", 2 * LEASE_SECONDS)
        await world.start("b", joins=False)
        await trio.sleep(LEASE_SECONDS)
        assert "is node b: name this one otherwise" in world["b"].cluster.problem
        assert not world["b"].cluster.links
        assert [name for name in world["a"].cluster._host.relays() if name.startswith("node b")] == []
        await world.until(lambda: world["b"].cluster.joined)
        await world.settle()
        (name,) = [name for name in world["a"].cluster._host.relays() if name.startswith("node b")]
        assert fence_of_link("b", name) == world.store.nodes["b"].fence


@pytest.mark.parametrize("name", ["b", "b (1", "b.*"])
def test_the_name_of_a_link_tells_the_fencing_number_of_its_node(name: str) -> None:
    here, there = Node(name, "ws://b", 12), Node("a", "ws://a", 3)
    assert fence_of_link(name, link_name(name, here, there, 4)) == 12
    assert fence_of_link(name, link_name(name, None, there, 4)) == 0
    for other in (f"node {name} (3.1)", f"node {name}x (1.2.3)", "iii-cluster-relay", ""):
        assert fence_of_link(name, other) == 0


async def test_N5_what_is_registered_while_a_lease_has_run_out_unnoticed_is_published_once_it_is_renewed(
    autojump_clock: MockClock,
) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("b", "worker") as worker:
        await world.settle()
        fence, until = world.store.leases["b"]
        await world.until(lambda: world.store.leases["b"][1] > until)  # just renewed, so the next time is far
        world.store.leases["b"] = (fence, trio.current_time())

        @worker.function("late")
        async def late() -> int:
            return 1

        await worker.wait_registered()
        await trio.sleep(1)
        assert "late" not in {key.id for key in world["a"].cluster.directory}
        await world.until(lambda: world.store.held("b") == fence)
        await world.until(lambda: "late" in {key.id for key in world["a"].cluster.directory}, 1)
