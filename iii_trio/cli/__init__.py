"""The command line: `iii-trio` and `python -m iii_trio`.

    app.py         which commands there are; wrong usage as one sentence and an exit code
    ending.py      failures as one sentence and an exit code
    output.py      the one place for output that a person reads
    serve.py       an engine until it is told to stop
    serve_line.py  the usual lines of `serve`, read without the parser
    trigger.py     one call
    transfer.py    `send` and `receive`: a file through a channel
    demo.py        an engine and two workers as real processes, once whole and once cut
    exits.py       what the exit codes mean
    …              small things that several commands share

A new command is a file with a coroutine function that returns an `Exit`, and a line in `app.py`. The command of a module
has its line in the module's declaration.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from .loading import collector_paused


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (`argv` without the program's name; default: the process's) and return its exit code."""
    try:
        if argv is None:
            _end_at_once_when_signalled()
        tokens = list(sys.argv[1:] if argv is None else argv)
        # After the handlers, because these imports take some tenths of a second.
        with collector_paused() as resume_collector:
            from .serve_line import usual_options

            options = usual_options(tokens)
            if options is not None:
                from .serve import run_serve

                return run_serve(options, resume_collector)
            from .app import main as run
        return run(tokens)
    except KeyboardInterrupt:
        return 130


def _end_at_once_when_signalled() -> None:
    """End this process at a SIGTERM that comes before a command is ready for it.

    Process 1 of a container needs this: the kernel drops a signal that such a process has no handler for. Python has one
    for SIGINT.
    """
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))  # nothing is open yet
