"""One trace across the nodes of a mesh: promise O2 of docs/observability.md."""

from __future__ import annotations

import trio
from trio.testing import MockClock

import iii_trio
from tests.cluster.mesh_world import MeshWorld

from .observed import SAMPLED, TRACE, names, observed, tree


async def test_O2_a_call_to_another_node_is_one_trace_in_the_records_of_both(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        world = MeshWorld(nursery)
        await nursery.start(world.network.run)
        for name in ("a", "b"):
            await world.start(name, modules={"observability": observed(service_name=name)})
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:

            @shop.function("orders::price")
            async def price() -> str | None:
                return iii_trio.current_call().traceparent

            await shop.wait_registered()
            await world.settle()
            innermost = await app.trigger("orders::price", traceparent=SAMPLED)
            async with world["a"].engine.open_worker("look") as at_a, world["b"].engine.open_worker("look") as at_b:
                (theirs,), (ours,) = await tree(at_a), await tree(at_b)
            assert names([ours]) == names([theirs]) == [["call orders::price"]]
            assert (ours["service_name"], theirs["service_name"]) == ("b", "a")
            assert theirs["parent_span_id"] == ours["span_id"]
            assert innermost == f"00-{TRACE}-{theirs['span_id']}-01"
        nursery.cancel_scope.cancel()
