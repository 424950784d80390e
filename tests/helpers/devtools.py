"""A Chromium without a window, driven by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

_START_SECONDS = 60.0
_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")


@final
class Tab:
    """One page of the browser."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._ids = count(1)
        self._session: str | None = None
        self.errors: list[str] = []
        """Exceptions of the page, and messages that it logged as errors."""

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result. Raises AssertionError with the browser's reason if it refuses."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_message(json.dumps(message))
        while True:
            answer = json.loads(await self._socket.get_message())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"])[:500])
            elif answer.get("method") == "Runtime.consoleAPICalled" and answer["params"]["type"] == "error":
                self.errors.append(json.dumps(answer["params"]["args"])[:500])
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    async def attach(self) -> None:
        """Open an empty page, and speak to it from now on."""
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            await self.command(f"{domain}.enable")

    async def go(self, url: str) -> None:
        """Load an address."""
        await self.command("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page, wait for its promise, and return the value."""
        found = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def wait_for(self, script: str, seconds: float = 20.0) -> None:
        """Wait until JavaScript is true in the page. A browser has no event for that."""
        value = None
        with trio.move_on_after(seconds):
            while True:
                value = await self.run(f"(() => {{ try {{ return !!({script}) }} catch {{ return false }} }})()")
                if value:
                    return
                await trio.sleep(0.05)
        raise AssertionError(f"not true in {seconds:g} s: {script}; the page: {await self.text()}")

    async def text(self) -> str:
        """Return the visible text of the page."""
        return str(await self.run("document.body.innerText"))

    async def press(self, key: str) -> None:
        """Press a key, such as `/`, `Tab` or `ArrowRight`."""
        text = key if len(key) == 1 else "\r" if key == "Enter" else ""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}.get(key, ord(key[0]))
        await self.command(
            "Input.dispatchKeyEvent", type="keyDown", key=key, text=text, windowsVirtualKeyCode=code, code=key
        )
        await self.command("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code, code=key)

    async def resize(self, width: int, height: int) -> None:
        """Give the page a size in CSS pixels."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        await self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def picture(self, path: Path) -> None:
        """Save a picture of the page as PNG."""
        found = await self.command("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(base64.b64decode(found["data"]))


@asynccontextmanager
async def open_tab(chromium: str, home: Path) -> AsyncIterator[Tab]:
    """Run a Chromium with an empty page, for the length of the block. Its files are below `home`."""
    process = await trio.lowlevel.open_process(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", f"--user-data-dir={home / 'profile'}",
            "--host-resolver-rules=MAP *.test 127.0.0.1", "--remote-debugging-port=0", "about:blank",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    log = bytearray()
    try:
        assert process.stderr is not None
        with trio.fail_after(_START_SECONDS):
            while (listening := _LISTENING.search(log)) is None:
                data = await process.stderr.receive_some()
                assert data, f"the browser ended: {log.decode(errors='replace')}"
                log += data
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process.stderr)
            async with open_websocket_url(listening[1].decode(), max_message_size=64 * 1024 * 1024) as socket:
                tab = Tab(socket)
                await tab.attach()
                yield tab
            nursery.cancel_scope.cancel()
    except ConnectionClosed as error:
        raise AssertionError(f"the browser left: {error}") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()


async def _drain(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass
