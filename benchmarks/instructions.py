"""Machine instructions of an engine for one call or one channel, counted by valgrind: the same on a busy machine.

    python -m benchmarks.instructions [CHECKOUT …]

The kernel's are not counted. A figure is the difference between a long run and a short one, divided by their difference in
number. Spans are begun by the second, and valgrind is slow, so figures of two runs differ by one in a hundred.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .processes import ROOT, client, module, port_of, running

_JOBS: dict[str, tuple[str, dict[str, Any], int]] = {
    "call, one at a time": ("calls", {"in_flight": 1}, 400),
    "call, 64 at once": ("calls", {"in_flight": 64}, 1600),
    "there and back, one at a time": ("round_trips", {"protocol": "engine", "in_flight": 1}, 400),
    "channel made, used and closed": ("churn", {"protocol": "engine"}, 100),
}
_SERVE = "-m", "iii_trio", "serve", "--host", "127.0.0.1", "--port", "0", "--data", "memory"
_RELAYS = {
    "raw Trio relay, there and back": ("raw_trio", "round_trips", {"in_flight": 1}, 400),
    "trio-websocket relay, pipe made, used and closed": ("trio_websocket_relay", "churn", {}, 100),
}


def count(command: list[str], job: str, arguments: dict[str, Any], number: int, checkout: Path = ROOT) -> float:
    """Return the instructions of a server for one unit of a client's job."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out")
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        with running([*valgrind, *command], {"PYTHONPATH": str(checkout)}, cwd=checkout) as process:
            about = {"port": port_of(process), "pid": process.pid, **arguments}
            client(job, **about, count=number // 2)
            found = []
            for each, size in enumerate((number // 4, number), start=1):
                _control("--zero", process.pid)
                client(job, **about, count=size)
                _control("--dump", process.pid)
                text = Path(f"{out}.{each}").read_text()
                total = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
                assert total is not None
                found.append(int(total[1]))
    return (found[1] - found[0]) / (number - number // 4)


def _control(option: str, pid: int) -> None:
    subprocess.run(["callgrind_control", option, str(pid)], check=True, capture_output=True)


def main(checkouts: list[Path]) -> None:
    """Print a line for each figure as it is found."""
    for name, (job, arguments, number) in _JOBS.items():
        for checkout in checkouts:
            found = count([sys.executable, *_SERVE], job, arguments, number, checkout)
            print(f"{name}: {found:,.0f} ({checkout})", flush=True)
    for name, (relay, job, arguments, number) in _RELAYS.items():
        found = count(module(f"benchmarks.peers.{relay}"), job, {"protocol": "websocket", **arguments}, number)
        print(f"{name}: {found:,.0f}", flush=True)


if __name__ == "__main__":
    main([Path(each).resolve() for each in sys.argv[1:]] or [ROOT])
