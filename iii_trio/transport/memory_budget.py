"""One budget of memory for a whole engine. It counts the bytes of each peer, and evicts the largest holder.

Theory of operation. Each peer has an *account*. Each thing that grows at the will of a peer (a partial message, an outbox,
a pipe, registrations) has a *charge* in that account, and sets it to the bytes that it holds now. Setting a charge costs a
few additions. Holders set it once a read or once a write that had to wait, never once a frame.

Near the limit (`tight`) pipes take nothing more while something waits in them, so their writers wait. Beyond the limit the
account that holds most is *evicted*: its owner closes that peer's connection and lets go of its bytes. Other peers notice
nothing. An account without an eviction is counted, but never chosen.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, final

_TIGHT_PART: Final = 7 / 8
"""From this part of the limit on, the budget is tight."""


@final
class MemoryBudget:
    """Counts the bytes that all peers hold, and evicts the peer that holds most once they exceed `limit_bytes`."""

    def __init__(self, limit_bytes: float = math.inf) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.tight = False
        """Whether the limit is near: what can wait shall wait."""
        self._tight_from = limit_bytes * _TIGHT_PART
        self._accounts: dict[MemoryAccount, None] = {}
        self._evicting = False

    def open_account(self, name: str, evict: Callable[[str], object] | None = None) -> MemoryAccount:
        """Open an account for one peer.

        `evict` is called with a reason, within the step that exceeded the limit. It must release the peer's memory without
        waiting. None: this account is never evicted.
        """
        return MemoryAccount(self, name, evict)

    def open_share(self, name: str, part: float = 0.5) -> MemoryShare:
        """Open an account for a module that keeps data of workers, up to a part of the limit. It is never evicted."""
        return MemoryShare(self, self.open_account(name).charge(), part)

    def change_limit(self, limit_bytes: float) -> None:
        """Set another limit. Where more is held already, the largest accounts are evicted until it fits."""
        self.limit_bytes = limit_bytes
        self._tight_from = limit_bytes * _TIGHT_PART
        self.tight = self.used_bytes > self._tight_from
        before = -1
        while self.used_bytes > limit_bytes and self.used_bytes != before:
            before = self.used_bytes
            self._evict_largest()

    def change(self, account: MemoryAccount, delta: int) -> None:
        """Count `delta` bytes more of an account, and evict one if that is too much. For charges only."""
        before = account.used_bytes
        account.used_bytes = before + delta
        if not before:
            self._accounts[account] = None
        elif not account.used_bytes:
            del self._accounts[account]
        self.used_bytes += delta
        self.tight = self.used_bytes > self._tight_from
        if delta >= 0 and self.used_bytes > self.limit_bytes and not self._evicting:
            self._evict_largest()

    def usage(self) -> dict[str, int]:
        """Return the bytes of every account that holds any, by its name."""
        return {account.name: account.used_bytes for account in self._accounts}

    def _evict_largest(self) -> None:
        candidates = [account for account in self._accounts if account.evict is not None]
        if not candidates:
            return
        largest = max(candidates, key=lambda account: account.used_bytes)
        assert largest.evict is not None
        reason = (
            f"it holds {largest.used_bytes} bytes, most of the {self.limit_bytes:.0f} for all (limits.memory_bytes)"
        )
        self._evicting = True  # what the eviction leads to may set charges, too
        try:
            largest.evict(reason)
        finally:
            self._evicting = False


@final
class MemoryAccount:
    """The bytes that one peer makes the engine hold."""

    __slots__ = ("budget", "evict", "name", "used_bytes")

    def __init__(self, budget: MemoryBudget, name: str, evict: Callable[[str], object] | None) -> None:
        self.budget = budget
        self.name = name
        self.evict = evict
        self.used_bytes = 0

    def charge(self) -> MemoryCharge:
        """Make a charge, of nothing yet."""
        return MemoryCharge(self)


@final
class MemoryCharge:
    """What one holder (an outbox, a pipe) holds for its peer."""

    __slots__ = ("account", "bytes")

    def __init__(self, account: MemoryAccount) -> None:
        self.account = account
        self.bytes = 0

    def set(self, size: int) -> None:
        """Hold so many bytes from now on; 0 releases the charge. This may evict a peer, the holder's own included."""
        delta = size - self.bytes
        if delta:
            self.bytes = size
            self.account.budget.change(self.account, delta)


@final
class MemoryShare:
    """The part of the budget in which a module keeps data of workers.

    Its bytes count like all others. No peer can be evicted for them, so the module refuses data for which `limit_bytes` has
    no room. The rest of the budget stays for the peers.
    """

    def __init__(self, budget: MemoryBudget, charge: MemoryCharge, part: float) -> None:
        self._budget = budget
        self._charge = charge
        self._part = part

    @property
    def limit_bytes(self) -> float:
        """The largest size of all its data."""
        return self._budget.limit_bytes * self._part

    def set(self, size: int) -> None:
        """Hold so many bytes from now on. Bytes above the limit, which may have changed meanwhile, are not counted."""
        self._charge.set(int(min(size, self.limit_bytes)))


UNLIMITED: Final = MemoryBudget()
"""For holders that nobody counts: a worker's own ends, tests."""
UNLIMITED_SHARE: Final = UNLIMITED.open_share("modules without an engine")
"""For modules that run beside no engine."""
