"""An engine at a socket, a worker of ours in this process, and workers of any kind in processes."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener

from .install import SDK_VERSIONS
from .processes import COMMANDS, MISSING, Peer, open_peer


def needs(kind: str) -> pytest.MarkDecorator:
    """Skips a test that is about workers of this kind where there are none, and says why."""
    return pytest.mark.skipif(MISSING.get(kind) is not None, reason=str(MISSING.get(kind)))


EACH_KIND = [pytest.param(kind, marks=needs(kind)) for kind in COMMANDS]
EACH_SDK = [each for each in EACH_KIND if each.values != ("ours",)]
"""For parametrizing: without Node, say, its tests are skipped and say why."""

KINDS = [kind for kind in COMMANDS if MISSING.get(kind) is None]
WITHOUT_TRIGGERS = ("next_rust",)
"""Kinds whose SDK has neither trigger types nor bindings any more."""
WITH_TRIGGERS = [kind for kind in KINDS if kind not in WITHOUT_TRIGGERS]
PYTHONS = ("python", "old_python")
EACH_PYTHON = [each for each in EACH_KIND if each.values[0] in PYTHONS]
HOW_AN_ABORT_SOUNDS = {
    "node": "WS_ERR_INVALID_OPCODE",
    "rust": "websocket error: WebSocket protocol error: Encountered invalid opcode: 3",
    "next_rust": "websocket error: WebSocket protocol error: Encountered invalid opcode: 3",
}
"""To those who can hear it (clause C6.1): the code or the message of the error at the reader."""
PAIRS = list(itertools.product(KINDS, KINDS))
"""For tests that go through all kinds: those that there are here."""

STEP_SECONDS = 20.0
"""For anything that a test waits for, where nothing else is said: generous, as machines may be busy."""


@attrs.define(eq=False)
class Mesh:
    """What a test works with. `url` is where the engine listens, `app` is the test's own worker, over that socket."""

    engine: iii_trio.Engine
    url: str
    app: iii_trio.Worker
    home: Path
    _nursery: trio.Nursery
    peers: dict[str, Peer] = attrs.field(factory=dict)

    async def start(self, telemetry: bool = False, url: str | None = None, **kinds: str) -> None:
        """Start workers, `name=kind` each, and wait until all are ready; their functions are `{name}::…`.

        `url`: where they connect, if not to the engine itself.
        """

        async def start_one(name: str, kind: str) -> None:
            self.peers[name] = await self._nursery.start(self._serve_peer, name, kind, url or self.url, telemetry)

        async with trio.open_nursery() as nursery:
            for name, kind in kinds.items():
                nursery.start_soon(start_one, name, kind)
        await self._check_versions(kinds)

    async def _check_versions(self, kinds: dict[str, str]) -> None:
        """Assert that each worker runs the SDK that the test is about, by the version that it registered with."""
        listed = (await self.call("engine::workers::list", {}))["workers"]
        registered = {row["name"]: row["version"] for row in listed}
        expected = {name: SDK_VERSIONS[kind] for name, kind in kinds.items() if kind in SDK_VERSIONS}
        assert {name: registered.get(name) for name in expected} == expected

    async def start_pairs(self, one: str, other: str) -> None:
        """Start two workers of each kind, `{one}_{kind}` and `{other}_{kind}`, for a test that goes through PAIRS."""
        await self.start(**{f"{role}_{kind}": kind for role in (one, other) for kind in KINDS})

    async def _serve_peer(
        self, name: str, kind: str, url: str, telemetry: bool, *, task_status: trio.TaskStatus[Peer]
    ) -> None:
        home = self.home / name
        home.mkdir(exist_ok=True)  # also of one that is started anew
        async with open_peer(kind, url, home, name=name, telemetry=telemetry) as peer:
            task_status.started(peer)
            await trio.sleep_forever()

    async def call(self, function_id: str, payload: Any = None, *, timeout: float = STEP_SECONDS) -> Any:
        """Call a function by the test's own worker."""
        with trio.fail_after(timeout):
            return await self.app.trigger(function_id, payload)
        raise AssertionError  # fail_after raises

    async def answers(self, function_id: str) -> bool:
        """Whether the engine knows this function."""
        try:
            await self.call(function_id)
        except iii_trio.CallError as error:
            if error.code != "function_not_found":
                raise
            return False
        return True

    async def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Wait until something that has no event of its own holds, and give it."""
        with trio.move_on_after(STEP_SECONDS):
            while not (found := holds()):  # noqa: ASYNC110  (that is what this is for)
                await trio.sleep(0.005)
            return found
        raise AssertionError(f"never came: {what}")

    async def outcome(self, channel_id: str) -> str:
        """How the engine says that a channel ended."""
        ended = await self.until(
            lambda: [ended for ended in self.engine.ended_channels() if ended.id == channel_id],
            f"the end of channel {channel_id}; open are {self.engine.channels()}",
        )
        return str(ended[0].outcome.value)


@asynccontextmanager
async def open_mesh(config: EngineConfig, home: Path, app: str = "app") -> AsyncIterator[Mesh]:
    """A mesh of an engine with this configuration; `home` is for what its workers write, `app` the test's own worker."""
    async with iii_trio.open_engine(config) as engine:
        [url] = await engine.listen()
        async with iii_trio.open_worker(url, name=app) as worker, trio.open_nursery() as nursery:
            yield Mesh(engine, url, worker, home, nursery)
            nursery.cancel_scope.cancel()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with open_mesh(EngineConfig(listeners=(Listener(port=0),)), tmp_path) as mesh:
        yield mesh
