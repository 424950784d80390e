"""Serve files: whole, in ranges, or only if they have changed."""

from __future__ import annotations

import errno
import mimetypes
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trio

from ..records import frozen
from ..worker import HttpError, HttpRequest, HttpResponse
from .ranges import Version, precondition, wanted_ranges

_CHUNK: Final = 256 * 1024
_ABSENT: Final = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM),
    *(errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO),
}


def content_disposition(name: str, kind: str = "attachment") -> str:
    """Return the header that names a download (RFC 6266). Names beyond ASCII are written as RFC 8187 says."""
    plain = "".join(letter if " " <= letter < "\x7f" and letter not in '"\\%' else "_" for letter in name)
    # Old clients do not know the extended form, so it is left out where it adds nothing.
    if plain == name:
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='', errors='replace')}"


async def serve_file(
    response: HttpResponse,
    path: str | os.PathLike[str],
    request: HttpRequest,
    *,
    root: str | os.PathLike[str] | None = None,
    content_type: str | None = None,
    download_as: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request with a file, with its ranges, or that it has not changed.

    A relative `path` starts at `root`, and a file outside of `root` is not served. Always give `root` for a path that comes
    from the request. `content_type` is guessed from the name. `download_as` makes browsers save the file by this name.

    Raises HttpError 404 for what is not a file, ChannelBroken if the client has left, and OSError for a file that cannot be
    read to its end: the response is cut then. If cancelled: the response is cut.
    """
    file, version = await trio.to_thread.run_sync(_open, path, root)
    try:
        common = dict(headers or {}) | {
            "etag": version.etag,
            "last-modified": version.last_modified,
            "accept-ranges": "bytes",
        }
        status = precondition(request.headers, version)
        if status is not None:
            await response.start(status, common if status == 304 else {"content-length": "0"})
            return
        if content_type is None:
            guessed, encoding = mimetypes.guess_type(Path(path).name)
            content_type = guessed if guessed is not None and encoding is None else "application/octet-stream"
        if download_as is not None:
            common["content-disposition"] = content_disposition(download_as)
        sends_body = request.method != "HEAD"
        ranges = wanted_ranges(request.headers, version) if request.method == "GET" else None
        await _Sender(response, file, version, content_type, common, sends_body).send(ranges)
    finally:
        with trio.CancelScope(shield=True):  # closing a file that was only read takes no time
            await trio.to_thread.run_sync(file.close)


@frozen
class _Sender:
    response: HttpResponse
    file: Any
    version: Version
    content_type: str
    common: Mapping[str, str]
    sends_body: bool

    async def send(self, ranges: Sequence[range] | None) -> None:
        size = self.version.size
        if ranges is None:
            await self._start(200, self.content_type, size)
            await self._copy(range(size))
        elif not ranges:
            await self.response.start(416, {**self.common, "content-range": f"bytes */{size}", "content-length": "0"})
        elif len(ranges) == 1:
            await self._start(206, self.content_type, len(ranges[0]), {"content-range": self._content_range(ranges[0])})
            await self._copy(ranges[0])
        else:
            await self._multipart(ranges)

    async def _multipart(self, ranges: Sequence[range]) -> None:
        boundary = secrets.token_hex(16)
        heads = [
            f"\r\n--{boundary}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Range: {self._content_range(one)}\r\n\r\n".encode()
            for one in ranges
        ]
        end = f"\r\n--{boundary}--\r\n".encode()
        length = sum(map(len, heads)) + sum(map(len, ranges)) + len(end)
        await self._start(206, f"multipart/byteranges; boundary={boundary}", length)
        for head, one in zip(heads, ranges, strict=True):
            await self.response.send(head)
            await self._copy(one)
        await self.response.send(end)

    async def _start(self, status: int, content_type: str, length: int, more: Mapping[str, str] | None = None) -> None:
        headers = {**self.common, "content-type": content_type, "content-length": str(length), **(more or {})}
        await self.response.start(status, headers)

    async def _copy(self, part: range) -> None:
        # The answer to HEAD has the headers of GET, without its body.
        if not self.sends_body:
            return
        at = part.start
        while at < part.stop:
            data = await trio.to_thread.run_sync(os.pread, self.file.fileno(), min(_CHUNK, part.stop - at), at)
            # The announced length cannot be kept, and padding would pass as content.
            if not data:
                raise OSError(f"the file ended {part.stop - at} bytes too early: it has changed while it was sent")
            await self.response.send(data)
            at += len(data)

    def _content_range(self, part: range) -> str:
        return f"bytes {part.start}-{part.stop - 1}/{self.version.size}"


def _open(path: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> tuple[Any, Version]:
    absent = HttpError(404, "NOT_FOUND", "There is no such file.")
    try:
        if root is not None:
            base = Path(root).resolve(strict=True)
            path = (base / path).resolve(strict=True)
            # Links and dots could lead a request out of the served directory.
            if not path.is_relative_to(base):
                raise absent
        # A named pipe would block the thread until a writer comes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a zero byte in the name
        raise absent from None
    except OSError as error:
        # A full file table or a failing disk is not the client's doing.
        if error.errno not in _ABSENT:
            raise
        raise absent from None
    file = os.fdopen(descriptor, "rb", buffering=0, closefd=True) if _is_file(descriptor) else None
    # Devices and pipes have no size, and reading one may never end.
    if file is None:
        os.close(descriptor)
        raise absent
    about = os.fstat(descriptor)
    return file, Version(about.st_size, about.st_mtime_ns)


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
