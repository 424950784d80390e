"""Rows, nodes and lines in the store that no node of this version would have written. They end nothing."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any, Final

import hypothesis.strategies as st
import pytest
import trio
import valkey
from hypothesis import HealthCheck, given, settings
from msgspec import Raw
from trio.testing import MockClock

from iii_trio.triggers.cluster.directory import Directory
from iii_trio.triggers.cluster.intake import (
    MAX_ROW_BYTES,
    OddRows,
    find_odd,
    read_fields,
    read_line,
    read_name,
    read_nodes,
    read_offers,
    read_row,
)
from iii_trio.triggers.cluster.records import BINDING, FUNCTION, NAME, TRIGGER_TYPE, WORKER, EntryKind, Key, Odd, Offer
from iii_trio.triggers.cluster.settings import StoreUrl
from iii_trio.triggers.cluster.valkey_library import LAYOUT
from iii_trio.triggers.cluster.valkey_store import open_valkey_store
from iii_trio.wire import RegisterFunction, Undecodable, decode, encode

from .mesh_world import LEASE_SECONDS, mesh_world
from .test_cluster_calls import offer

KINDS: Final = (FUNCTION, TRIGGER_TYPE, BINDING, WORKER, NAME)
FIELDS: Final = (
    "worker", "description", "metadata", "request_format", "response_format", "trigger_request_format", "config",
    "call_request_format", "trigger_type", "function_id", "trigger_namespace", "id", "name", "runtime", "status",
)  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["http", "GET", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
rows = st.one_of(
    objects.map(lambda value: json.dumps(value).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.sampled_from([b"[" * 5_000 + b"]" * 5_000, b'{"metadata":' + b"[" * 600 + b"]" * 600 + b"}"]),
    st.sampled_from(
        [b'{"worker":"\\ud800"}', b'{"description":"\xed\xa0\x80"}', b'{"metadata":' + b"9" * 5_000 + b"}"]
    ),
    st.sampled_from([b'{"trigger_type":"http","function_id":"f","config":{"http_method":"BREW"}}']),
)
EACH_CHECK: Final = [
    (Key(FUNCTION, "", "f"), b"{}"),
    (Key(FUNCTION, " ", "f"), b"{}"),
    (Key(FUNCTION, "n" * 2_000, "f"), b"{}"),
    (Key(FUNCTION, "default", "f" * 2_000), b"{}"),
    (Key(FUNCTION, "default", "huge"), b'{"metadata":"' + b"x" * (65 * 1024 * 1024) + b'"}'),
    (Key(FUNCTION, "default", "deep"), b'{"metadata":' + b"[" * 600 + b"]" * 600 + b"}"),
    (Key(FUNCTION, "default", "deeper"), b"[" * 5_000),
    (Key(FUNCTION, "default", "digits"), b'{"metadata":' + b"9" * 5_000 + b"}"),
    (Key(FUNCTION, "default", "large"), b'{"metadata":"' + b"x" * MAX_ROW_BYTES + b'"}'),
    (Key(FUNCTION, "default", "long"), b'{"description":"' + b"x" * 70_000 + b'"}'),
    (Key(TRIGGER_TYPE, "default", "type"), b'{"description":7}'),
    (Key(BINDING, "default", "method"), b'{"trigger_type":"http","function_id":"f","config":{"http_method":"BREW"}}'),
    (Key(BINDING, "default", "no function"), b'{"trigger_type":"http"}'),
    (Key(BINDING, "default", "list"), b"[]"),
    (Key(WORKER, "default", "number"), b"7"),
    (Key(WORKER, "default", "no id"), b"{}"),
]
"""A row for each check of the gate."""
keys = st.builds(
    Key,
    st.sampled_from([*KINDS, "of a later version"]),
    st.sampled_from(["default", "other", "", " "]) | st.text(max_size=4),
    st.text(max_size=6) | st.just("x" * 2_000),
)


@pytest.mark.parametrize(("key", "row"), EACH_CHECK, ids=[str(number) for number in range(len(EACH_CHECK))])
def test_each_check_of_the_gate_refuses_its_row(key: Key, row: bytes) -> None:
    odd = find_odd("n", key, row)
    assert odd is not None and odd.node == "n" and odd.why


@given(keys, rows)
def test_what_passes_the_gate_can_be_read_and_registered(key: Key, row: bytes) -> None:
    odd = find_odd("n", key, row)
    if odd is not None:
        assert odd.why and len(odd.key) < 2_000 and odd.key.isascii() and odd.key.isprintable()
        return
    if key.kind not in KINDS:
        return
    if key.kind == NAME:
        assert isinstance(read_name(row).worker, str)
        return
    read = read_row(key, row)
    if key.kind == WORKER:
        json.dumps(read_fields(row))
    if key.kind == FUNCTION:
        message = encode(RegisterFunction(key.id, read.description, metadata=_raw(read.metadata)))
        assert not isinstance(decode(message), Undecodable)


def _raw(value: Any) -> Raw:
    return Raw(json.dumps(value).encode())


@given(st.lists(st.tuples(st.binary(max_size=20) | st.just(b"n1"), rows), max_size=4, unique_by=lambda pair: pair[0]))
def test_any_texts_are_read_as_nodes_and_offers(pairs: list[tuple[bytes, bytes]]) -> None:
    nodes, odd_nodes = read_nodes(pairs)
    offers, odd_rows = read_offers("n", pairs)
    assert len(nodes) + len(odd_nodes) == len(offers) + len(odd_rows) == len(pairs)


field_names = st.sampled_from([b"number", b"kind", b"node", b"fence", b"body"]) | st.binary(max_size=6)
field_values = st.one_of(
    st.binary(max_size=20),
    st.integers(-2, 20).map(lambda number: str(number).encode()),
    st.sampled_from([kind.value.encode() for kind in EntryKind]),
    rows,
    st.lists(st.lists(values, max_size=3) | values, max_size=3).map(lambda value: json.dumps(value).encode()),
)


@given(st.lists(st.lists(st.tuples(field_names, field_values).map(list), max_size=7), max_size=3))
def test_any_texts_are_read_as_lines_and_taken_by_a_directory(lines: list[list[list[bytes]]]) -> None:
    directory = Directory()
    for fields in lines:
        entry = read_line(b"1-1", fields)
        assert (entry.kind is EntryKind.UNREADABLE) <= bool(entry.odd)
        directory.apply(entry)


def test_all_is_read_again_after_a_line_that_cannot_be_read() -> None:
    number = Directory().position.number + 1
    fields = [[b"number", b"%d" % number], [b"kind", b"later"], [b"node", b"n"], [b"fence", b"1"], [b"body", b""]]
    assert Directory().apply(read_line(b"1-1", fields)) is None
    # A line of nobody's has no number, and does not count.
    assert Directory().apply(read_line(b"1-1", [[b"x", b"y"]])) is not None


def test_the_other_changes_of_a_line_count_where_one_is_odd() -> None:
    good = Key(FUNCTION, "default", "good")
    body = json.dumps([[good.text, "{}"], ["no key", "{}"], [good.text, 3], 7, [good.text], [4, "{}"]]).encode()
    fields = {"number": b"3", "kind": b"offers", "node": b"n", "fence": b"5", "body": body}
    entry = read_line(b"1-1", [[name.encode(), value] for name, value in fields.items()])
    assert (entry.number, entry.kind, dict(entry.changes)) == (3, EntryKind.OFFERS, {good: b"{}"})
    assert len(entry.odd) == 5


def test_a_row_that_becomes_odd_is_offered_no_longer() -> None:
    directory, key = Directory(), Key(BINDING, "default", "b")
    good = b'{"trigger_type":"t","function_id":"f"}'
    for row, there in ((good, True), (b'{"trigger_type":3}', False), (good, True)):
        odd: list[Odd] = []
        directory._admit("n", key, Offer(1, row), odd)
        assert (bool(directory.offers(key)), bool(odd)) == (there, not there)


def test_an_odd_row_is_told_of_once() -> None:
    told = OddRows(max_remembered=2)
    one, two, three = (Odd("n", key, "why") for key in ("one", "two", "three"))
    assert told.new([one, two, one]) == [one, two]
    assert told.new([one, three]) == [three]
    assert told.new([one]) == [one]  # what is remembered is bounded


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(keys, rows), min_size=10, max_size=30))
def test_odd_rows_of_one_node_end_nothing_at_the_others(planted: list[tuple[Key, bytes]]) -> None:
    trio.run(_plant, planted, clock=MockClock(autojump_threshold=0))


async def test_no_row_that_a_check_of_the_gate_is_for_ends_anything(autojump_clock: MockClock) -> None:
    await _plant(EACH_CHECK)


async def _plant(planted: list[tuple[Key, bytes]]) -> None:
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("iii_trio").addHandler(handler)
    try:
        await _plant_and_look(planted, lines)
    finally:
        logging.getLogger("iii_trio").removeHandler(handler)


async def _plant_and_look(planted: list[tuple[Key, bytes]], lines: list[str]) -> None:
    async with mesh_world("a", "b") as world, world.open_worker("a", "one", "network") as one:
        await offer(one, "a")
        await world.settle()
        before = {name: node.cluster for name, node in world.nodes.items()}
        # A node to which all have links. It publishes nothing else, because its later writes have lower numbers.
        odd = (await world.start("odd")).cluster.lease.node
        assert odd is not None
        # One line for each, so that every one of them arrives by the log, and by the snapshot of a node that joins later.
        for number, (key, row) in enumerate(planted, 10_000):
            world.store.publish(odd, number, {key: row})
        await trio.sleep(LEASE_SECONDS)
        await world.start("c")
        await trio.sleep(LEASE_SECONDS)
        for name in "abc":
            assert world.nodes[name].cluster is before.get(name, world.nodes[name].cluster)
            assert world.nodes[name].engine.modules["cluster"] is world.nodes[name].cluster
            assert world.nodes[name].cluster.directory.position == world.store.snapshot().position
            async with world.open_worker(name, "app") as app:
                assert await app.trigger("say") == "a"
                listed = (await app.trigger("engine::workers::list"))["workers"]
                assert "one" in {row["name"] for row in listed}
                await app.trigger("engine::functions::list")
        # A relay that sent its engine what that refuses would be dialled again, only to end there once more.
        assert [line for line in lines if "left out" not in line] == []


async def test_an_odd_row_is_logged_once_with_its_key(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with mesh_world("a") as world:
        odd = world.store.join("odd", "ws://localhost:7", "", 20 * LEASE_SECONDS)
        with caplog.at_level(logging.WARNING, "iii_trio.cluster"):
            for number in range(1, 4):
                world.store.publish(odd, number, {Key(WORKER, "default", "w\n1"): b'{"id":7}'})
            await trio.sleep(LEASE_SECONDS)
        found = [message for message in caplog.messages if "left out" in message]
        assert found == [
            'left out of what the store has of node odd: ["worker","default","w\\\\n1"]: '
            "Expected `str`, got `int` - at `$.id`"
        ]


async def test_a_node_lives_on_with_anything_in_valkey(valkey_url: str) -> None:
    mesh = str(uuid.uuid4())
    base = f"{LAYOUT}:{{{mesh}}}:"
    port = int(valkey_url.rpartition(":")[2])
    with valkey.Valkey(port=port) as raw:
        async with open_valkey_store(StoreUrl.parse(f"{valkey_url}/{mesh}")) as store:
            node = await store.join("n1", "ws://one", "1.0", 5)
            other = await store.join("n2", "ws://two", "1.0", 5)
            good, bad = Key(FUNCTION, "default", "good"), Key(FUNCTION, "default", "bad")
            await store.publish(node, 1, {good: b"{}"})
            start = await store.snapshot()
            raw.hset(base + "nodes", mapping={"junk": b"\xff", "list": b"[1]", "deep": b"[" * 5_000, "no name!": b"{}"})
            raw.hset(base + "nodes", "dead", b'{"address":[],"fence":{}}')
            raw.hset(base + "rows:n1", mapping={b"\xff": b"1 {}", bad.text: b"x {}", b"[1]": b"1 {}"})
            raw.set(base + "rows:n2", "no hash")
            for fields in ({"x": "y"}, {"number": "x"}, {"number": "5", "kind": "later", "node": "n1"}):
                raw.xadd(base + "log", fields)
            raw.xadd(base + "log", {"number": 9, "kind": "offers", "node": "n1", "fence": 1, "body": b"\xff"})
            entries, _ = await store.follow(start.cursor)
            assert [entry.kind for entry in entries] == [EntryKind.UNREADABLE] * 4
            snapshot = await store.snapshot()
            assert snapshot.nodes == {"n1": node, "n2": other}
            assert {name: list(found) for name, found in snapshot.offers.items()} == {"n1": [good], "n2": []}
            assert {each.node for each in snapshot.odd} == {"junk", "list", "deep", "no name!", "dead", "n1"}
            # Those without a lease are swept, and the leases of the others go on.
            await store.renew(node, 5, sweep=True)
            snapshot = await store.snapshot()
            assert snapshot.nodes == {"n1": node, "n2": other}
            assert {each.node for each in snapshot.odd} == {"n1"}
            raw.hset(base + "nodes", "n1", b"\xff")
            await store.renew(node, 5, sweep=False)
            assert (await store.join("n1", "ws://elsewhere", "1.0", 5)).fence > node.fence


@pytest.fixture
def valkey_url(valkey: str) -> str:
    return valkey
