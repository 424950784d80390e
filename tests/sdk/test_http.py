"""Workers of the PyPI and npm SDKs as HTTP handlers, with curl as the client."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener
from iii_trio.triggers.external import ExternalConfig
from iii_trio.triggers.http import HttpConfig

from .conftest import STEP_SECONDS, needs
from .processes import HERE, Peer, open_peer

PROGRAMS = {"python": HERE / "http_python_worker.py", "node": HERE / "http_node_worker.mjs"}
BLOCK = bytes(i * i % 251 for i in range(65_521))
pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
    pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs(kind)) for kind in PROGRAMS]),
]


@attrs.define
class Site:
    """An engine that serves HTTP, one worker of an SDK, and a worker of ours."""

    engine: iii_trio.Engine
    base: str
    peer: Peer
    app: iii_trio.Worker

    async def curl(self, path: str, *options: str) -> tuple[int, bytes]:
        """Fetch a path; return curl's exit code and its output."""
        command = ["curl", "-sS", "--max-time", str(STEP_SECONDS), *options, f"{self.base}/{self.peer.name}/{path}"]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        return done.returncode, done.stdout

    async def json(self, path: str, *options: str) -> tuple[int, Any]:
        """Fetch JSON; return the status and the value."""
        code, out = await self.curl(path, "-w", "\n%{http_code}", *options)
        body, _, status = out.rpartition(b"\n")
        assert code == 0, out
        return int(status), json.loads(body)

    async def nothing_is_left(self) -> None:
        """Wait until no channel is open."""
        with trio.fail_after(STEP_SECONDS):
            while self.engine.statistics().channels:  # noqa: ASYNC110 - nothing tells when the last one ends
                await trio.sleep(0.01)


@asynccontextmanager
async def open_site(kind: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Open it, and wait until all routes of the worker are served."""
    monkeypatch.setenv("SDK_TESTS_TOKEN", "sesame")
    outside = ExternalConfig(block_private_ips=False, require_https=False)
    config = EngineConfig(listeners=(Listener(port=0),), modules={"http": HttpConfig(port=0), "external": outside})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
        [url] = await engine.listen()
        http = engine.modules["http"]
        base = http.urls[0].rstrip("/")  # type: ignore[attr-defined]

        @app.http("POST", "/outside")
        async def outside_of_it(body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
            return {"n": body["n"], "site": headers["x-site"], "token": headers["authorization"]}

        name = f"http_{kind}"
        more = {"OUTSIDE": f"{base}/outside"}
        async with open_peer(kind, url, home, name=name, program=PROGRAMS[kind], more=more) as peer:
            with trio.fail_after(STEP_SECONDS):
                while len(http.server.router) < 8:  # type: ignore[attr-defined]  # noqa: ASYNC110
                    await trio.sleep(0.01)
            yield Site(engine, base, peer, app)


async def test_downloads_and_uploads_are_whole(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 8_000_000
    whole = (BLOCK * (total // len(BLOCK) + 1))[:total]
    async with open_site(kind, tmp_path, monkeypatch) as site:
        code, out = await site.curl(f"download?total={total}", "-w", "%{http_code} %{content_type}")
        assert code == 0 and out[total:] == b"203 application/x-tides" and out[:total] == whole
        file = tmp_path / "upload.bin"
        file.write_bytes(whole)
        sent = {"bytes": total, "sha256": hashlib.sha256(whole).hexdigest()}
        binary = ("--data-binary", f"@{file}", "-H", "content-type: application/octet-stream")
        assert await site.json("upload", *binary) == (200, sent)
        assert await site.json("upload", *binary, "-H", "transfer-encoding: chunked") == (200, sent)
        assert await site.json("upload", *binary, "-H", "expect: 100-continue") == (200, sent)
        await site.nothing_is_left()


async def test_events_come_one_by_one(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_site(kind, tmp_path, monkeypatch) as site:
        command = ["curl", "-sN", "--max-time", "30", f"{site.base}/{site.peer.name}/events"]
        curl = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert curl.stdout is not None
        with trio.fail_after(STEP_SECONDS):
            for number in range(3):
                got = b""
                while not got.endswith(b"\n\n"):
                    got += await curl.stdout.receive_some(1000)
                # The handler waits, so nothing behind this event can have pushed it out.
                assert got == f"id: {number}\ndata: tide {number}\n\n".encode()
                await site.peer.event("sent", number)
                await site.app.trigger(f"{site.peer.name}::step", {})
            assert await curl.stdout.receive_some(1000) == b""
            assert await curl.wait() == 0
        await site.nothing_is_left()


async def test_parameters_results_and_errors(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_site(kind, tmp_path, monkeypatch) as site:
        post = ("--data-binary", '{"a":[1,"é"]}', "-H", "content-type: application/json")
        status, value = await site.json("items/caf%C3%A9?tag=a&tag=b&n=1", *post)
        query = {"tag": ["a", "b"], "n": "1"}
        assert (status, value) == (201, {"id": "café", "query": query, "body": {"a": [1, "é"]}, "method": "POST"})
        status, value = await site.json("fail")
        assert status == 500 and "the ink is dry" in value["error"]["message"] and value["error"]["error_id"]
        status, value = await site.json("nowhere")
        assert (status, value["error"]["code"]) == (404, "NOT_FOUND")
        status, value = await site.json("upload")
        assert (status, value["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
        await site.nothing_is_left()


async def test_middleware_and_conditions(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_site(kind, tmp_path, monkeypatch) as site:
        assert (await site.json("guarded/7"))[0] == 201
        assert await site.json("guarded/7", "-H", "x-block: yes") == (403, {"error": "blocked"})
        assert (await site.json("conditional/7"))[0] == 201
        status, value = await site.json("conditional/7?no=1")
        assert (status, value["error"]["code"], value["error"].get("skipped", value.get("skipped"))) == (
            422,
            "CONDITION_NOT_MET",
            True,
        )


async def test_a_client_killed_in_mid_download_ends_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(kind, tmp_path, monkeypatch) as site:
        command = ["curl", "-sN", f"{site.base}/{site.peer.name}/download?total=1000000000"]
        curl = await trio.lowlevel.open_process(command, stdout=subprocess.DEVNULL)
        await site.peer.event("wrote", 2_000_000)
        curl.kill()
        await curl.wait()
        await site.nothing_is_left()
        with trio.fail_after(STEP_SECONDS):
            await site.peer.event("broke")
        assert (await site.json("items/1", "--data-binary", "x"))[0] == 201


async def test_a_worker_killed_in_mid_download_never_looks_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(kind, tmp_path, monkeypatch) as site:
        async with trio.open_nursery() as nursery:
            ended: list[int] = []

            async def fetch() -> None:
                ended.append((await site.curl("download?total=1000000000", "-o", "/dev/null"))[0])

            nursery.start_soon(fetch)
            await site.peer.event("wrote", 2_000_000)
            await site.peer.kill()
        assert ended[0] not in (0, 28)  # 28 is curl's own time limit
        await site.nothing_is_left()


async def test_an_external_function_of_an_sdk_is_called(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_site(kind, tmp_path, monkeypatch) as site:
        with trio.fail_after(STEP_SECONDS):
            value = await site.app.trigger(f"{site.peer.name}::outside", {"n": 7})
        assert value == {"n": 7, "site": "brest", "token": "Bearer sesame"}
