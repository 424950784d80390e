"""The command line: `iii-trio` and `python -m iii_trio`.

    app.py         which commands there are; wrong usage and failures as one sentence and an exit code
    serve.py       an engine until it is told to stop
    trigger.py     one call
    transfer.py    `send` and `receive`: a file through a channel
    demo.py        an engine and two workers as real processes, once whole and once cut
    exits.py       what the exit codes mean
    …              small things that several commands share

A new command is a file with a coroutine function that returns an `Exit`, and a line in `app.py`.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (`argv` without the program's name; default: the process's) and return its exit code."""
    try:
        from .app import main as run  # here, so that importing this package stays cheap

        return run(argv)
    except KeyboardInterrupt:
        return 130
