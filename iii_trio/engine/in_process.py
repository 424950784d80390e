"""An engine's address for workers in the same process: memory links, and ends on the engine's own pipes."""

from __future__ import annotations

from typing import final

import trio

from ..core.channels import Refused
from ..core.session import WorkerSession
from ..errors import AttachRefused, ConnectionFailed
from ..transport.link import Identity, Link, ReadingEnd, WritingEnd
from ..transport.memory_link import MemoryLink
from ..transport.refusal import refusal_of
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
        end = LocalReader(self._shell, attached, holder.label if holder else "in this process")
        attached.reader = end
        try:
            task_status.started(end)
            await end.wait_ended()
        finally:
            end.lost()

    def _attach(
        self, ref: Ref, identity: Identity | None, direction: Direction
    ) -> tuple[WorkerSession | None, AttachedChannel]:
        shell = self._shell
        if ref.direction is not direction:
            raise AttachRefused(403, f"this ref is for the channel's other direction: {ref.direction}")
        holder = None
        if identity is not None:
            holder = shell.hub.by_secret(identity.worker_id, identity.channel_secret)
            if holder is None:
                raise AttachRefused(403, "the session is unknown, or the secret is not its own")
        attached = shell.attach(ref, holder, identity.invocation_id if identity is not None else None)
        if isinstance(attached, Refused):
            raise refusal_of(attached.status, attached.body)
        return holder, attached
