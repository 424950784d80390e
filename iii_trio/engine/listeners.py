"""The listeners of an engine, from binding over reloads to the end."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Iterable, Sequence
from typing import final

import msgspec
import trio

from ..config import Listener
from ..errors import ConfigError, ListenFailed
from ..transport.listen import ListeningSocket
from .admit import handle_connection
from .policy import ListenerPolicy
from .policy_change import update_policy
from .shell import Shell


class BoundListener(msgspec.Struct, eq=False):
    """One listener with its sockets. Its policy may change while they are open."""

    listener: Listener
    policy: ListenerPolicy
    sockets: list[ListeningSocket]

    def close(self) -> None:
        """Stop listening. Open connections stay."""
        for listening in self.sockets:
            listening.close()

    @property
    def urls(self) -> list[str]:
        return [listening.url(secure=self.policy.ssl_context is not None) for listening in self.sockets]


@final
class Listeners:
    """All listeners of one engine. Connections are served in `nursery`."""

    def __init__(self, shell: Shell, nursery: trio.Nursery) -> None:
        self._shell = shell
        self._nursery = nursery
        self._open: list[BoundListener] = []
        self._adopted = False  # the parent process opened the sockets

    async def open(self, listeners: Iterable[Listener]) -> list[str]:
        """Bind further listeners, and return their addresses. Raises ListenFailed and ConfigError, with none bound."""
        self._check_open()
        bound = await _bind(listeners)
        self._begin(bound)
        return [url for each in bound for url in each.urls]

    async def adopt(self, listeners: Sequence[Listener], descriptors: Sequence[int]) -> list[str]:
        """Listen at sockets that are open already, with the settings of one listener for all, or one for each, in order.

        Raises ListenFailed and ConfigError.
        """
        self._check_open()
        if len(listeners) not in (1, len(descriptors)):
            raise ConfigError(
                f"{len(descriptors)} sockets were handed over and {len(listeners)} listeners are configured: "
                "configure one for all of them, or one for each"
            )
        shares = [descriptors] if len(listeners) == 1 else [[each] for each in descriptors]
        bound = []
        for listener, share in zip(listeners, shares, strict=True):
            policy = await _policy(listener)
            bound.append(BoundListener(listener, policy, [ListeningSocket.adopt(each) for each in share]))
        self._adopted = True
        self._begin(bound)
        return [url for each in bound for url in each.urls]

    async def change(self, listeners: Iterable[Listener]) -> list[str]:
        """Replace all listeners, and return their addresses. A listener with the same place keeps its socket.

        Sessions with a token that the new policy does not know are closed. Raises as `open` does, with nothing changed.
        """
        self._check_open()
        listeners = list(listeners)
        if self._adopted and len(listeners) != len(self._open):
            raise ConfigError(
                f"there were {len(self._open)} listeners for the sockets that were handed over, and now are "
                f"{len(listeners)}: restart to change that"
            )
        left = list(self._open)
        kept: list[tuple[BoundListener, Listener, ListenerPolicy]] = []
        new: list[Listener] = []
        for listener in listeners:
            same = next((each for each in left if self._adopted or each.listener.place == listener.place), None)
            if same is None:
                new.append(listener)
            else:
                left.remove(same)
                kept.append((same, listener, await _policy(listener)))
        bound = await _bind(new)
        for each, listener, policy in kept:
            if listener.mode != each.listener.mode:
                for listening in each.sockets:
                    listening.set_mode(listener.mode)
            old, each.listener, each.policy = each.policy, listener, policy
            policy.counts = old.counts
            update_policy(self._shell, old, policy)
        for each in left:
            each.close()
            self._open.remove(each)
            del self._shell.at_close[each]
        self._begin(bound)
        return [url for each in self._open for url in each.urls]

    def _check_open(self) -> None:
        if self._shell.closed:
            raise ListenFailed(
                f"the engine '{self._shell.config.name}' in this process is closed; listen within its block"
            )

    def _begin(self, bound: list[BoundListener]) -> None:
        try:
            self._check_open()  # it may have been closed while the listeners were bound
        except ListenFailed:
            for each in bound:
                each.close()
            raise
        for each in bound:
            self._open.append(each)
            self._shell.at_close[each] = each.close
            for listening in each.sockets:
                self._nursery.start_soon(self._accept, listening, each)

    async def _accept(self, listening: ListeningSocket, bound: BoundListener) -> None:
        def accepted(connection: socket.socket) -> Awaitable[None]:
            return handle_connection(self._shell, connection, bound.policy)

        await listening.accept_each(accepted, self._nursery)


async def _policy(listener: Listener) -> ListenerPolicy:
    if listener.tls is None and (listener.auth is None or listener.auth.token_file is None):
        return ListenerPolicy.from_config(listener)
    # There are files to be read, and one of a network that is gone may block.
    return await trio.to_thread.run_sync(ListenerPolicy.from_config, listener, abandon_on_cancel=True)


async def _bind(listeners: Iterable[Listener]) -> list[BoundListener]:
    bound: list[BoundListener] = []
    try:
        for listener in listeners:
            policy = await _policy(listener)
            if listener.unix is not None:
                sockets = [ListeningSocket.bind_unix(listener.unix, listener.mode)]
            else:
                sockets = await ListeningSocket.bind(listener.host, listener.port)
            bound.append(BoundListener(listener, policy, sockets))
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound
