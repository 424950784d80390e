"""Trigger types, routes and lists across nodes (promises N15 to N18 of docs/cluster.md)."""

from __future__ import annotations

import json
from typing import Any

import h11
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio.triggers.http import HttpConfig
from iii_trio.worker import BoundTrigger

from .mesh_world import mesh_world


async def test_N15_a_function_is_bound_to_a_trigger_type_of_another_node(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("b", "app") as app:
        fired: list[Any] = []
        bound_here: list[BoundTrigger] = []

        @app.function("app::ring")
        async def ring(hour: int, metadata: Any = None) -> str:
            fired.append((hour, metadata))
            return "rung"

        binding = app.register_trigger("clock", "app::ring", config={"every": 3}, metadata={"m": 1})
        async with world.open_worker("a", "clockwork") as clockwork:

            @clockwork.trigger_type("clock", description="rings")
            class Clock:
                async def register_trigger(self, bound: BoundTrigger) -> None:
                    bound_here.append(bound)

                async def unregister_trigger(self, bound: BoundTrigger) -> None:
                    bound_here.remove(bound)

            await world.settle()
            await world.until(lambda: bool(bound_here))
            assert [(each.config, each.metadata) for each in bound_here] == [({"every": 3}, {"m": 1})]
            assert await bound_here[0].fire({"hour": 5}) == "rung"
            assert fired == [(5, {"m": 1})]
            binding.unregister()
            await world.until(lambda: not bound_here)
            app.register_trigger("clock", "app::ring", config={"every": 4})
            await world.until(lambda: bool(bound_here))
            world.cut("a", "b")
            await world.until(lambda: not bound_here, 1)


async def get(engine: iii_trio.Engine, path: str) -> tuple[int, Any]:
    """Make one request at the HTTP module of an engine."""
    http: Any = engine.modules["http"]
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.server.serve, theirs)
        client = h11.Connection(h11.CLIENT)
        await ours.send_all(client.send(h11.Request(method="GET", target=path, headers=[("Host", "x")])) or b"")
        body, status = b"", 0
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                client.receive_data(await ours.receive_some(65_536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        nursery.cancel_scope.cancel()
    return status, json.loads(body) if body else None


async def test_N16_every_node_serves_every_route(autojump_clock: MockClock) -> None:
    modules = {"http": HttpConfig(port=0)}
    async with mesh_world() as world:
        for name in "ab":
            await world.start(name, modules=modules)
        async with world.open_worker("a", "shop") as shop:

            @shop.http("GET", "/price/{item}")
            async def price(item: str) -> dict[str, Any]:
                return {"item": item, "price": 3}

            await world.settle()
            for name in "ab":
                assert await get(world[name].engine, "/price/tea") == (200, {"item": "tea", "price": 3})
        await world.settle()
        assert (await get(world["b"].engine, "/price/tea"))[0] == 404


async def test_N17_lists_show_the_workers_and_functions_of_all_nodes(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("a", "one") as one:
        async with world.open_worker("b", "two", "network") as two:

            @two.function("two::say")
            async def say() -> str:
                return ""

            await world.settle()
            listed = {row["name"]: row for row in (await one.trigger("engine::workers::list"))["workers"]}
            assert listed["two"]["node"] == "b" and "node" not in listed["one"]
            # The sessions by which the nodes pass calls on are not workers that anyone has started.
            relays = ("iii-cluster-relay", "node ")
            assert not [name for name in listed if name.startswith(relays)]
            everything = (await one.trigger("engine::workers::list", {"include_internal": True}))["workers"]
            assert [row["name"] for row in everything if row["name"].startswith(relays)] == [
                "iii-cluster-relay",
                f"node b ({world.store.nodes['b'].fence}.{world.store.nodes['a'].fence}.1)",
            ]
            nodes = await one.trigger("engine::cluster::nodes")
            assert [(row["node"], row["lease"], row["link"], row["functions"]) for row in nodes["nodes"]] == [
                ("a", "held", "", 0),
                ("b", "held", "up", 1),
            ]
        await world.settle()
        assert "two" not in {row["name"] for row in (await one.trigger("engine::workers::list"))["workers"]}


async def test_N18_the_health_of_a_node_tells_of_its_lease(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:

        async def health() -> Any:
            ours, theirs = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world["a"].engine.serve_stream, theirs)
                await ours.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                while more := await ours.receive_some(65_536):
                    answer += more
                await ours.aclose()
            head, _, body = answer.partition(b"\r\n\r\n")
            return head.split()[1], json.loads(body)

        assert await health() == (
            b"200",
            {"status": "ready", "cluster": {"node": "a", "joined": True, "nodes": 2, "problem": ""}},
        )
        world.store.is_down = True
        await trio.sleep(20)
        status, body = await health()
        assert status == b"200" and body["cluster"]["joined"] is False and "it is down" in body["cluster"]["problem"]
