"""The demo's processes as its parent sees them: started, listened to, killed. None of them outlives the stage."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from typing import IO, Any

import attrs
import trio

from ..records import define
from .exits import Exit, Failure

PATIENCE_SECONDS = 30.0
"""How long the demo waits for the next thing to happen before it gives up."""


@define(eq=False)
class Actor:
    """One process with its standard error."""

    role: str
    process: trio.Process
    errors: IO[bytes]

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL: the process gets no chance to say goodbye."""
        self.process.kill()

    def last_words(self) -> str:
        """Return the end of its standard error."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-20:])


@define(eq=False)
class Stage:
    """Starts processes within a nursery, and gets their messages in one order. Cancelling the nursery kills them."""

    nursery: trio.Nursery
    _sender: trio.MemorySendChannel[tuple[Actor, dict[str, Any]]] = attrs.field(init=False)
    _events: trio.MemoryReceiveChannel[tuple[Actor, dict[str, Any]]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sender, self._events = trio.open_memory_channel(0)

    async def start(self, role: str, *arguments: str) -> Actor:
        """Start one process of `demo_process.py`."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed by _listen)
        try:
            process: trio.Process = await self.nursery.start(
                partial(
                    trio.run_process,
                    [sys.executable, "-m", "iii_trio.cli.demo_process", role, *arguments],
                    stdin=subprocess.PIPE,  # held open: its end tells the process that we are gone
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    check=False,
                    deliver_cancel=_kill,
                    start_new_session=True,  # Ctrl-C in a terminal is for us alone
                )
            )
        # Without a process there is no listener that closes the file.
        except BaseException:
            errors.close()
            raise
        actor = Actor(role, process, errors)
        self.nursery.start_soon(self._listen, actor)
        return actor

    async def hear(self) -> tuple[Actor, dict[str, Any]]:
        """Wait for the next report of a process; `{"gone": …}` when it has ended. Raises Failure when nothing happens."""
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                return await self._events.receive()
        except trio.TooSlowError:
            raise Failure(Exit.FAILED, f"nothing happened for {PATIENCE_SECONDS:g} s; the demo gives up") from None

    async def expect(self, actor: Actor, key: str) -> Any:
        """Return the value of `key` in the process's next message. Raises Failure if anything else comes first."""
        who, event = await self.hear()
        # Any other message means that a process failed early.
        if who is not actor or key not in event:
            raise unexpected(who, event)
        return event[key]

    async def _listen(self, actor: Actor) -> None:
        assert actor.process.stdout is not None
        with actor.errors:
            unfinished = b""
            async for data in actor.process.stdout:
                *lines, unfinished = (unfinished + data).split(b"\n")
                for line in lines:
                    await self._sender.send((actor, json.loads(line)))
            await actor.process.wait()
            await self._sender.send((actor, {"gone": actor.process.returncode, "words": actor.last_words()}))


def unexpected(actor: Actor, event: dict[str, Any]) -> Failure:
    """Something happened that is not in the play."""
    # A process that still runs has no last words to show.
    if "gone" not in event:
        return Failure(Exit.FAILED, f"the {actor.role} said what nobody expected: {json.dumps(event)}")
    words = f"; it said:\n{event['words']}" if event["words"] else ""
    return Failure(Exit.FAILED, f"the {actor.role} process {actor.pid} ended with {event['gone']}{words}")


async def _kill(process: trio.Process) -> None:
    process.kill()
    await process.wait()
