"""An engine's address for workers in the same process: memory links, and ends on the engine's own pipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import final

import trio

from ..core.channels import Refused
from ..core.session import WorkerSession
from ..errors import AttachRefused, ConnectionFailed
from ..transport.link import Identity, Link, ReadingEnd, WritingEnd
from ..transport.memory_link import MemoryLink
from ..transport.refusal import refusal_of
from ..transport.routes import Passage
from ..wire import Direction, Ref
from .attached_channel import AttachedChannel
from .local_ends import LocalReader, LocalWriter
from .shell import Shell


@final
class InProcess:
    """An `Address`: this engine, from within its process."""

    def __init__(self, shell: Shell, *, internal: bool = False) -> None:
        self._shell = shell
        self._internal = internal

    def __str__(self) -> str:
        return f"the engine '{self._shell.config.name}' in this process"

    async def connect(self, *, task_status: trio.TaskStatus[Link]) -> None:
        shell = self._shell
        if shell.closed:
            raise ConnectionFailed(f"{self} is closed")
        session: WorkerSession | None = None

        def on_messages(messages: list[bytes]) -> None:
            if session is not None:
                shell.on_messages(session, messages)

        def on_close(reason: str) -> None:
            if session is not None:
                shell.disconnected(session, reason, left=True)

        link = MemoryLink(on_messages, on_close, gathered=self._internal)
        session = shell.connected(link, peer=None, in_process=True, internal=self._internal)
        try:
            task_status.started(link)
            await link.serve()
        finally:
            link.hang_up(None, "the worker's task was cancelled")
            shell.disconnected(session, link.ended.reason if link.ended else "")

    async def attach_writer(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[WritingEnd]
    ) -> None:
        holder, attached = self._attach(ref, identity, Direction.WRITE)
        if not isinstance(attached, AttachedChannel):
            with self._held(ref, holder):
                await attached.attach_writer(ref, task_status=task_status)
            return
        end = LocalWriter(self._shell, attached, holder.label if holder else "in this process")
        attached.writer = end
        try:
            task_status.started(end)
            await end.wait_ended()
        finally:
            end.lost()

    async def attach_reader(
        self, ref: Ref, identity: Identity | None, *, task_status: trio.TaskStatus[ReadingEnd]
    ) -> None:
        holder, attached = self._attach(ref, identity, Direction.READ)
        if not isinstance(attached, AttachedChannel):
            with self._held(ref, holder):
                await attached.attach_reader(ref, task_status=task_status)
            return
        end = LocalReader(self._shell, attached, holder.label if holder else "in this process")
        attached.reader = end
        try:
            task_status.started(end)
            await end.wait_ended()
        finally:
            end.lost()

    def watch_channel(self, channel_id: str, changed: Callable[[], object] | None) -> None:
        """As `WatchesChannels` says."""
        self._shell.watch_channel(channel_id, changed)

    def _attach(
        self, ref: Ref, identity: Identity | None, direction: Direction
    ) -> tuple[WorkerSession | None, AttachedChannel | Passage]:
        shell = self._shell
        if ref.direction is not direction:
            raise AttachRefused(403, f"this ref is for the channel's other direction: {ref.direction}")
        holder = None
        if identity is not None:
            holder = shell.hub.by_secret(identity.worker_id, identity.channel_secret)
            if holder is None:
                raise AttachRefused(403, "the session is unknown, or the secret is not its own")
        attached = shell.attach(ref, holder, identity.invocation_id if identity is not None else None)
        if isinstance(attached, Refused) and attached.status == 404:
            passage = shell.passages.find(ref.channel_id)
            if passage is not None:
                return holder, passage
        if isinstance(attached, Refused):
            raise refusal_of(attached.status, attached.body)
        return holder, attached

    @contextmanager
    def _held(self, ref: Ref, holder: WorkerSession | None) -> Iterator[None]:
        """Hold an end of a channel at another engine, until the holder's session or that engine is lost."""
        with trio.CancelScope() as scope:
            with self._shell.passages.hold(ref.channel_id, holder, lambda reason: scope.cancel(reason=reason)):
                yield
