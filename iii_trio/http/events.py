"""Server-sent events: the stream that a page reads with EventSource (HTML standard, section 9.2)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import msgspec
import trio

from ..errors import MisuseError
from ..nursery import open_service_nursery
from ..worker import HttpResponse

_LINE_END: Final = re.compile(r"\r\n|\r|\n")


def encode_event(
    data: Any = None, *, event: str | None = None, id: str | None = None, retry_seconds: float | None = None
) -> bytes:
    """Return one event. Data that is not text is sent as JSON. Raises MisuseError for names that would break the lines."""
    lines = []
    for name, value in (("event", event), ("id", id)):
        if value is None:
            continue
        # A line end would begin another field, and browsers ignore an id with a zero byte.
        if _LINE_END.search(value) or "\0" in value:
            raise MisuseError(f"the {name} {value!r} has a line end or a zero byte in it")
        lines.append(f"{name}: {value}")
    if retry_seconds is not None:
        lines.append(f"retry: {round(retry_seconds * 1000)}")
    # An event may carry only an id or a pause, which needs no data.
    if data is not None:
        text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
        lines += [f"data: {line}" for line in _LINE_END.split(text)]
    return ("\n".join(lines) + "\n\n").encode()


@final
class EventStream:
    """A stream of events to one client. Made by `open_events`."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self._writing = trio.Lock()

    async def send_event(
        self, data: Any = None, *, event: str | None = None, id: str | None = None, retry_seconds: float | None = None
    ) -> None:
        """Send an event. It leaves at once.

        `event` is its name (a page's default: `message`). The client repeats the last `id` when it comes back, as the header
        `last-event-id`. `retry_seconds` is its pause before that.
        Raises MisuseError for names with line ends, ChannelBroken if the client has left. If cancelled: the response is cut.
        """
        await self._send(encode_event(data, event=event, id=id, retry_seconds=retry_seconds))

    async def send_comment(self, text: str = "") -> None:
        """Send a line that pages do not see. It keeps the connection open. Raises and is cancelled as `send_event`."""
        await self._send(f": {_LINE_END.sub(' ', text)}\n\n".encode())

    async def _send(self, data: bytes) -> None:
        # The task that keeps the connection alive sends too, and a writer takes one sender at a time.
        async with self._writing:
            await self._response.send(data)

    async def _keep_alive(self, seconds: float) -> None:
        while True:
            await trio.sleep(seconds)
            await self.send_comment()


@asynccontextmanager
async def open_events(response: HttpResponse, *, keep_alive_seconds: float = 15.0) -> AsyncIterator[EventStream]:
    """Answer a request with events, for the length of the block. A comment is sent every `keep_alive_seconds`.

    The head leaves at once, so that the page knows that it is connected.
    Raises ChannelBroken if the client has left. If cancelled: the response is cut.
    """
    await response.start(200, {"content-type": "text/event-stream", "cache-control": "no-store"})
    await response.flush()
    events = EventStream(response)
    async with open_service_nursery() as nursery:
        nursery.start_soon(events._keep_alive, keep_alive_seconds)
        yield events
        nursery.cancel_scope.cancel(reason="the block was left")
