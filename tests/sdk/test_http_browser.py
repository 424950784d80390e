"""A page in Chromium as a client of HTTP routes that a worker of the PyPI SDK serves."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from iii_trio.http import HttpResponse, HttpResult

from .conftest import needs
from .install import find_chromium, why_no_chromium
from .test_browser import START_SECONDS
from .test_http import BLOCK, Site, open_site

pytestmark = [
    pytest.mark.sdk,
    pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium())),
    needs("python"),
]
PAGE = Path(__file__).with_name("http_page.html").read_text()


def offer_page(site: Site, said: trio.MemorySendChannel[dict[str, Any]], begun: trio.Event) -> None:
    """Serve the page, take its reports, and serve a response that breaks off."""

    @site.app.http("GET", "/page")
    async def page() -> HttpResult:
        return HttpResult(headers={"content-type": "text/html; charset=utf-8"}, body=PAGE)

    @site.app.http("POST", "/report")
    async def report(body: dict[str, Any]) -> None:
        said.send_nowait(body)

    @site.app.http("GET", "/cut")
    async def cut(response: HttpResponse) -> None:
        await response.send(bytes(100_000))
        await begun.wait()  # else nothing of the response has left, and it can still become an error
        raise RuntimeError("the disk broke")


async def test_a_page_downloads_listens_uploads_aborts_and_sees_a_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = trio.Event()
    said, reports = trio.open_memory_channel[dict[str, Any]](1000)

    async def event(name: str) -> dict[str, Any]:
        with trio.fail_after(START_SECONDS):
            found = await reports.receive()
        assert found["event"] == name, found
        return found

    async with open_site("python", tmp_path, monkeypatch) as site:
        offer_page(site, said, begun)
        await site.app.wait_registered()
        url = f"{site.base.replace('127.0.0.1', 'localhost')}/page?site=/{site.peer.name}"
        with (tmp_path / "chromium.log").open("wb") as errors:
            chromium = await trio.lowlevel.open_process(
                [
                    str(find_chromium()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                    "--no-first-run", "--disable-extensions", "--disable-background-networking",
                    f"--user-data-dir={tmp_path / 'profile'}", url,
                ],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
            )  # fmt: skip
        try:
            total = 8_000_000
            downloaded = await event("downloaded")
            whole = (BLOCK * (total // len(BLOCK) + 1))[:total]
            assert downloaded["sha256"] == hashlib.sha256(whole).hexdigest() and downloaded["size"] == total
            assert (downloaded["status"], downloaded["type"]) == (203, "application/x-tides")
            assert downloaded["pieces"] > 1  # it came as a stream
            for number in range(3):
                # The handler sends the next event only after this step, so none waits for another.
                assert (await event("heard"))["seen"][-1] == [str(number), f"tide {number}"]
                await site.app.trigger(f"{site.peer.name}::step", {})
            uploaded = await event("uploaded")
            sent = hashlib.sha256(bytes([7]) * 20_000_000).hexdigest()
            assert uploaded["status"] == 200 and uploaded["answer"] == {"bytes": 20_000_000, "sha256": sent}
            assert uploaded["progress"][-1] == [20_000_000, 20_000_000]
            await event("aborted")
            with trio.fail_after(START_SECONDS):
                await site.peer.event("broke")
            await event("begun")
            begun.set()
            assert (await event("cut"))["error"] == "TypeError"
            await event("done")
            await site.nothing_is_left()
        finally:
            with trio.CancelScope(shield=True):
                os.killpg(chromium.pid, signal.SIGKILL)
                await chromium.wait()
