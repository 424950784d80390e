"""The reader of recordings: files that are damaged, cut off, of another version or of another origin."""

from __future__ import annotations

import gc
import zlib
from functools import cache
from typing import Any

import attrs
import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from iii_trio.core.hub import Hub
from iii_trio.recorder import plain
from iii_trio.recorder.file_format import decode_recording
from iii_trio.recorder.plain import NotPlain, read_one, write_one
from iii_trio.recorder.recording import Recording, RecordingError
from iii_trio.recorder.replay import replay
from iii_trio.recorder.snapshot import LEDGERS, LEFT_OUT
from tests.helpers.recorded_world import encoded
from tests.recorder.test_recordings import secretive


@cache
def a_recording() -> Recording:
    return secretive()[0].recording()


@cache
def a_file() -> bytes:
    return encoded(a_recording())


def refused(data: bytes) -> str:
    with pytest.raises(RecordingError) as found:
        decode_recording(data, "FILE")
    text = str(found.value)
    assert text.startswith("FILE ") and "\n" not in text
    return text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "FILE is not a recording of iii-trio: name a file that `iii-trio record` has written"),
        (b"\x89PNG\r\n", "FILE is not a recording of iii-trio: name a file that `iii-trio record` has written"),
        (b"iii-trio rec", "FILE is cut off in its first line: copy it again"),
        (b"iii-trio recording x\n", "FILE is damaged in its first line: copy it again"),
        (
            b"iii-trio recording 2\n",
            "FILE has version 2 of the format, and this iii-trio reads version 1: replay it with the iii-trio that wrote it",
        ),
        (b"iii-trio recording 1\n", "FILE is cut off behind step 0: copy it again, or record anew"),
    ],
)
def test_F7_a_file_of_another_kind_is_one_sentence(data: bytes, text: str) -> None:
    assert refused(data) == text


def test_F7_a_file_that_was_cut_off_anywhere_is_one_sentence() -> None:
    data = a_file()
    for end in range(0, len(data), 7):
        assert "cut off" in refused(data[:end]) or "not a recording" in refused(data[:end])
    assert refused(data + b"more").endswith("has 4 bytes behind its end: copy it again")


@settings(max_examples=200)
@given(st.data())
def test_F7_a_file_with_a_changed_byte_is_one_sentence(data: st.DataObject) -> None:
    file = bytearray(a_file())
    at = data.draw(st.integers(0, len(file) - 1))
    file[at] ^= data.draw(st.integers(1, 255))
    refused(bytes(file))


def record(body: Any) -> bytes:
    encoded_body = msgspec.msgpack.encode(body)
    return len(encoded_body).to_bytes(4, "big") + zlib.crc32(encoded_body).to_bytes(4, "big") + encoded_body


def records() -> list[Any]:
    data, at, found = a_file(), len(b"iii-trio recording 1\n"), []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(msgspec.msgpack.decode(data[at + 8 : at + 8 + size]))
        at += 8 + size
    return found


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
    | st.sampled_from(["&", "d", "m", "session", "e", "r", "received", "o", "s", "c"]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def replaced(value: Any, path: list[int], new: Any) -> Any:
    """Return a value in which one part is another."""
    if not path or not isinstance(value, list) or not value:
        return new
    at = path[0] % len(value)
    return [*value[:at], replaced(value[at], path[1:], new), *value[at + 1 :]]


@settings(max_examples=400)
@given(st.data())
def test_F7_a_file_that_a_stranger_has_changed_is_refused_or_replayed(data: st.DataObject) -> None:
    """Its checksums are right, so only the values can be wrong."""
    found = records()
    at = data.draw(st.integers(0, len(found) - 1))
    path = data.draw(st.lists(st.integers(0, 60), max_size=7))
    found[at] = replaced(found[at], path, data.draw(VALUES))
    file = b"iii-trio recording 1\n" + b"".join(map(record, found))
    try:
        for done in replay(decode_recording(file)):
            assert done.number
    except RecordingError as error:
        assert "\n" not in str(error).split(" cannot be replayed: ")[0]


def test_F7_a_file_makes_objects_of_the_core_only() -> None:
    with pytest.raises(NotPlain, match="cannot be written"):
        write_one(object())
    for node in (
        [["&", 0], [["Popen", "ls"]]],
        [["m", "nothing", "X"]],
        [["e", "Enum", "X"]],
        [["z", 1]],
        [["d", 1]],
        7,
        [],
    ):
        with pytest.raises(NotPlain):
            read_one(node)


def test_objects_of_a_file_that_refer_to_each_other_are_freed() -> None:
    gc.collect()
    read_one([["&", 0], [["LostSession", ["&", 0], "", 1.0]]])
    assert gc.collect() > 0


def test_F4_a_snapshot_leaves_out_nothing_but_references() -> None:
    """A field that is added to the state is in the snapshot, or stands in `LEFT_OUT` with those that a new hub has."""
    from iii_trio.config import EngineConfig

    state = Hub(EngineConfig(), "".__str__).state
    for name in LEDGERS:
        assert LEFT_OUT.get(name, frozenset()) <= set(vars(getattr(state, name)))
    assert LEFT_OUT["state"] <= set(vars(state))
    ledgers = {name for name, value in vars(state).items() if hasattr(value, "__dict__") and not callable(value)}
    assert ledgers - LEFT_OUT["state"] - set(LEDGERS) == set(), "write their fields one by one: add them to LEDGERS"
    assert all(attrs.has(cls) or issubclass(cls, msgspec.Struct) for cls in plain.CLASSES.values())
