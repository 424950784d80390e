"""The files beside the database: the directory, the disk reserve, and the write-ahead log as it was left."""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import Final, final

_RESERVE: Final = "queue.reserve"
_RESERVE_BYTES: Final = 8 * 1024 * 1024
_SMALL_DISK_SHARE: Final = 16  # of a disk that is too small for the whole reserve
_PRIVATE_DIRECTORY: Final = 0o700
_PRIVATE_FILE: Final = 0o600
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = struct.Struct(">II8sII")  # page number, size after a commit (or 0), salts, checksums


def make_directory(directory: Path) -> list[Path]:
    """Make a directory and its parents, for this user only. Return those that were made, the innermost first.

    Raises OSError.
    """
    missing = []
    at = directory
    while not at.exists() and at != at.parent:
        missing.append(at)
        at = at.parent
    for path in reversed(missing):
        path.mkdir(_PRIVATE_DIRECTORY, exist_ok=True)
        path.chmod(_PRIVATE_DIRECTORY)  # whatever the umask has left of it
    directory.mkdir(exist_ok=True)  # raises where a file has this name
    return missing


def make_file(path: Path) -> bool:
    """Make an empty file, for this user only. Return whether it was not there before. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE_FILE)
    except FileExistsError:
        return False
    try:
        os.fchmod(descriptor, _PRIVATE_FILE)
    finally:
        os.close(descriptor)
    return True


@final
class DiskReserve:
    """A file that occupies disk space, to be released when the ends of jobs have to be written on a full disk (Q14).

    The file exists while the store is open, so it also tells that an engine ended without closing its store.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / _RESERVE
        self.was_there = self.path.exists()
        """Whether the last store in this directory was not closed."""
        self.held = False
        self._directory = directory
        self.size = min(_RESERVE_BYTES, self._disk_bytes() // _SMALL_DISK_SHARE)

    def _disk_bytes(self) -> int:
        found = os.statvfs(self._directory)
        return found.f_blocks * found.f_frsize

    def free_bytes(self) -> int:
        """Return the free space of the disk, beside the reserve."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def take(self) -> bool:
        """Occupy the space, if it is not occupied. Return whether it is now."""
        if not self.held:
            try:
                make_file(self.path)
                with open(self.path, "r+b") as file:
                    _allocate(file.fileno(), self.size)
                self.held = True
            except OSError:
                self.release()
        return self.held

    def release(self) -> None:
        """Give the space back to the disk. The file stays."""
        self.held = False
        with contextlib.suppress(OSError):
            os.truncate(self.path, 0)

    def remove(self) -> None:
        """Remove the file, because the store is closed."""
        self.held = False
        with contextlib.suppress(OSError):
            self.path.unlink()


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.pwrite(descriptor, bytes(size), 0)


def committed_frames(wal: Path) -> int:
    """Return how many frames of a write-ahead log belong to its commits, by their headers alone.

    Frames of an earlier use of the file have other salts. A transaction that was cut off has no commit at its end. So this
    is the number that SQLite recovers, unless a frame's content is damaged (https://sqlite.org/fileformat2.html, section 4).
    """
    frames = 0
    try:
        with open(wal, "rb") as file:
            header = file.read(_WAL_HEADER)
            if len(header) < _WAL_HEADER:
                return 0
            file_bytes = os.fstat(file.fileno()).st_size
            page_bytes, salts = int.from_bytes(header[8:12], "big"), header[16:24]
            for number in range(1, 2**31):
                head = file.read(_FRAME_HEADER.size)
                if len(head) < _FRAME_HEADER.size or file.tell() + page_bytes > file_bytes:
                    break
                _, size_after_commit, frame_salts, _, _ = _FRAME_HEADER.unpack(head)
                if frame_salts != salts:
                    break
                frames = number if size_after_commit else frames
                file.seek(page_bytes, os.SEEK_CUR)
    except OSError:
        return 0
    return frames
