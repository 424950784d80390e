"""The page in Debian's Chromium, as a person uses it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener
from iii_trio.triggers.observability.settings import ObservabilityConfig
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings
from tests.helpers.devtools import Tab, open_tab
from tests.sdk.install import find_chromium, why_no_chromium

pytestmark = [pytest.mark.sdk, pytest.mark.skipif(why_no_chromium() is not None, reason=str(why_no_chromium()))]
LIVE = "document.getElementById('state').textContent === 'live'"
CONTENT = "document.getElementById('content').innerText"


@asynccontextmanager
async def shop(port: int = 0) -> AsyncIterator[tuple[iii_trio.Engine, iii_trio.Worker, str]]:
    """Open an engine with something to see, that listens."""
    queues = QueueConfig(queues={"mail": QueueSettings(max_attempts=1)})
    config = EngineConfig(
        listeners=(Listener(port=port),), modules={"queue": queues, "observability": ObservabilityConfig()}
    )
    async with iii_trio.open_engine(config) as engine, engine.open_worker("shop") as worker:

        @worker.function("shop::price", description="The price of some items")
        async def price(item: str, n: int = 1) -> float:
            if not item:
                raise iii_trio.CallError("no_item", "<b>which item?</b>")
            return 1.5 * n

        @worker.function("shop::wait")
        async def wait() -> None:
            await trio.sleep_forever()

        await worker.wait_registered()
        (url,) = await engine.listen()
        yield engine, worker, url.replace("ws://", "http://")


async def open_dialog(tab: Tab, key: str) -> None:
    await tab.wait_for(f"document.querySelector('[data-key=\"{key}\"]')")
    await tab.run(f"document.querySelector('[data-key=\"{key}\"]').click()")
    await tab.wait_for("document.getElementById('dialog').open")


async def type_payload(tab: Tab, text: str) -> None:
    await tab.run("document.getElementById('payload').focus(), document.getElementById('payload').select()")
    await tab.command("Input.insertText", text=text)


async def test_it_shows_what_runs_and_calls_functions(tmp_path: Path) -> None:
    async with open_tab(str(find_chromium()), tmp_path) as tab, shop() as (_, worker, url):
        await tab.go(url)
        await tab.wait_for(LIVE)
        # A process's memory and time are for people: "rss" "46.6 MiB", and not "rss bytes" "48848896".
        shown = await tab.run("[...document.querySelectorAll('.numbers div')].map(each => each.innerText).join(';')")
        assert re.search(r"rss\n[\d.]+ MiB", shown) and re.search(r"cpu\n[\d.]+ (ms|s|min)\b", shown), shown
        await tab.press("3")
        await tab.wait_for(f"{CONTENT}.includes('The price of some items')")
        assert "engine::queue" not in await tab.run(CONTENT)
        await open_dialog(tab, "call default shop::price")
        await tab.wait_for("document.getElementById('payload').value.includes('item')")  # made from its schema
        await type_payload(tab, '{"item": "pen", "n": 4}')
        await tab.run("[...document.querySelectorAll('dialog button')].find(b => b.textContent === 'Call').click()")
        await tab.wait_for("document.querySelector('dialog pre[role=status]').textContent.startsWith('6')")
        await type_payload(tab, '{"item": ""}')
        await tab.run("[...document.querySelectorAll('dialog button')].find(b => b.textContent === 'Call').click()")
        await tab.wait_for("document.querySelector('dialog pre.bad')?.textContent === 'no_item: <b>which item?</b>'")
        await type_payload(tab, "{item}")
        await tab.run("[...document.querySelectorAll('dialog button')].find(b => b.textContent === 'Call').click()")
        await tab.wait_for(
            "document.querySelector('dialog pre.bad')?.textContent.startsWith('The payload is not JSON')"
        )
        await tab.press("Escape")
        await tab.wait_for("!document.getElementById('dialog').open")

        await tab.press("4")
        async with worker.create_channel() as channel:
            reader = worker.open_reader(channel.reader_ref)
            for _ in range(64):
                await channel.writer.send(bytes(1000))
            await reader.receive()
            await tab.wait_for(
                f"{CONTENT}.includes('shop waits for shop') || {CONTENT}.includes('61.5 KiB of 1.0 MiB')"
            )
            reader.cancel("seen")
        await tab.press("1")
        await tab.wait_for(f"{CONTENT}.includes('reader_cancelled')")
        assert not tab.errors


async def test_a_trace_is_a_waterfall_and_lines_of_the_log_lead_to_it(tmp_path: Path) -> None:
    async with open_tab(str(find_chromium()), tmp_path) as tab, shop() as (engine, worker, url):

        @worker.function("shop::order")
        async def order(item: str) -> float:
            await worker.trigger("engine::log::warn", {"message": "an order came", "data": {}})
            found: float = await worker.trigger("shop::price", {"item": item})
            return found

        await worker.wait_registered()
        async with engine.open_worker("customer") as customer:
            await customer.trigger("shop::order", {"item": "pen"})
        await tab.go(url)
        await tab.wait_for(LIVE)
        await tab.press("6")
        await tab.wait_for(f"{CONTENT}.includes('call shop::order') && {CONTENT}.includes('customer')")
        await tab.press("7")
        await tab.wait_for(f"{CONTENT}.includes('an order came')")
        await tab.run("document.querySelector('[data-key^=\"of \"]').click()")
        await tab.wait_for("document.querySelectorAll('.bars .bar').length === 2")
        await tab.run("document.querySelectorAll('.bars button')[1].click()")
        await tab.wait_for("document.querySelector('dialog pre').textContent.includes('shop::price')")
        assert not tab.errors


async def test_dead_letters_are_redriven_from_the_page(tmp_path: Path) -> None:
    async with open_tab(str(find_chromium()), tmp_path) as tab, shop() as (_, worker, url):
        await worker.trigger("shop::price", {"item": ""}, action=iii_trio.enqueue("mail"))
        await tab.go(url)
        await tab.wait_for(LIVE)
        await tab.press("5")
        await open_dialog(tab, "dead mail")
        await tab.wait_for("document.getElementById('dialog').innerText.includes('no_item')")
        await tab.run(
            "[...document.querySelectorAll('dialog button')].find(b => b.textContent === 'Redrive all…').click()"
        )
        await tab.run(
            "[...document.querySelectorAll('dialog button')].find(b => b.textContent.startsWith('Redrive')).click()"
        )
        await tab.wait_for("document.querySelector('dialog pre[role=status]').textContent.includes('1')")
        await tab.press("Escape")
        await open_dialog(tab, "pause mail")
        await tab.run(
            "[...document.querySelectorAll('dialog button')].find(b => b.textContent.startsWith('Pause')).click()"
        )
        await tab.wait_for(
            "[...document.querySelectorAll('[data-key=\"pause mail\"]')].some(b => b.textContent === 'Resume…')"
        )
        assert not tab.errors


async def test_it_is_used_by_keyboard(tmp_path: Path) -> None:
    async with open_tab(str(find_chromium()), tmp_path) as tab, shop() as (_, __, url):
        await tab.go(url)
        await tab.wait_for(LIVE)
        await tab.press("2")
        for _ in range(2):
            await tab.press("ArrowRight")
        assert await tab.run("document.activeElement.id") == "tab-channels"
        await tab.press("3")
        await tab.press("/")
        assert await tab.run("document.activeElement.id") == "filter"
        for key in "price":
            await tab.press(key)
        await tab.wait_for(f"!{CONTENT}.includes('shop::wait') && {CONTENT}.includes('shop::price')")
        await tab.press("Tab")  # the checkbox
        await tab.press("Tab")
        assert await tab.run("document.activeElement.dataset.key") == "call default shop::price"
        await trio.sleep(2.5)  # the table is drawn anew each second, and must not take the focus away
        assert await tab.run("document.activeElement.dataset.key") == "call default shop::price"
        await tab.press("Enter")
        await tab.wait_for("document.activeElement.id === 'payload'")
        await tab.press("Escape")
        assert not tab.errors


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_400_pixels_and_the_dark(tmp_path: Path, scheme: str) -> None:
    async with open_tab(str(find_chromium()), tmp_path) as tab, shop() as (_, worker, url):
        await tab.resize(400, 800)
        await tab.prefer(scheme)
        async with worker.create_channel():
            await tab.go(url)
            await tab.wait_for(LIVE)
            for key in "12345678":
                await tab.press(key)
                await tab.wait_for("document.getElementById('content').children.length")
                assert await tab.run("document.documentElement.scrollWidth") <= 400, key
        ground = await tab.run("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        assert not tab.errors


async def test_it_is_right_again_after_the_engine_was_restarted(tmp_path: Path) -> None:
    async with open_tab(str(find_chromium()), tmp_path) as tab:
        async with shop() as (_, worker, url):

            @worker.function("shop::old")
            async def old() -> None: ...

            await tab.go(url)
            await tab.wait_for(LIVE)
            await tab.press("3")
            await tab.wait_for(f"{CONTENT}.includes('shop::old')")
        await tab.wait_for("document.getElementById('state').className === 'lost'")
        async with shop(int(url.rsplit(":", 1)[1].rstrip("/"))):
            await tab.wait_for(LIVE)
            await tab.wait_for(f"{CONTENT}.includes('shop::price') && !{CONTENT}.includes('shop::old')")
