"""What an engine loads before it is ready. Each import is time that its users wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import sys
import trio
import iii_trio
from iii_trio.cli import app, serve

async def main():
    settings = serve.Loader(None, "127.0.0.1", 0, "memory")()
    async with iii_trio.open_engine(settings) as engine:
        await engine.listen()

app.app.parse_args(["serve", "--port", "0"], exit_on_error=False, print_error=False)
trio.run(main)
print(*sorted({name.partition(".")[0] for name in sys.modules} | {n for n in sys.modules if n.startswith("iii_trio.")}))
"""


@pytest.mark.slow
def test_an_engine_without_a_file_loads_no_drawing_no_yaml_and_no_module_that_does_not_run() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert "iii_trio.triggers.queue.module" in loaded
    assert not loaded & {"rich", "ruamel", "httpcore2", "h2", "opentelemetry", "google", "prometheus_client", "glide"}
    assert not loaded & {f"iii_trio.triggers.{name}.module" for name in ("http", "external", "cluster")}
