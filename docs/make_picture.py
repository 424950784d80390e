"""Draw docs/demo.svg from a real run of `iii-trio demo`: `python docs/make_picture.py`.

The demo runs on a terminal of its own, so that it prints its colours. The picture shows every line that it printed.
"""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 112
PICTURE = Path(__file__).with_name("demo.svg")


def run_demo() -> bytes:
    """Run the demo on a pseudo-terminal and return its output. Raises RuntimeError if it fails."""
    os.environ |= {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    taken = bytearray()

    def read(terminal: int) -> bytes:
        data = os.read(terminal, 65536)
        taken.extend(data)
        return b" " if data else b""  # nothing is shown, and an empty answer means the end

    status = pty.spawn([sys.executable, "-m", "iii_trio", "demo"], read)
    if status:
        raise RuntimeError(f"the demo ended with {os.waitstatus_to_exitcode(status)}")
    return bytes(taken)


def draw(output: bytes) -> str:
    """Return the output as an SVG picture of a terminal."""
    lines = output.decode().replace("\r\n", "\n").split("\n")
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print("[bold]$[/] iii-trio demo", highlight=False)
        for line in lines:
            console.print(Text.from_ansi(line.split("\r")[-1]))  # what a line was before its last \r is not seen
    return console.export_svg(title="iii-trio demo", unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(draw(run_demo()))
    print(f"wrote {PICTURE}")
