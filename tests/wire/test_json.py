"""JSON in and out, strictly; and the walk that finds names in what is not quite JSON."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.wire import from_json, to_json
from iii_trio.wire.diagnosis import top_level_strings

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(JSON)
def test_a_value_survives_the_way_out_and_in(value: Any) -> None:
    assert from_json(to_json(value)) == value
    assert json.loads(to_json(value)) == value


def test_what_json_cannot_hold_is_said() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        to_json(loop)
    with pytest.raises(ValueError, match="not valid Unicode"):
        to_json("\ud800")
    with pytest.raises(TypeError, match="object"):
        to_json(object())


@pytest.mark.parametrize("text", [b"NaN", b"", b"{", b'"\\ud800"', b"\xff", b"[1,]", b"[" * 100_000])
def test_what_is_no_strict_json_is_refused_with_a_place(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_json(text)


@given(st.dictionaries(TEXT, JSON, max_size=6))
def test_the_walk_finds_the_texts_of_the_outermost_object_and_no_others(value: dict[str, Any]) -> None:
    expected = {key: item for key, item in value.items() if isinstance(item, str)}
    assert top_level_strings(json.dumps(value).encode()) == expected
    assert top_level_strings(json.dumps(value, ensure_ascii=False, indent=2).encode()) == expected


@given(st.binary(max_size=60))
def test_the_walk_takes_anything(text: bytes) -> None:
    found = top_level_strings(text)
    for name, value in found.items():
        assert isinstance(name, str) and isinstance(value, str)
        value.encode()


def test_the_first_of_two_equal_names_counts() -> None:
    assert top_level_strings(b'{"type":"a","type":"b"}') == {"type": "a"}


@pytest.mark.parametrize(
    "text", [b'{"a":' + b'"\\' * 300_000, b"[" * 600_000, b'"' * 600_000, b'{"a":"b' * 100_000, b"{" + b'"x' * 300_000]
)
def test_the_walk_takes_time_in_proportion(text: bytes) -> None:
    """A peer that sends broken texts of any shape does not buy more of the engine's time than by valid ones."""
    began = time.process_time()
    top_level_strings(text)
    assert time.process_time() - began < 3
