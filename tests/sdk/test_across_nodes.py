"""Workers on iii's SDKs at different nodes of a mesh, which know nothing of it."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener
from iii_trio.triggers.cluster.settings import ClusterConfig
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings

from ..cluster.conftest import free_port, valkey
from .conftest import KINDS, STEP_SECONDS, Mesh, open_mesh
from .content import sha256_of_first
from .processes import open_peer

pytestmark = pytest.mark.sdk
SDKS = [kind for kind in ("python", "node") if kind in KINDS]
_ = valkey


@pytest.fixture
async def nodes(valkey: str, tmp_path: Path) -> AsyncIterator[dict[str, Mesh]]:
    """Two nodes, each with an app of its own."""
    store = f"{valkey}/{uuid.uuid4()}"
    async with AsyncExitStack() as stack:
        found = {}
        for name in "ab":
            port = free_port()
            cluster = ClusterConfig(store=store, advertise=f"ws://127.0.0.1:{port}", node=name)
            modules = {"cluster": cluster, "queue": QueueConfig(queues={"mail": QueueSettings()}, in_mesh=True)}
            config = EngineConfig(listeners=(Listener(port=port),), modules=modules)
            home = tmp_path / name
            home.mkdir()
            found[name] = await stack.enter_async_context(open_mesh(config, home, f"app {name}"))
        yield found


async def known(mesh: Mesh, function_id: str) -> None:
    """Wait until a function of any node can be called here."""
    with trio.fail_after(20):
        while True:
            listed = await mesh.call("engine::functions::list", {"prefix": function_id})
            if listed["functions"]:
                return
            await trio.sleep(0.02)


async def start(nodes: dict[str, Mesh]) -> None:
    for name, mesh in nodes.items():
        await mesh.start(**{f"{name}_{kind}": kind for kind in SDKS})
    for mesh in nodes.values():
        for name, kind in itertools.product("ab", SDKS):
            await known(mesh, f"{name}_{kind}::read")


async def test_calls_go_between_sdks_of_different_nodes(nodes: dict[str, Mesh]) -> None:
    await start(nodes)
    for caller, callee in itertools.product(SDKS, SDKS):
        request = {"function_id": f"b_{callee}::echo", "payload": {"grüße": [1, None, {"x": "🙂"}]}}
        answer = await nodes["a"].call(f"a_{caller}::call", request)
        result = dict(answer["result"])
        result.pop("_caller_worker_id", None)
        assert result == request["payload"], (caller, callee)
        failing = {"function_id": f"b_{callee}::fail", "payload": {"message": "no such tide"}}
        error = (await nodes["a"].call(f"a_{caller}::call", failing))["error"]
        assert error["code"] == "invocation_failed" and "no such tide" in error["message"], (caller, callee)


async def test_N21_jobs_of_a_shared_queue_go_between_sdks_of_different_nodes(nodes: dict[str, Mesh]) -> None:
    await start(nodes)
    for giver, taker in itertools.product(SDKS, SDKS):
        # The owner is one of the two nodes, so that each way passes it once from afar.
        for here, there in (("a", "b"), ("b", "a")):
            case = {"to": f"{here}_{giver} {there}_{taker}"}
            request = {"function_id": f"{there}_{taker}::note_metadata", "payload": case, "queue": "mail"}
            answer = await nodes[here].call(f"{here}_{giver}::call", request)
            assert "error" not in answer or answer["error"] is None, answer
            with trio.fail_after(STEP_SECONDS):
                heard = await nodes[there].peers[f"{there}_{taker}"].event("noted")
            assert heard["data"] == case and heard["metadata"]["job"]["queue"] == "mail", case


async def test_N30_a_second_worker_of_a_name_does_not_stay_at_another_node(nodes: dict[str, Mesh]) -> None:
    """SDKs dial again when they were refused, and are refused again."""
    for kind in SDKS:
        await nodes["a"].start(**{f"twin_{kind}": kind})
        before = await nodes["a"].call(f"twin_{kind}::pid")
        home = nodes["b"].home / f"twin {kind}"
        home.mkdir()
        async with open_peer(kind, nodes["b"].url, home, name=f"twin_{kind}", wait=False):
            await trio.sleep(6)
            assert await nodes["a"].call(f"twin_{kind}::pid") == before
            assert await nodes["b"].call(f"twin_{kind}::pid") == before


async def stream(mesh: Mesh, writer: str, reader: str, total: int) -> tuple[Any, Any, str]:
    """Let one worker write and another read over a channel of this node's app."""
    answers: dict[str, Any] = {}
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def ask(side: str, function_id: str, payload: dict[str, Any]) -> None:
            answers[side] = await mesh.call(function_id, payload)

        nursery.start_soon(ask, "wrote", f"{writer}::write", {"total": total, "writer": channel.writer_ref})
        nursery.start_soon(ask, "read", f"{reader}::read", {"reader": channel.reader_ref})
    return answers["wrote"], answers["read"], await mesh.outcome(channel.id)


async def test_streams_arrive_whole_in_all_mixtures_of_nodes_and_sdks(nodes: dict[str, Mesh]) -> None:
    await start(nodes)
    total = 2_000_003
    for writer_at, reader_at, writer, reader in itertools.product("ab", "ab", SDKS, SDKS):
        case = (writer_at, reader_at, writer, reader)
        wrote, read, outcome = await stream(nodes["a"], f"{writer_at}_{writer}", f"{reader_at}_{reader}", total)
        assert (wrote["bytes"], read["bytes"]) == (total, total), case
        assert wrote["sha256"] == read["sha256"] == sha256_of_first(total), case
        assert (wrote.get("error"), read["error"], outcome) == (None, None, "completed"), case


@pytest.mark.parametrize("writer", SDKS)
@pytest.mark.parametrize("reader_at", ["a", "b"])
async def test_a_writer_that_is_killed_at_another_node_is_never_a_clean_end(
    nodes: dict[str, Mesh], writer: str, reader_at: str
) -> None:
    await start(nodes)
    mesh, reader = nodes["a"], "python" if writer == "node" else "node"
    failures: list[iii_trio.CallError] = []
    async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

        async def write() -> None:
            try:
                await mesh.call(f"b_{writer}::write", {"total": 200_000, "hold": True, "writer": channel.writer_ref})
            except iii_trio.CallError as error:
                failures.append(error)

        read: dict[str, Any] = {}

        async def take() -> None:
            read.update(await mesh.call(f"{reader_at}_{reader}::read", {"reader": channel.reader_ref}))

        nursery.start_soon(write)
        nursery.start_soon(take)
        await nodes["b"].peers[f"b_{writer}"].event("wrote", at_least=200_000)
        await nodes["b"].peers[f"b_{writer}"].kill()
    assert [error.code for error in failures] == ["invocation_stopped"]
    assert await mesh.outcome(channel.id) == "writer_lost"
    assert read["bytes"] <= 200_000
    assert read["error"] is not None or reader == "python"  # which cannot hear of an abort (clause C6.1)
