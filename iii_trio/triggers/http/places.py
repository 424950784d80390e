"""Connections and requests at one time: places that all clients share. The last are kept for addresses that have few.

Without that, a few clients could shut out all others. Clients without an address (unix sockets), or on the same machine,
are not told apart, because a proxy there brings the requests of many.
"""

from __future__ import annotations

from collections import deque
from ipaddress import IPv6Address, ip_address
from typing import Final, final

import trio

_KEPT_PART: Final = 8
"""One place of so many is kept for addresses that have few."""


def address_of(peer: str | None) -> str | None:
    """Return the address by which a client's places are counted. None: they are not counted.

    A client of IPv6 usually has a whole /64 network, so that is its address.
    """
    if peer is None:
        return None
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None:
            return None if address.is_loopback else str(IPv6Address(int(address) >> 64 << 64))
        address = mapped
    return None if address.is_loopback else str(address)


@final
class Places:
    """A number of places. One that comes free goes to the address whose turn it is."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.taken = 0
        self._held: dict[str, int] = {}
        self._waiting: dict[str | None, deque[trio.Event]] = {}
        """The requests that wait, by address. The next turn is that of the first address."""

    def change_total(self, total: int) -> None:
        """Have another number of places from now on. Places that are taken stay so."""
        self._total = total
        self._grant()

    def take(self, address: str | None) -> bool:
        """Take a place, and return whether this address may have one now."""
        if not self._may_take(address):
            return False
        self.taken += 1
        if address is not None:
            self._held[address] = self._held.get(address, 0) + 1
        return True

    async def wait(self, address: str | None, seconds: float) -> bool:
        """Wait for a place; return False if it took too long. If cancelled: no place is taken."""
        granted = trio.Event()
        line = self._waiting.setdefault(address, deque())
        line.append(granted)
        try:
            with trio.move_on_after(seconds):
                await granted.wait()
                return True
        except BaseException:
            # It may be granted in the step in which its waiting is cancelled.
            if granted.is_set():
                self.give_back(address)
            raise
        finally:
            if not granted.is_set():
                line.remove(granted)
                if not line:
                    del self._waiting[address]
        return granted.is_set()

    def give_back(self, address: str | None) -> None:
        """Give a place back. It goes to a request that waits, if there is one."""
        self.taken -= 1
        if address is not None:
            left = self._held[address] - 1
            if left:
                self._held[address] = left
            else:
                del self._held[address]
        if self._waiting:
            self._grant()

    def _may_take(self, address: str | None) -> bool:
        if self.taken >= self._total:
            return False
        if address is None or self.taken < self._total - self._total // _KEPT_PART:
            return True
        # One share more than there are addresses, so that an address which comes now finds a place.
        return self._held.get(address, 0) < self._total // (len(self._held) + 1)

    def _grant(self) -> None:
        """Give free places to requests that wait, one address after the other."""
        is_any_granted = True
        while is_any_granted:
            is_any_granted = False
            for address in list(self._waiting):
                if not self.take(address):
                    continue
                is_any_granted = True
                line = self._waiting.pop(address)
                line.popleft().set()
                # Its next turn comes behind those of all others.
                if line:
                    self._waiting[address] = line
