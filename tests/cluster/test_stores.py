"""What every store promises, of Valkey and of the model alike."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import pytest
import trio
import valkey

from iii_trio.triggers.cluster.directory import Directory
from iii_trio.triggers.cluster.memory_store import MemoryMesh
from iii_trio.triggers.cluster.records import FUNCTION, Entry, EntryKind, Key
from iii_trio.triggers.cluster.settings import StoreUrl
from iii_trio.triggers.cluster.store import Fenced, MeshStore, NodeTaken, OtherLayout, StoreUnavailable
from iii_trio.triggers.cluster.valkey_store import open_valkey_store

A = Key(FUNCTION, "default", "a::one")
B = Key(FUNCTION, "other", 'b::"two"')


@pytest.fixture(params=["model", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[MeshStore]:
    if request.param == "model":
        yield MemoryMesh().way()
    else:
        url = request.getfixturevalue("valkey")
        async with open_valkey_store(StoreUrl.parse(f"{url}/{uuid.uuid4()}")) as opened:
            yield opened


async def lines(store: MeshStore, cursor: str, n: int) -> list[Entry]:
    found: list[Entry] = []
    with trio.fail_after(5):
        while len(found) < n:
            more, cursor = await store.follow(cursor)
            found += more
    return found


async def test_what_a_node_offers_is_in_the_snapshot_and_in_the_log(store: MeshStore) -> None:
    empty = await store.snapshot()
    node = await store.join("n1", "ws://one", "1.0", 5)
    await store.publish(node, 1, {A: b'{"worker":"w"}', B: b"{}"})
    await store.publish(node, 2, {B: None})
    after = await store.snapshot()
    assert after.nodes == {"n1": node}
    assert {key: offer.row for key, offer in after.offers["n1"].items()} == {A: b'{"worker":"w"}'}
    directory, followed = Directory(), Directory()
    directory.replace(after)
    followed.replace(empty)
    found = await lines(store, empty.cursor, 3)
    assert [entry.kind for entry in found] == [EntryKind.JOINED, EntryKind.OFFERS, EntryKind.OFFERS]
    assert all(followed.apply(entry) is not None for entry in found)
    assert followed.nodes == directory.nodes and followed.offers(A) == directory.offers(A)
    assert followed.position.number == directory.position.number and not followed.offers(B)


@attrs.frozen
class OtherVersion:
    """A store that a node of another version has reached before."""

    store: MeshStore
    stay: Callable[[float], Awaitable[None]]
    """Has nodes of another layout be there for so many seconds."""


@pytest.fixture(params=["model", "valkey"])
async def other_version(request: pytest.FixtureRequest) -> AsyncIterator[OtherVersion]:
    if request.param == "model":
        mesh = MemoryMesh()

        async def stay_in_model(seconds: float) -> None:
            mesh.layout = ("iii-trio-2", "9.9", trio.current_time() + seconds)

        yield OtherVersion(mesh.way(), stay_in_model)
    else:
        url = StoreUrl.parse(f"{request.getfixturevalue('valkey')}/{uuid.uuid4()}")
        async with open_valkey_store(url) as opened:

            async def stay(seconds: float) -> None:
                with valkey.Valkey(url.host, url.port) as client:
                    client.set(f"iii-trio:{{{url.mesh}}}:layout", "iii-trio-2 9.9", px=int(seconds * 1000))

            yield OtherVersion(opened, stay)


async def test_N31_a_node_of_another_layout_is_refused_while_the_others_are_there(other_version: OtherVersion) -> None:
    store = other_version.store
    await other_version.stay(0.2)
    with pytest.raises(OtherLayout) as refused:
        await store.join("n1", "ws://one", "1.0", 5)
    assert (refused.value.layout, refused.value.version) == ("iii-trio-2", "9.9")
    assert (await store.snapshot()).nodes == {}
    await trio.sleep(0.25)
    node = await store.join("n1", "ws://one", "1.0", 5)
    await store.join("n2", "ws://two", "1.1", 0.2)
    # The mesh is held for this layout now, and a lease that ends meanwhile does not change that.
    await trio.sleep(0.3)
    await store.renew(node, 5, sweep=True)
    # The nodes were away for so long that others came.
    await other_version.stay(5)
    with pytest.raises(OtherLayout):
        await store.renew(node, 5, sweep=True)


async def test_a_row_that_changes_keeps_its_place(store: MeshStore) -> None:
    one, two = await store.join("n1", "ws://one", "", 5), await store.join("n2", "ws://two", "", 5)
    before = await store.snapshot()
    directory = Directory()
    directory.replace(before)
    await store.publish(one, 3, {A: b'{"description":"1"}'})
    await store.publish(two, 4, {A: b'{"description":"2"}'})
    await store.publish(one, 5, {A: b'{"description":"3"}'})
    for entry in await lines(store, before.cursor, 3):
        directory.apply(entry)
    fresh = Directory()
    fresh.replace(await store.snapshot())
    assert directory.offers(A) == fresh.offers(A)
    assert [(name, offer.row) for name, offer in fresh.offers(A)] == [
        ("n1", b'{"description":"3"}'),
        ("n2", b'{"description":"2"}'),
    ]


async def test_a_lease_that_runs_out_is_swept_with_all_that_the_node_offered(store: MeshStore) -> None:
    gone = await store.join("gone", "ws://one", "", 5)
    here = await store.join("here", "ws://two", "", 5)
    await store.publish(gone, 6, {A: b"1"})
    await store.renew(gone, 0.01, sweep=False)  # only now, so that a busy machine has published in time
    await trio.sleep(0.1)
    await store.renew(here, 5, sweep=False)
    assert "gone" in (await store.snapshot()).nodes  # nothing has noticed yet
    await store.renew(here, 5, sweep=True)
    snapshot = await store.snapshot()
    assert set(snapshot.nodes) == {"here"} and not snapshot.offers.get("gone")
    for write in (store.renew(gone, 5, sweep=False), store.publish(gone, 7, {A: b"2"})):
        with pytest.raises(Fenced):
            await write


async def test_a_lease_that_ran_out_unnoticed_can_be_renewed(store: MeshStore) -> None:
    node = await store.join("n1", "ws://one", "", 5)
    await store.publish(node, 8, {A: b"1"})
    await store.renew(node, 0.01, sweep=False)
    await trio.sleep(0.1)
    await store.renew(node, 5, sweep=False)
    await store.publish(node, 9, {B: b"2"})
    assert set((await store.snapshot()).offers["n1"]) == {A, B}


async def test_a_name_is_taken_from_the_same_address_only_and_the_number_rises(store: MeshStore) -> None:
    first = await store.join("n1", "ws://one", "", 5)
    await store.publish(first, 10, {A: b"1"})
    with pytest.raises(NodeTaken, match="ws://one"):
        await store.join("n1", "ws://elsewhere", "", 5)
    second = await store.join("n1", "ws://one", "", 5)
    assert second.fence > first.fence
    assert not (await store.snapshot()).offers.get("n1")  # what the first one offered went with it
    with pytest.raises(Fenced):
        await store.publish(first, 11, {A: b"1"})
    await store.leave(first)  # it has nothing left to give up
    assert (await store.snapshot()).nodes == {"n1": second}
    await store.leave(second)
    assert not (await store.snapshot()).nodes


async def test_a_write_that_arrives_behind_a_later_one_is_ignored(store: MeshStore) -> None:
    node = await store.join("n1", "ws://one", "", 5)
    await store.publish(node, 2, {A: b"2"})
    await store.publish(node, 1, {A: b"1", B: b"1"})
    assert {key: offer.row for key, offer in (await store.snapshot()).offers["n1"].items()} == {A: b"2"}
    again = await store.join("n1", "ws://one", "", 5)
    await store.publish(again, 1, {A: b"3"})
    assert {key: offer.row for key, offer in (await store.snapshot()).offers["n1"].items()} == {A: b"3"}


async def test_a_cancelled_follow_is_cancelled_at_once(store: MeshStore) -> None:
    cursor = (await store.snapshot()).cursor
    began = trio.current_time()
    with trio.move_on_after(0.05):
        await store.follow(cursor)
    assert trio.current_time() - began < 1


@pytest.mark.slow
async def test_a_store_that_is_not_there_is_unavailable() -> None:
    async with open_valkey_store(StoreUrl.parse("valkey://127.0.0.1:1/mesh")) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.join("n1", "ws://one", "", 5)
    text = str(caught.value)
    assert "127.0.0.1:1" in text
    # It becomes part of a sentence, and the library's own text ends with a new line.
    assert text == " ".join(text.split())
