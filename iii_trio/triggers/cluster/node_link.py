"""The link to one other node: a worker there, by which calls of this node's workers are passed on."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Final, final

import trio

from ...errors import CallError, ConnectionFailed
from ...lowlevel import relay_channel_ends, wait_link_lost
from ...report import get_logger
from ...state_machine import StateMachine
from ...transport.link import Address
from ...wire import RELAY, ChannelEnded, ErrorCode
from ...worker import Worker, open_worker
from .lease import Lease
from .link_state import LINK, LinkEvent, LinkState
from .passing import PassedCall, Passing
from .records import Key, Node
from .together import BothWays

LOGGER = get_logger("iii_trio.cluster")
_FIRST_PAUSE_SECONDS: Final = 0.2
_MAX_PAUSE_SECONDS: Final = 5.0
_FIRST_SECONDS: Final = 3.0
"""For so long a node that refuses the first connection is still expected, because it may have joined before it listens."""


@final
class NodeLink:
    """The link to one node. `run` is its whole life."""

    def __init__(
        self,
        node: Node,
        address: Address,
        here: str,
        lease: Lease,
        rng: Random,
        on_change: Callable[[NodeLink], object],
        on_channel_ended: Callable[[ChannelEnded], object],
        on_not_run: Callable[[NodeLink, PassedCall, CallError], object],
        on_silence: Callable[[NodeLink], object],
        ways: BothWays,
    ) -> None:
        self._ways = ways
        self._on_silence = on_silence
        self._on_channel_ended = on_channel_ended
        self.node = node
        self.address = address
        self.state = StateMachine(LINK, LinkState.DIALLING)
        self.worker: Worker | None = None
        """The worker at the other node, while the link is up."""
        self.problem = ""
        """Why the link is not up."""
        self.draining = False
        """Whether the other node takes no more calls."""
        self._expected = True
        self._first_until = trio.current_time() + _FIRST_SECONDS
        self._here = here
        self._lease = lease
        self._silence_seconds = lease.seconds
        self._rng = rng
        self._on_change = on_change
        self._on_not_run = on_not_run
        self._passing: Passing | None = self._new_passing()
        """The calls of one connection. Those for the first one may come before it, because the store knows of the node."""

    @property
    def up(self) -> bool:
        """Whether calls can be passed on."""
        return self.state.current is LinkState.UP and not self.draining

    @property
    def expected(self) -> bool:
        """Whether the first connection may still come. Calls wait for it, for three seconds or the time of one dial."""
        return self._expected and self.state.current in (LinkState.DIALLING, LinkState.WAITING)

    @property
    def described(self) -> str:
        """The state in a word."""
        return "draining" if self.draining and self.worker is not None else self.state.current.name.lower()

    @property
    def calls(self) -> int:
        """The calls that were passed on and have no answer."""
        return len(self._passing) if self._passing is not None else 0

    # --- the link

    async def run(self) -> None:
        """Keep the link up. If cancelled: it is closed, and the calls under way are answered with `invocation_stopped`."""
        pause, attempt = _FIRST_PAUSE_SECONDS, 0
        try:
            while True:
                attempt += 1
                # A name of its own for each attempt: the last one may still be known there.
                name = link_name(self._here, self._lease.node, self.node, attempt)
                try:
                    async with open_worker(self.address, name=name, features=(RELAY,)) as worker:
                        pause = _FIRST_PAUSE_SECONDS
                        await self._serve(worker)
                except ConnectionFailed as error:
                    self._down(LinkEvent.NOT_REACHED, str(error))
                # The jitter keeps many nodes from dialling a restarted one at the same moment.
                await trio.sleep(pause * (0.7 + 0.6 * self._rng.random()))
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
                self._advance(LinkEvent.WAITED)
        finally:
            self._down(LinkEvent.CLOSED, self.problem or "it has left the mesh")

    async def _serve(self, worker: Worker) -> None:
        relay_channel_ends(worker, self._on_channel_ended)
        self.worker, self.problem, self.draining = worker, "", False
        if self._passing is None:
            self._passing = self._new_passing()
        passing = self._passing
        passing.connect(worker).link.bracket(self._ways.answers)
        self._expected = False
        self._advance(LinkEvent.REACHED)
        LOGGER.info("the link to node %s (%s) is up", self.node.name, self.address)
        self._on_change(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._find_silence, worker, nursery.cancel_scope)
                nursery.start_soon(passing.send_waiting)
                await wait_link_lost(worker)
                nursery.cancel_scope.cancel(reason="the link was lost")
        finally:
            self._down(LinkEvent.LOST, self.problem or "the link was lost")

    async def _find_silence(self, worker: Worker, serving: trio.CancelScope) -> None:
        """End the link when the other node reads nothing for a lease's length. A kernel alone may look alive."""
        while True:
            await trio.sleep(self._silence_seconds / 3)
            with trio.move_on_after(self._silence_seconds):
                await worker.wait_registered()
                continue
            self.problem = f"it has been silent for {self._silence_seconds:g} s"
            self._on_silence(self)
            serving.cancel(reason=self.problem)

    async def wait_lost(self, why: str) -> None:
        """Give the node no more calls, and wait until it has closed the link, or for a lease at most.

        If cancelled: it is given no more calls all the same.
        """
        self.draining, self.problem = True, why
        self._on_change(self)
        with trio.move_on_after(self._silence_seconds):
            if self.worker is not None:
                await wait_link_lost(self.worker)

    def close(self, why: str) -> None:
        """Answer the calls under way, because the node is gone."""
        self.problem = why
        self._down(LinkEvent.CLOSED, why)

    def _down(self, event: LinkEvent, why: str) -> None:
        was_up = self.state.current is LinkState.UP
        self.problem = why
        self._advance(event)
        self.worker = None
        if was_up:
            LOGGER.warning("the link to node %s (%s) is down: %s", self.node.name, self.address, why)
        self._expected = self._expected and trio.current_time() < self._first_until
        # No answer can come any more, and their callers must not wait.
        unsent = [] if self.expected else self._stop_passing(f"node {self.node.name} is gone: {why}")
        if was_up or event is LinkEvent.NOT_REACHED:
            self._on_change(self)
        # After the change is told, so that they are not given to this link again.
        self._seek_others(unsent)

    def stop_waiting(self) -> None:
        """Have no call wait for the first connection any more, because this node drains."""
        if self.expected:
            self._expected = False
            self.problem = self.problem or "it has not answered yet"
            unsent = self._stop_passing(self.problem)
            self._on_change(self)
            self._seek_others(unsent)

    def _new_passing(self) -> Passing:
        return Passing(f"node {self.node.name}", self._not_run, self._ways)

    def _stop_passing(self, why: str) -> list[PassedCall]:
        passing, self._passing = self._passing, None
        return passing.stop(why) if passing is not None else []

    def _seek_others(self, unsent: list[PassedCall]) -> None:
        for passed in unsent:
            self._on_not_run(self, passed, unreachable(self.node.name, passed.key))

    def _advance(self, event: LinkEvent) -> None:
        if self.state.can(event):
            self.state.advance(event)

    # --- calls

    def pass_on(self, passed: PassedCall) -> None:
        """Have the call answered by the function there, once it is reached. Raises CallError, with no call made."""
        if self._passing is None:
            raise unreachable(self.node.name, passed.key)
        self._passing.pass_on(passed)

    def _not_run(self, passed: PassedCall, error: CallError) -> None:
        # It takes no more calls at all, so the others of its functions are sought elsewhere at once.
        if error.code == ErrorCode.ENGINE_DRAINING and not self.draining:
            self.draining = True
            self._on_change(self)
        self._on_not_run(self, passed, error)


def link_name(name: str, here: Node | None, there: Node, attempt: int) -> str:
    """Return the name of the link of a node `name`, as the node `there` knows it. `here` is None if it never joined."""
    return f"node {name} ({here.fence if here is not None else 0}.{there.fence}.{attempt})"


def fence_of_link(name: str, link: str) -> int:
    """Return the fencing number that the node `name` had when it opened the link of that name.

    0: it is not a link of that node, the node had not joined, or its version does not tell.
    """
    found = re.fullmatch(rf"node {re.escape(name)} \((\d+)\.\d+\.\d+\)", link)
    return int(found[1]) if found else 0


def unreachable(node: str, key: Key) -> CallError:
    """Return the error of a call for which no node can be reached."""
    text = f"Function {key.id} not found in namespace {key.namespace}: node {node}, which has it, cannot be reached."
    return CallError(ErrorCode.FUNCTION_NOT_FOUND, text, origin="engine")
