"""Uploads of forms (multipart/form-data, RFC 7578), one part after the other, while they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, final

import trio

from ..errors import MisuseError
from ..worker import ChannelReader, HttpError

_MORE: Final = object()


def parts(
    reader: ChannelReader, headers: Mapping[str, str], *, max_parts: int = 1000, max_header_bytes: int = 8192
) -> Parts:
    """Iterate over the parts of an upload: `async for part in parts(request_body, headers)`.

    Nothing is kept: a part's bytes are read with `async for chunk in part`, or skipped by going on to the next.
    Raises HttpError 415 for a body that is not a form, and MisuseError without the extra `http`. Iterating raises HttpError
    400 for a form that breaks the rules or ends too soon, ChannelBroken if the client left. If cancelled: nothing is lost.
    """
    try:
        import multipart  # type: ignore[import-untyped]
    except ImportError:
        raise MisuseError("uploads of forms need the extra: pip install 'iii-trio[http]'") from None
    media, options = multipart.parse_options_header(headers.get("content-type", ""))
    if media != "multipart/form-data" or not options.get("boundary"):
        raise HttpError(415, "NOT_A_FORM", "Send multipart/form-data, with a boundary.")
    try:
        parser = multipart.PushMultipartParser(
            options["boundary"], max_segment_count=max_parts, max_header_size=max_header_bytes
        )
    except multipart.MultipartError as error:
        raise HttpError(400, "BAD_MULTIPART", f"{error}.") from None
    return Parts(reader, parser, multipart.MultipartError)


@final
class Part:
    """One part of a form. Its bytes come while it is the current part."""

    def __init__(self, owner: Parts, segment: Any) -> None:
        self._owner = owner
        self._is_over = False
        self.name: str = segment.name
        self.filename: str | None = segment.filename
        """The client's name for the file. It may hold anything: never use it as a path."""
        self.content_type: str | None = segment.content_type
        self.headers: dict[str, str] = {name.lower(): value for name, value in segment.headerlist}

    def __aiter__(self) -> Part:
        return self

    async def __anext__(self) -> bytes:
        if self._is_over:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        event = await self._owner._next()
        if event is None:
            self._is_over = True
            raise StopAsyncIteration
        return bytes(event)

    async def read(self, max_bytes: int = 65_536) -> bytes:
        """Read the part whole. Raises HttpError 413 for more than `max_bytes`, and as iterating does."""
        found = bytearray()
        async for chunk in self:
            found += chunk
            if len(found) > max_bytes:
                raise HttpError(413, "PART_TOO_LARGE", f"The part {self.name!r} may have {max_bytes} bytes at most.")
        return bytes(found)


@final
class Parts:
    """The parts of a form. Made by `parts`."""

    def __init__(self, reader: ChannelReader, parser: Any, error: type[Exception]) -> None:
        self._reader = reader
        self._parser = parser
        self._error = error
        self._events: Iterator[Any] = iter(())
        self._part: Part | None = None

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> Part:
        if self._part is not None:
            async for _ in self._part:  # what was not read of the last one
                pass
        segment = await self._next()
        if segment is _MORE:
            raise StopAsyncIteration
        self._part = Part(self, segment)
        return self._part

    async def _next(self) -> Any:
        """Return the parser's next event: a segment, bytes, None at a segment's end, or `_MORE` at the form's end."""
        try:
            while (event := next(self._events, _MORE)) is _MORE:
                if self._parser.closed:
                    await trio.lowlevel.checkpoint()
                    return _MORE
                try:
                    chunk = await self._reader.receive()
                except trio.EndOfChannel:
                    chunk = b""  # the parser tells whether the form is whole
                if not isinstance(chunk, str):
                    self._events = self._parser.parse(chunk)
        except self._error as error:
            raise HttpError(400, "BAD_MULTIPART", f"The form cannot be read: {error}.") from None
        return event
