"""The channel ends that a worker holds, from attaching to the last close."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast, final

import trio

from ..errors import ChannelBroken, ConnectionFailed, IIIError, MisuseError, OutcomeName
from ..report import ContainedLogger
from ..transport.link import Address, EndReason, Identity
from ..wire import FEATURE, ChannelEnded, Direction, Outcome, Ref
from .calls import WorkerSession
from .ends import ChannelReader, ChannelResult, ChannelWriter
from .outcomes import Outcomes
from .payload import End


class _Attached:
    """The task status of `Address.attach_…`. It gives an end to the object that the user holds."""

    def __init__(self, end: End) -> None:
        self._end = end

    def started(self, attached: Any) -> None:
        self._end._started(attached)


@final
class EndKeeper:
    """Attaches and holds the ends of one worker. It is their `EndOwner`."""

    def __init__(
        self,
        address: Address,
        connections: trio.Nursery,
        current_session: Callable[[], WorkerSession | None],
        wait_session: Callable[[], Awaitable[WorkerSession]],
        logger: ContainedLogger,
    ) -> None:
        self._address = address
        self._connections = connections
        self._current_session = current_session
        self._wait_session = wait_session
        self._logger = logger
        self._outcomes = Outcomes()
        self._held: dict[str, list[End]] = {}
        """The ends that are attached, or being attached, by their channel."""
        self._finishing: dict[ChannelWriter, trio.CancelScope] = {}
        self._finished = trio.lowlevel.ParkingLot()
        self._closed = False
        self.on_ended: Callable[[ChannelEnded], object] | None = None
        """Called with the news of each channel that ended, for a relay."""

    def open(self, ref: Ref, invocation_id: str | None) -> End:
        """Make the live end that a ref names, for the call with this invocation id."""
        kind = ChannelReader if ref.direction is Direction.READ else ChannelWriter
        return kind(self, ref, invocation_id)

    def hold(self, end: End) -> None:
        """Start the task that attaches and holds an end."""
        if self._closed:
            end._not_attached(ConnectionFailed(f"the worker has left {self._address}"))
            return
        self._held.setdefault(end.channel_id, []).append(end)
        self._connections.start_soon(self._hold, end)

    def _identity(self, invocation_id: str | None) -> Identity | None:
        """Return this session's identity, or None if the engine knows no holders (clause C8.2)."""
        session = self._current_session()
        if session is None or not session.supports_extensions or session.channel_secret is None:
            return None
        return Identity(session.worker_id, session.channel_secret, invocation_id)

    async def wait_outcome(self, channel_id: str) -> ChannelResult:
        """Wait until a channel that this worker owns, or holds an end of, has ended for both of its ends."""
        await trio.lowlevel.checkpoint()
        if channel_id in self._outcomes:
            return self._outcomes[channel_id]
        session = await self._wait_session()
        if not session.supports_extensions:
            raise MisuseError(f"{self._address} does not tell how channels end: it has not announced {FEATURE}")
        return await self._outcomes.wait(session, channel_id)

    def on_channel_ended(self, session: WorkerSession, message: ChannelEnded) -> None:
        """Pass the end of a channel on to its ends and to the tasks that wait for it."""
        if self.on_ended is not None:
            self.on_ended(message)
        result = ChannelResult(cast(OutcomeName, message.outcome), message.reason)
        self._outcomes.add(session, message.channel_id, result)
        try:
            ended = EndReason(Outcome(message.outcome), message.reason, message.code)
        except ValueError:
            return  # an outcome of a newer engine: the end's own socket will tell
        for end in list(self._held.get(message.channel_id, ())):
            end._on_channel_end(ended)

    def finish_later(self, writer: ChannelWriter) -> None:
        """Close a writer cleanly, in a task that outlives its call."""
        self._finishing[writer] = trio.CancelScope()
        self._connections.start_soon(self._finish, writer)

    async def wait_finished(self) -> None:
        """Wait until the writers of finished calls are closed. If cancelled: nothing changes."""
        while self._finishing:
            await self._finished.park()

    def close(self) -> None:
        """End all ends by force, and attach no more."""
        self._closed = True
        for end in [end for ends in self._held.values() for end in ends]:
            end._end_by_force("the worker left")
        for scope in self._finishing.values():
            scope.cancel(reason="the worker left")

    async def _hold(self, end: End) -> None:
        ref, identity = end._ref, self._identity(end._invocation_id)
        try:
            if isinstance(end, ChannelWriter):
                await self._address.attach_writer(ref, identity, task_status=cast(Any, _Attached(end)))
            else:
                await self._address.attach_reader(ref, identity, task_status=cast(Any, _Attached(end)))
        except (IIIError, trio.BrokenResourceError) as error:
            end._not_attached(error)
        finally:
            ends = self._held[end.channel_id]
            ends.remove(end)
            if not ends:
                del self._held[end.channel_id]

    async def _finish(self, writer: ChannelWriter) -> None:
        try:
            with self._finishing[writer]:
                await writer.aclose()
        except (ChannelBroken, ConnectionFailed, trio.BusyResourceError, trio.ClosedResourceError) as error:
            self._logger.info("a stream that a handler wrote did not end well: %s", error)
        finally:
            del self._finishing[writer]
            self._finished.unpark_all()
