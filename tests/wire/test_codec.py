"""Envelopes are split, payloads pass as they came; what is not a message still names the call that it belonged to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from iii_trio.wire import ABSENT, InvocationResult, InvokeFunction, Ping, RegisterFunction, Undecodable, decode, encode

ID = "0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b11"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner),
    max_leaves=12,
)  # fmt: skip


def invoke(data: bytes) -> bytes:
    return b'{"type":"invokefunction","invocation_id":"%s","function_id":"f","data":%s}' % (ID.encode(), data)


def result(value: bytes) -> bytes:
    return b'{"type":"invocationresult","function_id":"f","result":%s,"invocation_id":"%s"}' % (value, ID.encode())


def undecodable(text: bytes) -> Undecodable:
    read = decode(text)
    assert isinstance(read, Undecodable), read
    return read


# --- what passes


@given(JSON, st.integers(0, 3))
def test_a_payload_passes_byte_for_byte(value: Any, indent: int) -> None:
    data = json.dumps(value, indent=indent or None, ensure_ascii=False).encode()
    read = decode(invoke(data))
    assert isinstance(read, InvokeFunction)
    assert bytes(read.data) == data
    assert data in encode(InvokeFunction("f", ID, data=Raw(data)))


@pytest.mark.parametrize("data", [b"{ }", b"{\n\t}", b"[ ]", b"1e400", b"123456789012345678901234567890", b'"\\u0000"'])
def test_unusual_but_valid_json_passes_unchanged(data: bytes) -> None:
    read = decode(invoke(data))
    assert isinstance(read, InvokeFunction) and bytes(read.data) == data


def test_absent_and_null_stay_apart_in_both_directions() -> None:
    absent = decode(b'{"type":"invocationresult","invocation_id":"%s","function_id":"f"}' % ID.encode())
    null = decode(result(b"null"))
    assert isinstance(absent, InvocationResult) and isinstance(null, InvocationResult)
    assert (bytes(absent.result), bytes(null.result)) == (b"", b"null")
    assert b"result" not in encode(absent).replace(b"invocationresult", b"")
    assert b'"result":null' in encode(null)
    assert absent.result == ABSENT


def test_unknown_fields_are_ignored_and_absent_ones_omitted() -> None:
    read = decode(b'{"novel":{"a":[1]},"type":"registerfunction","id":"f","metadata":null}')
    assert isinstance(read, RegisterFunction)
    assert json.loads(encode(read)) == {"type": "registerfunction", "id": "f", "metadata": None}


def test_null_where_a_text_is_optional_is_absence() -> None:
    read = decode(b'{"type":"invokefunction","function_id":"f","invocation_id":null,"traceparent":null,"data":{}}')
    assert isinstance(read, InvokeFunction)
    assert (read.invocation_id, read.traceparent) == (None, None)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(kind: type) -> None:
    assert decode(kind(b'{"type":"ping"}')) == Ping()


# --- what does not


@pytest.mark.parametrize(
    "data",
    [
        b"NaN",
        b'{"x":-Infinity}',
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b"[" * 5_000 + b"]" * 5_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'"\xff"',
        b'"\xc3"',
        b'{"a":"\xed\xa0\x80"}',
        b"01",
        b"'x'",
        b"{1:2}",
        b'{"a":1,}',
        b'"\t"',
    ],
    ids=["nan", "infinity", "lone surrogate", "lone surrogate as key", "deep", "very deep", "no utf-8", "half a character",
         "a surrogate in utf-8", "leading zero", "single quotes", "number as key", "trailing comma", "raw tab"],
)  # fmt: skip
def test_a_payload_that_is_no_strict_json_names_its_call(data: bytes) -> None:
    """Python's json, which SDKs use, writes NaN and lone surrogates. The caller is to be told, whatever it was."""
    call = undecodable(invoke(data))
    assert (call.type, call.invocation_id, call.function_id) == ("invokefunction", ID, "f")
    assert call.problem
    answer = undecodable(result(data))
    assert (answer.type, answer.invocation_id) == ("invocationresult", ID)


def test_the_problem_says_where_it_is() -> None:
    assert "byte" in undecodable(invoke(b"NaN")).problem
    assert undecodable(invoke(b"[" * 100_000)).problem == "nested too deeply"


@pytest.mark.parametrize(
    "text",
    [b"", b"nonsense", b"null", b"[]", b"1", b"{}", b'{"type":null}', b'{"type":1}', b'{"type":"noveltype"}', b"\xff\xfe",
     b'{"type":"ping"}{}', b'{"type":"ping"', b"\x00" * 100, b"\xef\xbb\xbf" + b'{"type":"ping"}', b"[" * 100_000, b'"'],
)  # fmt: skip
def test_what_is_no_message_is_undecodable_and_names_no_call(text: bytes) -> None:
    assert undecodable(text).invocation_id is None


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"invokefunction","invocation_id":"%s","function_id":7}',
        b'{"type":"invokefunction","invocation_id":"%s"}',
        b'{"type":"invokefunction","invocation_id":"%s","function_id":"f","action":"void"}',
        b'{"type":"invokefunction","invocation_id":"%s","function_id":"f","traceparent":[]}',
    ],
)
def test_an_envelope_of_the_wrong_shape_names_its_call_and_the_field(text: bytes) -> None:
    read = undecodable(text % ID.encode())
    assert (read.type, read.invocation_id) == ("invokefunction", ID)
    assert any(field in read.problem for field in ("function_id", "action", "traceparent"))


def test_ids_deep_inside_a_payload_are_not_taken_for_the_calls() -> None:
    text = (
        b'{"data":{"invocation_id":"inner","x":NaN},"type":"invokefunction","invocation_id":"outer","function_id":"f"}'
    )
    assert undecodable(text).invocation_id == "outer"
    assert undecodable(b'{"type":"invokefunction","data":[{"invocation_id":"inner"},NaN]}').invocation_id is None


@given(st.binary(max_size=80))
def test_no_bytes_make_it_raise(text: bytes) -> None:
    decode(text)


@given(JSON, st.data())
def test_no_damage_to_a_message_makes_it_raise(value: Any, data: st.DataObject) -> None:
    text = bytearray(invoke(json.dumps(value).encode()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    read = decode(bytes(text))
    if isinstance(read, InvokeFunction):
        bytes(read.data).decode()  # what goes on is UTF-8, whatever came


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ('{"x": NaN}', "NaN is not JSON: send null"),
        ("[1, -Infinity]", "Infinity is not JSON: send null"),
        (r'"\ud800"', r"\ud800 is half a character"),
        (r'"\ud83d\ude00 \ude00"', r"\ude00 is half a character"),
        ('"NaN", "x": [', None),
        (r'"\ud83d\ude00", "x": [', None),
    ],
)
def test_what_only_pythons_json_allows_is_named(data: str, why: str | None) -> None:
    message = decode(f'{{"type":"invokefunction","function_id":"f","data":{data}}}'.encode())
    assert isinstance(message, Undecodable)
    if why is None:
        assert "; " not in message.problem
    else:
        assert why in message.problem


@pytest.mark.parametrize("mib", [0, 1, 2])
def test_bytes_that_are_no_utf_8_are_found_in_every_part_of_a_large_message(mib: int) -> None:
    text = bytearray(invoke(b'"\xc3\xa9%s"' % (b"x" * 3_000_000)))
    assert isinstance(decode(text), InvokeFunction)
    text[mib * 1024 * 1024 + 500] = 0xFF
    assert undecodable(text).problem == "it is not UTF-8: invalid start byte"


def test_a_character_may_lie_in_two_parts_of_a_large_message() -> None:
    for shift in range(4):
        data = b'"%s%s"' % (b"x" * (1024 * 1024 - 100 + shift), "€".encode() * 100)
        assert isinstance(decode(invoke(data)), InvokeFunction)


def test_an_invocation_id_of_at_most_128_characters_is_sent_back() -> None:
    for length in (1, 128, 129):
        text = b'{"type":"invocationresult","invocation_id":"%s","result":NaN}' % (b"x" * length)
        assert undecodable(text).invocation_id == ("x" * length if length < 129 else None)
