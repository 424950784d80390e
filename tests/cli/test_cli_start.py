"""What an engine loads before it is ready. Each import is time that its users wait for."""

from __future__ import annotations

import os
import subprocess
import sys

# The process ends with the ready line, as whoever starts an engine waits for it.
_SCRIPT = """
import os
import sys

class Stdout:
    encoding, errors = "utf-8", "strict"

    def write(self, text):
        if "ready on" in text:
            os.write(1, "\\n".join(sys.modules).encode())
            os._exit(0)

    def flush(self): ...
    def isatty(self): return False
    def fileno(self): return 1

from iii_trio.cli import main

sys.stdout = Stdout()
main(["serve", "--host", "127.0.0.1", "--port", "0", "--data", "memory"])
"""
_LIBRARIES = {
    "asyncio", "cyclopts", "encodings.idna", "glide", "google", "h2", "httpcore2", "multipart", "opentelemetry",
    "prometheus_client", "rich", "ruamel", "sqlite3", "tomllib", "unittest", "xml",
}  # fmt: skip
"""The command line's parser, drawing, YAML, databases, names of hosts, and all that only modules use which do not run."""
_OURS = {
    "iii_trio.cli.app",
    "iii_trio.conformance",
    "iii_trio.recorder",
    "iii_trio.testing",
    "iii_trio.triggers.cluster.module",
    "iii_trio.triggers.cluster.settings",
    "iii_trio.triggers.external.module",
    "iii_trio.triggers.external.settings",
    "iii_trio.triggers.http.module",
    "iii_trio.triggers.http.settings",
    "iii_trio.triggers.queue.mesh_queue",
    "iii_trio.triggers.queue.sqlite_store",
    "iii_trio.worker.external",
    "iii_trio.worker.http",
}
"""What an engine loads when its configuration names it, with an example of each part."""
_NEEDED_LATER = {
    "cattrs",
    "h11",
    "iii_trio.engine.serve_channel",
    "iii_trio.engine.serve_session",
    "iii_trio.engine.telemetry",
    "iii_trio.triggers.observability.functions",
    "iii_trio.triggers.queue.functions",
    "trio_websocket",
}
"""What the first connection or message needs. To import it then would need a descriptor, and there may be none left."""


def test_an_engine_without_a_file_loads_what_it_needs_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},  # it loads sqlite3
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert loaded & _LIBRARIES == set()
    assert loaded & _OURS == set()
    assert _NEEDED_LATER - loaded == set()
