"""The one budget of memory: counted exactly, the largest peer evicted, all given back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from iii_trio.transport.memory_budget import MemoryAccount, MemoryBudget, MemoryCharge


class Peer:
    """A peer that lets go of everything when it is evicted, and notes why."""

    def __init__(self, budget: MemoryBudget, name: str, charges: int = 1) -> None:
        self.reasons: list[str] = []
        self.account: MemoryAccount = budget.open_account(name, self.evict)
        self.charges: list[MemoryCharge] = [self.account.charge() for _ in range(charges)]

    def evict(self, reason: str) -> None:
        self.reasons.append(reason)
        for charge in self.charges:
            charge.set(0)


def test_the_peer_that_holds_most_is_evicted_and_others_are_not() -> None:
    budget = MemoryBudget(1000)
    small, large, last = Peer(budget, "small"), Peer(budget, "large"), Peer(budget, "last")
    small.charges[0].set(300)
    large.charges[0].set(600)
    assert budget.tight and budget.usage() == {"small": 300, "large": 600}
    last.charges[0].set(101)
    assert not small.reasons and not last.reasons
    assert large.reasons == ["it holds 600 bytes, most of the 1000 for all (limits.memory_bytes)"]
    assert budget.used_bytes == 401 and not budget.tight


def test_exactly_the_limit_is_allowed() -> None:
    budget = MemoryBudget(1000)
    peer = Peer(budget, "peer")
    peer.charges[0].set(1000)
    assert not peer.reasons
    peer.charges[0].set(1001)
    assert len(peer.reasons) == 1 and budget.used_bytes == 0


def test_all_charges_of_a_peer_count_together() -> None:
    budget = MemoryBudget(1000)
    many, one = Peer(budget, "many", charges=5), Peer(budget, "one")
    for charge in many.charges:
        charge.set(110)
    one.charges[0].set(500)
    assert many.reasons and not one.reasons


def test_an_account_without_an_eviction_is_counted_and_never_chosen() -> None:
    budget = MemoryBudget(1000)
    queue, peer = budget.open_account("queue").charge(), Peer(budget, "peer")
    queue.set(900)
    peer.charges[0].set(101)
    assert len(peer.reasons) == 1 and budget.usage() == {"queue": 900}
    queue.set(2000)
    assert budget.used_bytes == 2000


def test_what_becomes_less_evicts_nobody() -> None:
    budget = MemoryBudget(1000)
    queue, peer = budget.open_account("queue").charge(), Peer(budget, "peer")
    peer.charges[0].set(500)
    queue.set(5000)
    assert len(peer.reasons) == 1
    queue.set(4000)
    peer.charges[0].set(0)
    assert len(peer.reasons) == 1


def test_a_lower_limit_evicts_until_the_rest_fits() -> None:
    budget = MemoryBudget(1000)
    peers = [Peer(budget, str(size)) for size in (100, 200, 300)]
    for peer in peers:
        peer.charges[0].set(int(peer.account.name))
    budget.change_limit(150)
    assert [len(peer.reasons) for peer in peers] == [0, 1, 1]
    assert budget.used_bytes == 100 and not budget.tight
    budget.change_limit(100)
    assert budget.tight and not peers[0].reasons


def test_a_peer_that_cannot_be_evicted_does_not_loop_and_takes_nobody_with_it() -> None:
    budget = MemoryBudget(100)
    stubborn: list[str] = []
    charge, small = budget.open_account("stubborn", stubborn.append).charge(), Peer(budget, "small")
    small.charges[0].set(10)
    charge.set(1000)
    budget.change_limit(50)
    assert len(stubborn) == 2 and not small.reasons


def test_taken_and_given_back_ten_thousand_times_it_holds_nothing() -> None:
    budget = MemoryBudget(10_000)
    for n in range(10_000):
        peer = Peer(budget, f"peer {n}", charges=2)
        peer.charges[0].set(9_000)
        peer.charges[1].set(1_000)
        assert budget.used_bytes == 10_000
        peer.charges[0].set(0)
        peer.charges[1].set(0)
        assert not peer.reasons
    assert budget.used_bytes == 0 and budget.usage() == {} and not budget.tight


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 400)), max_size=60))
def test_the_counts_are_the_sums_whatever_happens(steps: list[tuple[int, int, int]]) -> None:
    budget = MemoryBudget(1000)
    peers = [Peer(budget, str(n), charges=2) for n in range(4)]
    for peer, charge, size in steps:
        peers[peer].charges[charge].set(size)
        held = {each.account.name: sum(charge.bytes for charge in each.charges) for each in peers}
        assert budget.usage() == {name: size for name, size in held.items() if size}
        assert budget.used_bytes == sum(held.values()) <= 1000
        assert budget.tight == (budget.used_bytes > 875)
