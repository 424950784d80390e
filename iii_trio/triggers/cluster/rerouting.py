"""Calls that a node has refused unread, because its function has gone or it drains. Another function is sought for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, final

import trio

from ...errors import CallError
from ...wire import ErrorCode
from .node_link import NodeLink
from .passing import PassedCall
from .proxies import Proxies

_MAX_TRIES: Final = 7
_SEEK_SECONDS: Final = 0.01
"""The first pause before a call whose function has gone from its node is tried again. It doubles each time."""


@final
class Rerouting:
    """Finds whoever has taken over a function, and has it answer the call."""

    def __init__(
        self,
        proxies: Proxies,
        links: Mapping[str, NodeLink],
        nursery: trio.Nursery,
        wait_changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._proxies = proxies
        self._links = links
        self._nursery = nursery
        self._wait_changed = wait_changed

    def not_run(self, link: NodeLink, passed: PassedCall, error: CallError) -> None:
        """Seek another function for a call that the node of this link has refused."""
        if passed.tries > _MAX_TRIES:
            passed.call.fail(error)
            return
        scope = trio.CancelScope()
        passed.call.when_cancelled(lambda reason: scope.cancel(reason=reason))
        self._nursery.start_soon(self._seek, link, passed, scope)

    async def _seek(self, link: NodeLink, passed: PassedCall, scope: trio.CancelScope) -> None:
        """Wait until the directory knows better, but not for long, and have whoever took over answer the call.

        A node that is to take over may not know of it yet, and is asked again.
        """
        name, key = link.node.name, passed.key
        with scope:
            with trio.move_on_after(_SEEK_SECONDS * 2**passed.tries):
                while self._proxies.node_of(key) == name:
                    await self._wait_changed()
        if scope.cancelled_caught:
            passed.call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))
            return
        other = self._proxies.node_of(key)
        try:
            # A worker of this engine may have taken over. If none has, the engine says so.
            if other is None:
                self._proxies.call_here(passed)
            else:
                self._links[other].pass_on(passed)
        except CallError as refused:
            passed.call.fail(refused)
