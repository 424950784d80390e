"""Functions and names that change hands between real workers of each SDK (docs/names.md)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener, Timeouts

from .conftest import KINDS, PAIRS, STEP_SECONDS, Mesh, open_mesh
from .processes import Peer, open_peer

pytestmark = pytest.mark.sdk

CHALLENGE_SECONDS = 2.0
"""Short, for the test's sake. A holder that is merely busy answers its ping within that also on a machine under load."""


def config() -> EngineConfig:
    timeouts = Timeouts(name_challenge_seconds=CHALLENGE_SECONDS)
    return EngineConfig(listeners=(Listener(port=0),), timeouts=timeouts)


async def standbys(mesh: Mesh) -> dict[str, tuple[str, list[str]]]:
    """Who has each function `svc::…`, and who stands by for it."""
    rows = (await mesh.call("engine::functions::list", {"prefix": "svc::"}))["functions"]
    return {row["function_id"]: (row["worker_name"], row.get("standby_workers", [])) for row in rows}


async def test_R2_a_rolling_deployment_keeps_its_functions(tmp_path: Path) -> None:
    """For each pair of kinds: the old worker is killed, and the new one has the function in the same step."""
    async with open_mesh(config(), tmp_path) as mesh:
        await mesh.start_pairs("old", "new")
        functions = {f"svc::{old}::{new}": (f"old_{old}", f"new_{new}") for old, new in PAIRS}
        for function_id, (old, _) in functions.items():
            await mesh.call(f"{old}::register", {"function_id": function_id})
        while set(await standbys(mesh)) != set(functions):  # noqa: ASYNC110  (an engine has no event for it)
            await trio.sleep(0.05)
        for function_id, (_, new) in functions.items():
            await mesh.call(f"{new}::register", {"function_id": function_id})
        with trio.fail_after(STEP_SECONDS):
            standing_by = {id_: (old, [new]) for id_, (old, new) in functions.items()}
            while await standbys(mesh) != standing_by:  # noqa: ASYNC110
                await trio.sleep(0.05)
        for function_id in functions:
            assert await mesh.call(function_id, ["x"]) == ["x"]

        missing: list[str] = []
        async with trio.open_nursery() as nursery:

            async def keep_calling(function_id: str) -> None:
                while True:
                    try:
                        await mesh.call(function_id, ["x"])
                    except iii_trio.CallError as error:
                        if error.code != "invocation_stopped":  # the old worker has taken the call with it
                            missing.append(f"{function_id}: {error}")
                    await trio.sleep(0.02)

            for function_id in functions:
                nursery.start_soon(keep_calling, function_id)
            await trio.sleep(0.2)
            for kind in KINDS:
                await mesh.peers[f"old_{kind}"].kill()
            with trio.fail_after(STEP_SECONDS):
                handed_over = {id_: (new, []) for id_, (_, new) in functions.items()}
                while await standbys(mesh) != handed_over:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        assert not missing
        for function_id in functions:
            assert await mesh.call(function_id, ["y"]) == ["y"]


async def test_R7_the_name_of_a_worker_that_stands_still_is_given_to_its_successor(tmp_path: Path) -> None:
    """SIGSTOP: the connection looks alive, as behind a proxy. Only the ping that is not answered tells."""
    async with open_mesh(config(), tmp_path) as mesh:
        await mesh.start(**{kind: kind for kind in KINDS})
        async with trio.open_nursery() as nursery:
            for kind in KINDS:
                nursery.start_soon(replace, mesh, kind)


async def answered(mesh: Mesh, function_id: str) -> Any:
    """Call a function until a worker answers. A call that the holder has is stopped when the holder is disconnected."""
    with trio.fail_after(STEP_SECONDS):
        while True:
            try:
                return await mesh.call(function_id)
            except iii_trio.CallError as error:
                assert error.code in ("invocation_stopped", "function_not_found"), error
            await trio.sleep(0.05)


async def replace(mesh: Mesh, kind: str) -> None:
    holder = mesh.peers[kind]
    before = await mesh.call(f"{kind}::pid")
    holder.process.send_signal(signal.SIGSTOP)
    home = mesh.home / f"{kind} again"
    home.mkdir()
    async with open_peer(kind, mesh.url, home, name=kind, wait=False) as successor:
        # Its own first call may have gone to the holder, so that it is not asked whether it is ready.
        after = await answered(mesh, f"{kind}::pid")
        assert after == successor.process.pid != before
        # The old one goes on, finds its connection closed, and is refused: the name is another's.
        holder.process.send_signal(signal.SIGCONT)
        for _ in range(20):
            assert await mesh.call(f"{kind}::pid") == after
            await trio.sleep(0.1)


async def test_R6_a_worker_that_answers_keeps_its_name(tmp_path: Path) -> None:
    async with open_mesh(config(), tmp_path) as mesh:
        await mesh.start(**{kind: kind for kind in KINDS})
        async with trio.open_nursery() as nursery:
            for kind in KINDS:
                nursery.start_soon(keep, mesh, kind)


async def keep(mesh: Mesh, kind: str) -> None:
    before = await mesh.call(f"{kind}::pid")
    home = mesh.home / f"{kind} again"
    home.mkdir()
    async with open_peer(kind, mesh.url, home, name=kind, wait=False) as second, trio.open_nursery() as nursery:

        async def listen(peer: Peer) -> None:
            try:
                await peer.event("ready")  # other SDKs say so before they are registered, and go on trying
            except AssertionError as error:  # our worker ends when it is refused
                assert kind == "ours" and f"has the name '{kind}'" in str(error)

        nursery.start_soon(listen, second)
        await trio.sleep(CHALLENGE_SECONDS + 2)
        assert await mesh.call(f"{kind}::pid") == before
        nursery.cancel_scope.cancel()
