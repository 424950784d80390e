"""Workers of each SDK that lost the engine, or stood still: they come back, with everything that they had."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener, Timeouts

from .conftest import KINDS, STEP_SECONDS, WITH_TRIGGERS, Mesh, open_mesh
from .processes import Peer, open_peer

pytestmark = pytest.mark.sdk

SILENT_SECONDS = 5.0
"""Short, for the test's sake; a worker that is merely busy answers pings within that also on a machine under load."""


async def test_workers_come_back_to_an_engine_that_was_restarted_with_their_functions_types_and_bindings(
    tmp_path: Path,
) -> None:
    peers: dict[str, Peer] = {}
    async with trio.open_nursery() as nursery:

        async def serve_peer(kind: str, url: str, *, task_status: trio.TaskStatus[None]) -> None:
            async with open_peer(kind, url, tmp_path, name=kind) as peers[kind]:
                task_status.started()
                await trio.sleep_forever()

        async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0),))) as first:
            [url] = await first.listen()
            async with trio.open_nursery() as starting:
                for kind in KINDS:
                    starting.start_soon(nursery.start, serve_peer, kind, url)
            async with first.open_worker("app") as app:
                for kind in WITH_TRIGGERS:
                    binding = {"name": "b", "type": "ebb", "function_id": f"{kind}::echo", "config": {"of": kind}}
                    await app.trigger(f"{kind}::bind", binding)
                    await app.trigger(f"{kind}::provide", {"type": f"tide of {kind}"})
            functions = first.statistics().functions

        port = int(url.rpartition(":")[2])
        async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=port),))) as second:
            await second.listen()
            with trio.fail_after(STEP_SECONDS):
                while second.statistics().functions < functions:  # noqa: ASYNC110  (an engine has no event for it)
                    await trio.sleep(0.01)
                async with second.open_worker("app") as app:
                    bound = provide_ebb(app)
                    for kind in KINDS:
                        assert await app.trigger(f"{kind}::echo", [kind]) == [kind]
                    for kind in WITH_TRIGGERS:
                        app.register_trigger(f"tide of {kind}", "app::nothing", config={"for": kind})
                        assert (await peers[kind].event("offered"))["config"] == {"for": kind}
                    while bound.keys() != {*WITH_TRIGGERS}:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                    for kind in WITH_TRIGGERS:
                        assert await bound[kind].fire([kind]) == [kind]
        nursery.cancel_scope.cancel()


def provide_ebb(app: iii_trio.Worker) -> dict[str, iii_trio.BoundTrigger]:
    """A trigger type; its bindings, by what their config says that they are of."""
    bound: dict[str, iii_trio.BoundTrigger] = {}

    class Ebb:
        async def register_trigger(self, binding: iii_trio.BoundTrigger) -> None:
            bound[binding.config["of"]] = binding

        async def unregister_trigger(self, binding: iii_trio.BoundTrigger) -> None:
            del bound[binding.config["of"]]

    app.register_trigger_type("ebb", Ebb)
    return bound


async def test_a_worker_that_was_stopped_is_found_silent_and_is_back_once_it_goes_on(tmp_path: Path) -> None:
    """SIGSTOP: its kernel acknowledges everything, so that only the unanswered pings tell."""
    patience = Timeouts(silent_worker_seconds=SILENT_SECONDS)
    async with open_mesh(EngineConfig(listeners=(Listener(port=0),), timeouts=patience), tmp_path) as mesh:
        await mesh.start(**{kind: kind for kind in KINDS})
        async with trio.open_nursery() as nursery:
            for kind in KINDS:
                nursery.start_soon(stop_and_go_on, mesh, kind)


async def stop_and_go_on(mesh: Mesh, kind: str) -> None:
    peer = mesh.peers[kind]
    created = await mesh.call(f"{kind}::call", {"function_id": "engine::channels::create", "payload": {}})
    refs = created["result"]
    reader = mesh.app.open_reader(refs["reader"])
    written: dict[str, Any] = {}
    async with trio.open_nursery() as nursery:

        async def write() -> None:
            with pytest.raises(iii_trio.CallError, match="invocation_stopped"):
                await mesh.call(f"{kind}::write", {"writer": refs["writer"], "total": 100_000, "hold": True})
            written["told"] = trio.current_time()

        nursery.start_soon(write)
        read = 0
        with trio.fail_after(STEP_SECONDS):
            while read < 100_000:
                read += len(await reader.receive())
        peer.process.send_signal(signal.SIGSTOP)
        stopped = trio.current_time()
        with trio.fail_after(STEP_SECONDS), pytest.raises(iii_trio.ChannelBroken) as caught:
            await reader.receive()
        assert caught.value.outcome == ("writer_lost" if kind == "ours" else "owner_lost")  # ours is known to hold it
        assert "nothing came from it for 5 s" in caught.value.reason
    assert written["told"] - stopped >= SILENT_SECONDS / 2
    with pytest.raises(iii_trio.CallError, match="function_not_found"):
        await mesh.call(f"{kind}::echo", 1)

    peer.process.send_signal(signal.SIGCONT)
    with trio.fail_after(STEP_SECONDS):
        while not await mesh.answers(f"{kind}::pid"):  # noqa: ASYNC110  (a worker has no event for it)
            await trio.sleep(0.01)
    assert await mesh.call(f"{kind}::echo", [kind]) == [kind]
