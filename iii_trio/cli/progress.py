"""How far a transfer is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

import attrs
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from ..records import define
from . import output

REFRESH_SECONDS = 0.1
PLAIN_STEP = 0.25
"""Without a terminal: a line for each quarter, so that a log stays short."""


@define(eq=False)
class Meter:
    """Counts bytes, and shows the count. A context manager; `total` may be unknown.

    On a terminal it is a bar, redrawn at most ten times a second by the counting task. Elsewhere nothing, or with `plain` a
    line a quarter.
    """

    what: str
    total: int | None = None
    stream: TextIO = attrs.field(factory=lambda: sys.stderr)
    plain: bool = False
    shown: bool = True
    done: int = attrs.field(default=0, init=False)
    _bar: Progress | None = attrs.field(default=None, init=False)
    _task: TaskID = attrs.field(default=TaskID(0), init=False)
    _drawn: float = attrs.field(default=0.0, init=False)
    _said: float = attrs.field(default=0.0, init=False)

    def __attrs_post_init__(self) -> None:
        self.what = output.visible(self.what)  # it names a file

    def __enter__(self) -> Meter:
        # Escape sequences of a bar would spoil a log.
        if self.shown and output.is_terminal(self.stream):
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                _Rate(),
                TimeElapsedColumn(),
                console=output.new_console(self.stream),
                auto_refresh=False,
            )
            self._task = self._bar.add_task(self.what, total=self.total)
            self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, refresh=True)
            self._bar.stop()

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.reach(self.done + count)

    def reach(self, done: int) -> None:
        """So many bytes in all."""
        self.done = done
        if self._bar is not None:
            now = time.monotonic()
            # Drawing at each item could slow the transfer.
            if now - self._drawn >= REFRESH_SECONDS:
                self._drawn = now
                self._bar.update(self._task, completed=done, refresh=True)
        elif self.plain and self.total and done / self.total >= self._said + PLAIN_STEP:
            self._said = done / self.total // PLAIN_STEP * PLAIN_STEP
            output.say(f"{self.what} {self._said:4.0%}  {size(done)}", stream=self.stream)


class _Rate(ProgressColumn):
    """The rate in the units of everything else here; rich's own column counts in thousands."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(speed)}/s" if speed else "")


def size(count: float) -> str:
    """Write a number of bytes for people, such as `256.0 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        # The largest unit that leaves a digit before the point reads best.
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
