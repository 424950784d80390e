"""Two versions in one mesh, over a model of the store in virtual time (promise N31 of docs/cluster.md)."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from iii_trio.version import installed_version

from .mesh_world import LEASE_SECONDS, mesh_world
from .test_cluster_calls import SAY, offer


async def test_N31_nodes_whose_links_have_a_version_in_common_are_linked(autojump_clock: MockClock) -> None:
    async with mesh_world("a") as world:
        world.link_versions["b"] = (1, 3)
        await world.start("b")
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            await offer(one, "a")
            await world.settle()
            assert await two.trigger("say") == "a"


@pytest.mark.parametrize("versions", [(2, 3), (0, 0)])
async def test_N31_nodes_without_a_common_version_of_links_say_so_and_serve_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, versions: tuple[int, int]
) -> None:
    async with mesh_world("a", "c") as world:
        world.link_versions["b"] = versions
        async with world.open_worker("a", "one") as one:
            await offer(one, "a")
            with caplog.at_level(logging.WARNING, "iii_trio.cluster"):
                await world.start("b")
                await world.until(lambda: "b" in world["a"].cluster.directory.nodes)
            here = installed_version() or "unknown"
            why = (
                f"it is of version {here}, which understands links of versions {versions[0]} to {versions[1]}, and this one "
                f"({here}) those of 1 to 1: update the older node"
            )
            assert f"node b is not linked: {why}" in caplog.messages
            (row,) = [row for row in world["a"].cluster.nodes() if row["node"] == "b"]
            assert row["problem"] == why and row["link"] == ""
            # The others have their links as before.
            async with world.open_worker("c", "two") as two, world.open_worker("b", "three") as three:
                await world.until(lambda: all(SAY in world[name].cluster.proxies for name in "bc"))
                assert await two.trigger("say") == "a"
                # The simulated node b is of this version itself, and so has a link to a.
                assert await three.trigger("say") == "a"


async def test_N31_a_node_of_another_layout_says_why_it_does_not_join_and_joins_once_it_may(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh_world() as world:
        world.store.layout = ("iii-trio-2", "9.9", trio.current_time() + 3 * LEASE_SECONDS)
        await world.start("a", joins=False)
        async with world.open_worker("a", "one") as one:
            await offer(one, "a")
            await trio.sleep(2 * LEASE_SECONDS)
            cluster = world["a"].cluster
            assert not cluster.joined
            assert cluster.problem.startswith(
                "the mesh has nodes of version 9.9, which keep their data in another layout (iii"
            )
            assert sum(cluster.problem in message for message in caplog.messages) == 1
            # It serves its own workers meanwhile.
            assert await one.trigger("say") == "a"
            await world.until(lambda: cluster.joined)
            assert cluster.problem == ""
