"""`iii-trio serve` as a real process."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
import trio

import iii_trio
from tests.helpers.cli_processes import SECONDS, Site, read_line, read_rest, run, start

READY = re.compile(r"^iii-trio \S+ ready on (ws://127\.0\.0\.1:\d+) \(jobs in memory; Ctrl-C drains\)$")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_engine_says_once_when_it_is_ready_and_drains_when_it_is_told(number: signal.Signals) -> None:
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "--port", "0")
        ready = READY.match(await read_line(process.stdout))
        assert ready is not None
        async with iii_trio.open_worker(ready[1], name="caller") as caller:
            found = await caller.trigger("engine::workers::list", {})
            assert "caller" in [worker["name"] for worker in found["workers"]]
        process.send_signal(number)
        assert await read_rest(process.stdout) == ""
        with trio.fail_after(SECONDS):
            assert await process.wait() == 0


async def test_a_drain_waits_for_what_runs_and_a_second_signal_does_not() -> None:
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "serve", "--port", "0", "--grace", "3600")
        ready = READY.match(await read_line(process.stdout))
        assert ready is not None
        async with iii_trio.open_worker(ready[1], name="owner") as owner, owner.create_channel() as channel:
            await channel.writer.send(b"a channel that is under way")
            process.send_signal(signal.SIGTERM)
            while "draining" not in (line := await read_line(process.stderr)):
                assert line
            assert process.returncode is None
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(SECONDS):
                assert await process.wait() == 143


async def test_a_port_in_use_is_one_sentence(site: Site) -> None:
    port = site.address.rpartition(":")[2]
    ended = await run("--port", port)
    assert (ended.code, ended.out) == (98, "")
    assert ended.err == (
        f"iii-trio: cannot listen at 127.0.0.1:{port}: the port is in use; choose another, or stop what uses it\n"
    )


@pytest.mark.parametrize("entry", ["iii-worker-manager", "iii-http"])
async def test_an_address_in_use_has_one_code_for_every_listener_of_the_configuration(
    site: Site, tmp_path: Path, entry: str
) -> None:
    port = site.address.rpartition(":")[2]
    ports = {"iii-worker-manager": 0, "iii-http": 0} | {entry: int(port)}
    config = tmp_path / "config.yaml"
    config.write_text(
        "workers:\n"
        + "".join(
            f"  - name: {name}\n    config: {{ host: 127.0.0.1, port: {number} }}\n" for name, number in ports.items()
        )
    )
    ended = await run("--config", str(config), "--data", "memory")
    assert (ended.code, ended.out) == (98, "")
    assert ended.err == (
        f"iii-trio: cannot listen at 127.0.0.1:{port}: the port is in use; choose another, or stop what uses it\n"
    )


async def test_a_configuration_is_used_and_what_has_no_effect_is_warned_of(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "workers:\n"
        "  - name: iii-worker-manager\n    config: { host: 127.0.0.1, port: 0 }\n"
        "  - name: iii-worker-manager\n    config: { host: 127.0.0.1, port: 0 }\n"
        "  - name: iii-cron\n"
    )
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "--config", str(config))
        ready = await read_line(process.stdout)
        assert len(set(re.findall(r"ws://127\.0\.0\.1:\d+", ready))) == 2
        warning = json.loads(await read_line(process.stderr))
        assert warning["level"] == "warning"
        assert warning["message"].startswith(f"{config}:6: worker `iii-cron` is not part of this engine")
        process.terminate()
