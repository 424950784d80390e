"""Files, pipes and devices at either end of a transfer. Blocking operations run in a thread."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

import trio

from ..records import define
from .ending import STANDARD_STREAM
from .exits import Exit, Failure, UsageError
from .output import cannot_write

CHUNK: Final = 256 * 1024
"""Bytes of one message: large enough to be fast, small enough for every SDK's limit."""


def check_name(path: str) -> None:
    """Raise UsageError for an empty name, as of a shell's variable that is not set."""
    if not path:
        raise UsageError("the name of the file is empty; name one")


@define(eq=False)
class Source:
    """Bytes to send, from a file or from standard input."""

    name: str
    _descriptor: int
    size: int | None
    """None where nobody can know: a pipe, a device."""

    @classmethod
    async def open(cls, path: str) -> Source:
        """Check that it can be read. Raises UsageError otherwise."""
        check_name(path)
        # Standard input is open already, and belongs to the process.
        if path == STANDARD_STREAM:
            return cls._of("standard input", 0)
        try:
            # A named pipe opens when somebody writes to it.
            descriptor = await trio.to_thread.run_sync(os.open, path, os.O_RDONLY, abandon_on_cancel=True)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        source = cls._of(path, descriptor)
        # A directory opens without an error and fails only when it is read.
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            source.close()
            raise UsageError(f"{path} is a directory; name a file, or `-` for standard input")
        return source

    @classmethod
    def _of(cls, name: str, descriptor: int) -> Source:
        status = os.fstat(descriptor)
        return cls(name, descriptor, status.st_size if stat.S_ISREG(status.st_mode) else None)

    async def read(self, count: int = CHUNK) -> bytes:
        """Read up to `count` bytes, none at the end. Raises Failure, which names the file.

        If cancelled: bytes that were read meanwhile are lost.
        """
        try:
            return await trio.to_thread.run_sync(os.read, self._descriptor, count, abandon_on_cancel=self.size is None)
        except OSError as error:
            raise Failure(Exit.FAILED, f"{self.name} cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Let the file go."""
        # The standard streams belong to the process and outlive the command.
        if self._descriptor > 2:
            os.close(self._descriptor)


@define(eq=False)
class Sink:
    """Where received bytes go: standard output, a device or pipe, or a file that is not there before it is whole.

    A file is written under a hidden name ending in `.part` beside its place, and moved there by `keep`. `close` without
    `keep` removes it. Devices, pipes and standard output are written as the bytes come.
    """

    name: str
    is_terminal: bool
    _descriptor: int
    _part: Path | None = None
    _place: Path | None = None
    _overwrite: bool = True

    @classmethod
    async def open(cls, path: str, *, private: bool = False, overwrite: bool = True) -> Sink:
        """Check that the place can be written. Raises UsageError otherwise.

        A `private` file is for this user only. Without `overwrite` it must not be there, now and when it is kept.
        """
        check_name(path)
        if path == STANDARD_STREAM:
            return cls("standard output", os.isatty(1), 1)
        try:
            sink = await trio.to_thread.run_sync(cls._open_file, path, private, overwrite)
            if sink is None:  # a pipe opens when somebody reads from it
                descriptor = await trio.to_thread.run_sync(os.open, path, os.O_WRONLY, abandon_on_cancel=True)
                sink = cls(path, os.isatty(descriptor), descriptor)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
        return sink

    @classmethod
    def _open_file(cls, path: str, private: bool, overwrite: bool) -> Sink | None:
        """Open a sink for a regular file, new or not. Returns None for a device or pipe."""
        place = Path(os.path.realpath(path))  # a link stays a link: what it points to is replaced
        mode = place.stat().st_mode if place.exists() else None
        # A file of yesterday must not be lost for a mistyped name.
        if mode is not None and not overwrite:
            raise UsageError(f"{path} is there already; name another file, or say --overwrite")
        # The final rename would fail only after the whole transfer.
        if mode is not None and stat.S_ISDIR(mode):
            raise UsageError(f"{path} is a directory; name a file in it")
        # A device or pipe cannot be replaced by a finished file.
        if mode is not None and not stat.S_ISREG(mode):
            return None
        # A rename would replace a read-only file without asking.
        if mode is not None and not os.access(place, os.W_OK):
            raise UsageError(f"{path} is read-only; name another file, or change its mode")
        if not place.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no directory {place.parent}; make it first")
        part = place.with_name(f".{place.name[:100]}.{secrets.token_hex(4)}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        # The new file must not be open to more readers than the old one.
        if private:
            os.fchmod(descriptor, 0o600)
        elif mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
        return cls(path, False, descriptor, part, place, overwrite)

    async def write(self, data: bytes) -> None:
        """Write all of it. Raises Failure, which names the file, and ReaderLeft if nobody reads any more.

        If cancelled: an unknown part is written.
        """
        try:
            await trio.to_thread.run_sync(self._write_all, data, abandon_on_cancel=self._part is None)
        except OSError as error:
            raise cannot_write(error, self.name) from None

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        # A pipe may take less than it is given.
        while view:
            view = view[os.write(self._descriptor, view) :]

    @property
    def part(self) -> Path | None:
        """The hidden file that is written, for a check of it before `keep`. None: it is not a file."""
        return self._part

    async def keep(self) -> None:
        """Write everything to the disk, then give the file its name. Raises OSError."""
        await trio.to_thread.run_sync(self._keep)

    def _keep(self) -> None:
        if self._part is not None and self._place is not None:
            os.fsync(self._descriptor)
            if self._overwrite:
                os.replace(self._part, self._place)
            else:
                os.link(self._part, self._place)  # unlike a rename, it fails where a file has come meanwhile
                self._part.unlink()
            self._part = None

    def close(self) -> None:
        """Let it go; a file that was not kept is removed."""
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        if self._place is not None and self._descriptor >= 0:  # others may still be in a thread's write
            os.close(self._descriptor)
            self._descriptor = -1
