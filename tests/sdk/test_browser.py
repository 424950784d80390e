"""A web page in Chromium: one of this machine is a worker like any other, one of another origin does not come in.

`iii-browser-sdk` is not to be had from the npm registry here, so the page speaks the protocol with the browser's own
WebSocket. The browser itself names the origin, which is what is tested.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest
import trio

from .conftest import STEP_SECONDS, Mesh
from .install import find_chromium, why_no_chromium

pytestmark = [pytest.mark.sdk, pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium()))]
PAGE = Path(__file__).with_name("page.html").read_bytes()
FRAME = """<iframe sandbox="allow-scripts"></iframe>
<script>document.querySelector('iframe').src = '/' + location.search</script>"""
START_SECONDS = 60.0
"""For a browser on a busy machine."""


@attrs.define(eq=False)
class Browser:
    """A Chromium with one page, and the page's events."""

    process: trio.Process
    events: trio.MemoryReceiveChannel[dict[str, Any]]
    log: Path

    async def event(self, name: str) -> dict[str, Any]:
        """Return the next event of this name."""
        with trio.fail_after(START_SECONDS):
            async for event in self.events:
                if event["event"] == name:
                    return event
        raise AssertionError(f"no event {name}")

    async def kill(self) -> None:
        """Kill all processes of the browser with SIGKILL."""
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def open_page(host: str, engine: str, home: Path, *, sandboxed: bool = False) -> AsyncIterator[Browser]:
    """Open the page in a browser, served at a name of this machine, with its engine at this URL.

    `sandboxed` puts it into a frame without an origin of its own.
    """
    said, events = trio.open_memory_channel[dict[str, Any]](100)
    token = trio.lowlevel.current_trio_token()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(FRAME.encode() if self.path.startswith("/frame") else PAGE)

        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()
            trio.from_thread.run_sync(said.send_nowait, event, trio_token=token)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        page = f"http://{host}:{server.server_port}/"
        url = f"{page}{'frame' * sandboxed}?engine={quote(engine, '')}&report={quote(page, '')}"
        log = home / "chromium.log"
        with log.open("wb") as errors:
            process = await trio.lowlevel.open_process(
                [
                    str(find_chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--no-first-run", "--disable-extensions", "--disable-background-networking",
                    f"--user-data-dir={home / 'profile'}", "--host-resolver-rules=MAP *.test 127.0.0.1",
                    url,
                ],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
            )  # fmt: skip
        browser = Browser(process, events, log)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, server.serve_forever)
            try:
                yield browser
            finally:
                with trio.CancelScope(shield=True):
                    if process.returncode is None:
                        await browser.kill()
                    await trio.to_thread.run_sync(server.shutdown)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_page_of_this_machine_is_a_worker(mesh: Mesh, tmp_path: Path, host: str) -> None:
    async with open_page(host, mesh.url, tmp_path) as browser:
        await browser.event("connected")
        assert (await mesh.call("page::echo", {"n": [1, "é"]}))["n"] == [1, "é"]
        with pytest.raises(Exception, match="invocation_failed: the ink is dry"):
            await mesh.call("page::fail", {"message": "the ink is dry"})

        @mesh.app.function("app::double")
        async def double(n: int) -> int:
            return 2 * n

        await mesh.app.wait_registered()
        asked = {"function_id": "app::double", "payload": {"n": 21}}
        assert (await mesh.call("page::call", asked))["result"] == 42
        asked = {"function_id": "app::nothing", "payload": {}}
        assert (await mesh.call("page::call", asked))["error"]["code"] == "function_not_found"


async def test_a_page_writes_and_reads_whole_streams(mesh: Mesh, tmp_path: Path) -> None:
    pieces, size = 40, 50_000
    whole = b"".join(bytes([n % 251]) * size for n in range(pieces))
    async with open_page("localhost", mesh.url, tmp_path) as browser:
        await browser.event("connected")
        async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:
            asked = {"writer": channel.writer_ref, "pieces": pieces, "size": size}
            nursery.start_soon(mesh.call, "page::write", asked)
            assert await channel.reader.read_all() == whole
        async with mesh.app.create_channel() as channel, trio.open_nursery() as nursery:

            async def write() -> None:
                async with channel.writer:
                    await channel.writer.send(whole)

            nursery.start_soon(write)
            read = await mesh.call("page::read", {"reader": channel.reader_ref})
        assert read == {"code": 1000, "bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}


async def test_a_killed_browser_is_a_lost_worker(mesh: Mesh, tmp_path: Path) -> None:
    async with open_page("localhost", mesh.url, tmp_path) as browser:
        await browser.event("connected")
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Exception, match="invocation_stopped"):
                    await mesh.call("page::hang", {})

            nursery.start_soon(ask)
            await browser.event("hanging")
            await browser.kill()
        with trio.fail_after(STEP_SECONDS):
            while await mesh.answers("page::echo"):
                pass


@pytest.mark.parametrize(
    ("name", "sandboxed", "origin"),
    [
        ("127.0.0.1", False, "http://evil.test:"),
        ("evil.test", False, "http://evil.test:"),  # DNS rebinding: Origin and Host have the same name
        ("127.0.0.1", True, "null"),
    ],
    ids=["another origin", "rebinding", "null"],
)
async def test_a_page_of_another_origin_does_not_come_in(
    mesh: Mesh, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, sandboxed: bool, origin: str
) -> None:
    caplog.set_level(logging.INFO, "iii_trio")
    sessions = mesh.engine.statistics().sessions
    engine = mesh.url.replace("127.0.0.1", name)
    async with open_page("evil.test", engine, tmp_path, sandboxed=sandboxed) as browser:
        assert (await browser.event("closed"))["code"] == 1006
    assert mesh.engine.statistics().sessions == sessions
    # The engine's own log shows that the refusal was the engine's, not the browser's.
    assert any(f"web pages of {origin}" in record.getMessage() for record in caplog.records), caplog.messages
