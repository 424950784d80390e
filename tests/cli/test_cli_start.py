"""What an engine loads before it is ready. Each import is time that its users wait for."""

from __future__ import annotations

import os
import subprocess
import sys

# The process ends with the ready line, as whoever starts an engine waits for it.
_SCRIPT = """
import os
import sys

compiled = []

def hear(event, arguments):
    if event == "compile" and arguments[1] == "<string>":
        frame = sys._getframe(1)
        if not frame.f_code.co_filename.endswith("typing.py"):
            return  # a function that a library makes
        while any(name in frame.f_code.co_filename for name in ("typing.py", "msgspec", "attr", "dataclasses.py")):
            frame = frame.f_back
        if "iii_trio" in frame.f_code.co_filename:
            compiled.append(f"annotation {arguments[0]} of {frame.f_code.co_filename}:{frame.f_lineno}")

sys.addaudithook(hear)

class Stdout:
    encoding, errors = "utf-8", "strict"

    def write(self, text):
        if "ready on" in text:
            os.write(1, "\\n".join([*sys.modules, *compiled]).encode())
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
    loaded = _loaded()
    assert loaded & _LIBRARIES == set()
    assert loaded & _OURS == set()
    assert _NEEDED_LATER - loaded == set()


def test_no_annotation_of_ours_is_compiled_at_the_start() -> None:
    # Structs read their annotations. With `from __future__ import annotations` each is a text, which takes 30 µs or more.
    assert [name for name in sorted(_loaded()) if name.startswith("annotation ")] == []


def _loaded() -> set[str]:
    """Return the modules that an engine has loaded when it is ready, and the annotations that were compiled for it."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},  # it loads sqlite3
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.splitlines())
