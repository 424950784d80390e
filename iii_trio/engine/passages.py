"""Ends that workers of this engine hold of channels at other engines. Their bytes are passed through as they are.

The session that holds an end is known here, and its link is known there. So whichever of the two is lost ends the end at
both sides, and without a Close: a cut is never a clean end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, final, runtime_checkable

import msgspec
import trio

from ..core.hub import Hub
from ..core.session import WorkerSession
from ..errors import ChannelBroken, ConnectionFailed
from ..transport.http1 import Head
from ..transport.routes import ChannelRoutes, Passage
from ..transport.socket import drop, end_writing
from ..transport.tls import TlsStream
from ..wire import Ref


@runtime_checkable
class _Resets(Protocol):
    """A stream that can be ended without any ceremony."""

    def reset(self) -> None:
        """Close now, so that the peer learns of a disorderly end."""


_READ: Final = 128 * 1024
_ACCEPTED: Final = b"HTTP/1.1 101"


class _Held(msgspec.Struct, frozen=True, eq=False):
    channel_id: str
    session: WorkerSession | None
    drop: Callable[[str], object]


@final
class Passages:
    """The ends that are passed through."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.routes: ChannelRoutes | None = None
        self._held: dict[_Held, None] = {}

    def __len__(self) -> int:
        return len(self._held)

    def find(self, channel_id: str) -> Passage | None:
        """Return the way to a channel at another engine, or None if it is at none."""
        return None if self.routes is None else self.routes.find(channel_id)

    @contextmanager
    def hold(self, channel_id: str, session: WorkerSession | None, drop: Callable[[str], object]) -> Iterator[None]:
        """Hold an end for the length of the block. `drop` is called with the reason if it is to end by force.

        The session is still told how the channel ended later, unless the block raises, because the end was refused.
        """
        held = _Held(channel_id, session, drop)
        self._held[held] = None
        if session is not None:
            self._hub.hold_elsewhere(channel_id, session)
        try:
            yield
        except (ConnectionFailed, ChannelBroken):
            # The session may hold the other end of the channel, too.
            if session is not None and self._alone(held):
                self._hub.release_elsewhere(channel_id, session)
            raise
        finally:
            self._held.pop(held, None)

    def _alone(self, held: _Held) -> bool:
        return not any(
            each is not held and each.session is held.session and each.channel_id == held.channel_id
            for each in self._held
        )

    def of_session(self, session_id: str) -> list[_Held]:
        """Return the ends that a session holds."""
        return [each for each in self._held if each.session is not None and each.session.id == session_id]

    def of_home(self, home: str) -> list[_Held]:
        """Return the ends of channels at the engine of this name."""
        return [each for each in self._held if each.channel_id.endswith(f".{home}")]


async def pass_through(
    passages: Passages, stream: trio.abc.Stream, head: Head, ref: Ref, holder: WorkerSession | None, passage: Passage
) -> ConnectionFailed | ChannelBroken | None:
    """Pass everything on between a local end and the engine that has its channel, until both sides are done.

    Return the error, with nothing written to `stream`, if that engine cannot be reached.
    If cancelled: both connections are reset, so that neither side takes the end for a clean one.
    """
    headers = [] if holder is not None else [(b"Iii-Aware", b"no")]
    if "user-agent" in head.headers:
        headers.append((b"User-Agent", head.headers["user-agent"].encode("latin-1")))
    headers.append((b"Sec-WebSocket-Key", head.headers["sec-websocket-key"].encode("latin-1")))
    with trio.CancelScope() as scope:
        try:
            with passages.hold(ref.channel_id, holder, lambda reason: scope.cancel(reason=reason)):
                far = await passage.open(ref, headers)
                try:
                    await _pass_all(stream, far, head.rest)
                finally:
                    await drop(far)  # noqa: ASYNC102 - it never waits
        except _Refused:
            pass  # its answer was passed on
        except (ConnectionFailed, ChannelBroken) as error:
            return error
    return None


class _Refused(ConnectionFailed):
    """The other engine has not attached the end."""


async def _pass_all(near: trio.abc.Stream, far: trio.abc.Stream, begun: bytes) -> None:
    """Pass everything on, both ways. Raises _Refused after an answer that is not an upgrade.

    If cancelled: both connections are reset.
    """
    clean = False
    try:
        if begun:
            await far.send_all(begun)
        answer = await far.receive_some(_READ)
        await near.send_all(answer)
        async with trio.open_nursery() as nursery:
            broken = functools.partial(nursery.cancel_scope.cancel, reason="the other direction is broken")
            nursery.start_soon(_copy, near, far, broken)
            nursery.start_soon(_copy, far, near, broken)
        clean = not nursery.cancel_scope.cancel_called
        if not answer.startswith(_ACCEPTED):
            raise _Refused("it was refused")
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it broke before the answer was passed on
    finally:
        if not clean:
            _reset(near)
            _reset(far)


async def _copy(source: trio.abc.Stream, sink: trio.abc.Stream, broken: Callable[[], object]) -> None:
    """Pass one direction on. What the sink does not take is not read, so both sides feel each other's pace."""
    try:
        while data := await source.receive_some(_READ):
            await sink.send_all(data)
        # Without a half-closed stream the other direction cannot go on.
        if not await end_writing(sink):
            broken()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        broken()


def _reset(stream: trio.abc.Stream) -> None:
    """End a connection without any ceremony that could be taken for a clean end."""
    transport = stream.transport if isinstance(stream, TlsStream) else stream
    # Streams that are not sockets have no other way than to be closed, which their owners do.
    if isinstance(transport, _Resets):
        transport.reset()


def refused(error: ConnectionFailed | ChannelBroken) -> tuple[int, dict[str, str | None] | str]:
    """Return the status and the body that tell a local end why its channel cannot be reached."""
    if isinstance(error, ChannelBroken):
        return 410, {"outcome": error.outcome, "reason": error.reason, "code": error.code}
    return 503, str(error)
