"""A ref is plain JSON, is found anywhere in a payload, and names where its end is attached."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iii_trio.errors import MessageError
from iii_trio.wire import Direction, Ref, attach_target, find_refs, is_ref, read_attach_target

REF = {"channel_id": "c1", "access_key": "k1", "direction": "read"}
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def test_a_ref_is_three_texts() -> None:
    ref = Ref.from_json(REF)
    assert ref == Ref("c1", "k1", Direction.READ)
    assert ref.to_json() == REF


def test_an_access_key_is_not_shown() -> None:
    assert "k1" not in repr(Ref.from_json(REF))


@pytest.mark.parametrize(
    "value",
    [None, 1, "c1", [], {}, {**REF, "direction": "both"}, {**REF, "direction": None}, {**REF, "channel_id": 1},
     {**REF, "access_key": None}, {"channel_id": "c", "access_key": "k"}],
)  # fmt: skip
def test_what_is_no_ref_is_none(value: Any) -> None:
    assert not is_ref(value)
    if isinstance(value, dict):
        with pytest.raises(MessageError, match="channel_id, access_key and direction"):
            Ref.from_json(value)


def test_a_ref_may_be_any_mapping() -> None:
    assert is_ref(MappingProxyType(REF)) and Ref.from_json(MappingProxyType(REF)) == Ref.from_json(REF)
    assert not is_ref(MappingProxyType({**REF, "direction": "up"}))


def test_keys_besides_do_not_matter() -> None:
    assert Ref.from_json({**REF, "note": [1]}) == Ref.from_json(REF)


def test_refs_are_found_anywhere_with_their_paths() -> None:
    payload = {"a": {"b": [0, REF, {"c": REF}]}, "d": REF, "e": "c1"}
    assert [path for path, _ in find_refs(payload)] == ["a.b.1", "a.b.2.c", "d"]
    assert [path for path, _ in find_refs(REF)] == [""]  # type: ignore[arg-type]
    assert not list(find_refs("text")) and not list(find_refs(None))


def test_refs_are_found_at_any_depth() -> None:
    payload: Any = REF
    for _ in range(20_000):
        payload = [payload]
    assert len(list(find_refs(payload))) == 1


def test_a_ref_inside_a_ref_is_not_looked_for() -> None:
    assert [path for path, _ in find_refs({"r": {**REF, "more": REF}})] == ["r"]


@given(TEXTS, TEXTS, st.sampled_from(Direction))
def test_a_target_names_its_ref(channel_id: str, key: str, direction: Direction) -> None:
    target = attach_target(Ref(channel_id, key, direction))
    assert target.isascii() and " " not in target
    path, _, query = target.partition("?")
    read = read_attach_target(path, query)
    assert (read.access_key, read.direction) == (key, direction)


def test_a_target_keeps_the_path_and_query_of_the_engines_address() -> None:
    assert attach_target(Ref("c", "k", Direction.WRITE), "/mesh/?tenant=7") == (
        "/mesh/ws/channels/c?tenant=7&key=k&dir=write"
    )


def test_of_several_parameters_of_one_name_the_last_counts() -> None:
    read = read_attach_target("/ws/channels/c", "key=theirs&dir=write&x=1&key=k&dir=read")
    assert read == Ref("c", "k", Direction.READ)


@given(st.text(st.sampled_from("kd=&;%+2 ü"), max_size=16))
@example("k=2=2&k2=3&&")
@example("k=2+2")
@example("k=%32+%C3%BC&d=2")
def test_a_query_is_read_as_the_standard_library_reads_it(text: str) -> None:
    more = text.replace("k", "key").replace("d", "dir")
    named = dict(parse_qsl(f"dir=write&{more}", keep_blank_values=True))
    try:
        read = read_attach_target("/ws/channels/c", f"dir=write&{more}")
    except MessageError:
        assert not named.get("key") or named["dir"] not in ("read", "write")
    else:
        assert (read.access_key, read.direction) == (named["key"], named["dir"])


@pytest.mark.parametrize(
    ("query", "named"),
    [("", "key"), ("dir=read", "key"), ("key=&dir=read", "key"), ("key=k", "dir"), ("key=k&dir=", "dir"),
     ("key=k&dir=READ", "dir"), ("&&&===%%%", "key"), ("key=%ff&dir=%00", "dir")],
)  # fmt: skip
def test_a_target_without_key_or_direction_is_refused_by_name(query: str, named: str) -> None:
    with pytest.raises(MessageError, match=f"`{named}`"):
        read_attach_target("/ws/channels/c", query)
