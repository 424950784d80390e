"""The checks of every clause, with the ends of the channels and their owners at different nodes (promises N10 to N14)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio.conformance import CHECKS, Verdict, run_check
from iii_trio.conformance.bench import Bench, Session
from iii_trio.conformance.peer import Peer
from iii_trio.triggers.cluster.memory_store import MemoryMesh
from iii_trio.triggers.cluster.module import Cluster
from iii_trio.triggers.cluster.records import FUNCTION, Key
from iii_trio.triggers.cluster.settings import ClusterConfig
from iii_trio.wire import Ref, attach_target

from .conftest import free_port

pytestmark = pytest.mark.slow
OF_THE_OWNER = frozenset(
    {
        "C4_5_what_a_session_owns_ends_with_it",
        "C4_5_the_ends_that_a_session_holds_end_with_it",
        "C4_7_the_owner_is_told_the_one_outcome",
        "C7_1_open_channels_are_shown",
        "C8_3_a_holder_is_told_the_outcome",
        "C8_5_each_outcome_has_its_close_code",
    }
)
"""Checks that drop or ask the owner, or list its channels. Here the owner is a worker of ours, at the channel's node."""
CREATE = Key(FUNCTION, "default", "mesh::create")


@asynccontextmanager
async def two_nodes() -> AsyncIterator[dict[str, str]]:
    """Two engines at sockets, and a function at node `a` that creates channels there. Gives their addresses."""
    mesh = MemoryMesh()
    async with AsyncExitStack() as stack:
        urls, engines = {}, {}
        for name in "ab":
            port = free_port()
            urls[name] = f"ws://127.0.0.1:{port}"
            cluster = ClusterConfig(store="valkey://model/mesh", advertise=urls[name], node=name)
            config = iii_trio.EngineConfig(modules={"queue": None, "cluster": cluster})
            engine = await stack.enter_async_context(iii_trio.open_engine(config, stores={"cluster": mesh.way()}))
            await engine.listen(iii_trio.Listener(port=port))
            engines[name] = engine
        owner = await stack.enter_async_context(engines["a"].open_worker("owner"))

        @owner.function("mesh::create")
        async def create(options: Any) -> Any:
            options.pop("_caller_worker_id", None)
            return await owner.trigger("engine::channels::create", options)

        other = engines["b"].modules["cluster"]
        assert isinstance(other, Cluster)
        with trio.fail_after(20):
            while CREATE not in other.proxies:
                await other.wait_changed()
            while not engines["a"].modules["cluster"].links["b"].up:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await trio.sleep(0.02)
        yield urls


async def broken(url: str, without: frozenset[str] = frozenset()) -> list[str]:
    """Run all checks, and return what was not kept."""
    findings = [await run_check(check, url) for check in CHECKS if check.__name__ not in without]
    return [str((each.clause, each.title, each.saw)) for each in findings if each.verdict is not Verdict.KEPT]


async def test_all_clauses_hold_for_ends_that_are_attached_at_another_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions, and so the owners, are at node `a`. Ends that name no session are attached at node `b`."""
    async with two_nodes() as urls:

        async def claim(bench: Bench, ref: Ref, headers: dict[str, str] | None = None) -> Peer:
            url = urls["a"] if headers and "Iii-Session" in headers else urls["b"]
            peer = await Peer.connect(url, attach_target(ref, url), headers)
            bench.peers.append(peer)
            return peer

        monkeypatch.setattr(Bench, "claim", claim)
        assert await broken(urls["a"]) == []


async def test_all_clauses_hold_for_holders_at_another_node_than_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sessions and ends are at node `b`. The channels are at node `a`, where a worker owns them."""
    async with two_nodes() as urls:

        async def create_channel(session: Session, **options: Any) -> tuple[Ref, Ref]:
            refs = await session.call("mesh::create", options=options)
            return Ref.from_json(refs["writer"]), Ref.from_json(refs["reader"])

        monkeypatch.setattr(Session, "create_channel", create_channel)
        assert await broken(urls["b"], OF_THE_OWNER) == []
