"""Where an engine listens, from the first binding over reloads to the end."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import final

import attrs
import trio

from ..config import Listener
from ..errors import ConfigError
from ..transport.listen import ListeningSocket
from .admit import welcome
from .door import Door
from .engine import Shell


@attrs.define(eq=False)
class Entrance:
    """One listener with its sockets; its door may be changed while they are open."""

    listener: Listener
    door: Door
    sockets: list[ListeningSocket]

    def close(self) -> None:
        """Listen no more; who came in stays."""
        for listening in self.sockets:
            listening.close()

    @property
    def urls(self) -> list[str]:
        return [listening.url(secure=self.door.ssl_context is not None) for listening in self.sockets]


@final
class Entrances:
    """Where this engine listens. Connections are served in `nursery`."""

    def __init__(self, shell: Shell, nursery: trio.Nursery) -> None:
        self._shell = shell
        self._nursery = nursery
        self._open: list[Entrance] = []
        self._adopted = False  # where we listen was said by whoever started this process

    async def open(self, listeners: Iterable[Listener]) -> list[str]:
        """Listen at these, too; the bound addresses. Raises ConnectionFailed and ConfigError; nothing is bound then."""
        entrances = await _bind(listeners)
        self._begin(entrances)
        return [url for entrance in entrances for url in entrance.urls]

    async def adopt(self, listeners: Sequence[Listener], descriptors: Sequence[int]) -> list[str]:
        """Listen at sockets that are open already, as these listeners say: one for all, or one for each, in order.

        Raises ConnectionFailed and ConfigError.
        """
        if len(listeners) not in (1, len(descriptors)):
            raise ConfigError(
                f"{len(descriptors)} sockets were handed over and {len(listeners)} listeners are configured: "
                "configure one for all of them, or one for each"
            )
        shares = [descriptors] if len(listeners) == 1 else [[each] for each in descriptors]
        entrances = []
        for listener, share in zip(listeners, shares, strict=True):
            door = await _door(listener)
            entrances.append(Entrance(listener, door, [ListeningSocket.adopt(each) for each in share]))
        self._adopted = True
        self._begin(entrances)
        return [url for entrance in entrances for url in entrance.urls]

    async def change(self, listeners: Iterable[Listener]) -> list[str]:
        """Listen at these and nowhere else; where it stays the same place, the socket stays, and only its door is new.

        Who came in with a token that its listener no longer knows is sent away. Raises as `open` does; nothing is
        changed then.
        """
        listeners = list(listeners)
        if self._adopted and len(listeners) != len(self._open):
            raise ConfigError(
                f"there were {len(self._open)} listeners for the sockets that were handed over, and now are "
                f"{len(listeners)}: restart to change that"
            )
        left = list(self._open)
        kept: list[tuple[Entrance, Listener, Door]] = []
        new: list[Listener] = []
        for listener in listeners:
            same = next((each for each in left if self._adopted or each.listener.place == listener.place), None)
            if same is None:
                new.append(listener)
            else:
                left.remove(same)
                kept.append((same, listener, await _door(listener)))
        entrances = await _bind(new)
        for entrance, listener, door in kept:
            old, entrance.listener, entrance.door = entrance.door, listener, door
            door.crowd = old.crowd
            self._shell.change_door(old, door)
        for entrance in left:
            entrance.close()
            self._open.remove(entrance)
            del self._shell.at_close[entrance]
        self._begin(entrances)
        return [url for entrance in self._open for url in entrance.urls]

    def _begin(self, entrances: list[Entrance]) -> None:
        for entrance in entrances:
            self._open.append(entrance)
            self._shell.at_close[entrance] = entrance.close
            for listening in entrance.sockets:
                self._nursery.start_soon(self._accept, listening, entrance)

    async def _accept(self, listening: ListeningSocket, entrance: Entrance) -> None:
        async def accepted(connection: socket.socket) -> None:
            await welcome(self._shell, connection, entrance.door)

        await listening.accept_each(accepted, self._nursery)


async def _door(listener: Listener) -> Door:
    if listener.tls is None and (listener.auth is None or listener.auth.token_file is None):
        return Door.of(listener)
    return await trio.to_thread.run_sync(Door.of, listener)  # there are files to be read


async def _bind(listeners: Iterable[Listener]) -> list[Entrance]:
    entrances: list[Entrance] = []
    try:
        for listener in listeners:
            door = await _door(listener)
            if listener.unix is not None:
                sockets = [ListeningSocket.bind_unix(listener.unix)]
            else:
                sockets = await ListeningSocket.bind(listener.host, listener.port)
            entrances.append(Entrance(listener, door, sockets))
    except BaseException:
        for entrance in entrances:
            entrance.close()
        raise
    return entrances
