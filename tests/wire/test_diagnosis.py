"""The names in a text that is not a message, against a generator that knows where it wrote each of them."""

from __future__ import annotations

import json
import random

import pytest

from iii_trio.wire import diagnosis
from iii_trio.wire.diagnosis import explain, top_level_strings

KEYS = ["type", "id", "data", "x", 'q"', "b\\", "{", "é"]
STRINGS = ["", "a", 'say "hi"', "back\\", "[{", "}]", ":,", "é" * 3, '\\"', "long " * 6]


def nested(rng: random.Random, levels: int) -> str:
    kind = rng.randrange(6 if levels else 3)
    if kind == 0:
        return rng.choice(["1", "null", "NaN", "-0.5e3", "01"])
    if kind <= 2:
        return json.dumps(rng.choice(STRINGS), ensure_ascii=rng.random() < 0.5)
    inner = [nested(rng, levels - 1) for _ in range(rng.randrange(4))]
    if kind == 3:
        return "[" + ",".join(inner) + "]"
    return "{" + ",".join(f"{json.dumps(rng.choice(KEYS))}: {each}" for each in inner) + "}"


def message(rng: random.Random) -> tuple[bytes, list[tuple[str, str, int, int]]]:
    """A text, and the fields of its outermost object that are texts, each with its place."""
    text = b" " * rng.randrange(2) + b"{"
    fields = []
    for number in range(rng.randrange(9)):
        space = b" " * rng.choice([0, 0, 1])
        text += b"," + space if number else space
        key, start = rng.choice(KEYS), len(text)
        text += json.dumps(key, ensure_ascii=rng.random() < 0.5).encode() + space + b":" + space
        if rng.random() < 0.6:
            value = rng.choice(STRINGS)
            text += json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()
            fields.append((key, value, start, len(text)))
        else:
            text += (
                rng.choice(["7", "NaN", "[%s]", '{"x":%s}', '[[[%s]],{"q":1}]']).replace("%s", nested(rng, 3)).encode()
            )
    return text + b"}" + b" " * rng.randrange(2), fields


@pytest.mark.parametrize(("head", "tail"), [(10_000, 10), (40, 30), (20, 60), (64, 64), (100, 17)])
def test_the_names_are_those_that_lie_whole_in_the_first_or_the_last_bytes(
    head: int, tail: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "HEAD_BYTES", head)
    monkeypatch.setattr(diagnosis, "TAIL_BYTES", tail)
    rng = random.Random(head + tail)
    for _ in range(400):
        text, fields = message(rng)
        expected: dict[str, str] = {}
        for key, value, _, end in fields:
            if end <= head:
                expected.setdefault(key, value)
        for key, value, start, _ in fields:
            if len(text) > head and start >= len(text) - tail:
                expected.setdefault(key, value)
        found = top_level_strings(text)
        assert found == expected, (text, text[:head], text[max(0, len(text) - tail) :])


@pytest.mark.parametrize(
    "text", [b'"type":"x"', b'}"type":"x"', b'{}"type":"x"', b'[{"type":"x"}]', b'{"a":{"type":"x"}']
)
def test_only_the_outermost_object_has_names(text: bytes) -> None:
    assert top_level_strings(text) == {}


@pytest.mark.parametrize("filler", [b"[1],", b'["a",{"id":"no"}],'])
def test_the_last_bytes_are_read_if_the_first_ones_have_too_many_parts(filler: bytes) -> None:
    text = b'{"data":[' + filler * 1500 + b'0],"id":"i","type":"t"}'
    assert len(text) < diagnosis.HEAD_BYTES and top_level_strings(text) == {"id": "i", "type": "t"}
    assert top_level_strings(b'{"x":"1","data":[' + filler * 1500 + b'0],"id":"i"}') == {"x": "1", "id": "i"}


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("backslashes", range(7))
def test_the_last_bytes_may_begin_behind_or_within_any_run_of_backslashes(
    backslashes: int, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "HEAD_BYTES", 20)
    # The first quote of the last bytes is a part of the text, or ends it.
    last = b'"x","id":"i"}' if backslashes % 2 else b'","id":"i"}'
    if within:
        last = b"\\" * (2 - backslashes % 2) + b'","id":"i"}'
    monkeypatch.setattr(diagnosis, "TAIL_BYTES", len(last))
    text = b'{"data":[NaN,"' + b"x" * 30 + b'"],"y":"' + b"\\" * backslashes + last
    assert top_level_strings(text) == {"id": "i"}


@pytest.mark.parametrize(
    "last",
    [
        b'"x":"y","data":{"id":"no"}', b'"data":{"id":"no"},"x":"y","z":{}', b'"data":{"id":"no"},"x":"y","z":{"c":"d"}',
        b'"data":{"id":"no"},"x":"y"', b'"x":"y","z":{"c":"d"},"data":{"id":"no"}',
    ],
)  # fmt: skip
def test_fields_of_an_inner_object_are_no_names_if_the_end_of_the_message_is_missing(
    last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "HEAD_BYTES", 16)
    monkeypatch.setattr(diagnosis, "TAIL_BYTES", len(last) + 3)
    text = b'{"type":"t","a":[' + b"1," * 30 + b"1]," + last
    assert top_level_strings(text) == {"type": "t"}
    assert top_level_strings(text + b"}")["x"] == "y"


# --- what to do about it

NAN = "; NaN is not JSON: send null, or a string, in its place"
INFINITY = "; Infinity is not JSON: send null, or a string, in its place"
AT = 100_064


@pytest.mark.parametrize(
    ("text", "problem", "said"),
    [
        (b'{"a":NaN}', "", NAN),
        (b'{"a":[1, -Infinity]}', "", INFINITY),
        (b'{"a":"NaN"}', "", ""),
        (b'{"a": Nano}', "", ""),
        (b'{"a":"\\ud800"}', "", r"; \ud800 is half a character (a lone surrogate), which is not valid Unicode"),
        (b'{"a":"\\uDC00x"}', "", r"; \uDC00 is half a character (a lone surrogate), which is not valid Unicode"),
        (b'{"a":"\\ud83d\\ude00"}', "", ""),
        (b'{"a":NaN,"b":"\\ud800"}', "", NAN),
        # The place that the decoder names is looked at first.
        (b'{"a":[Infinity],' + b" " * 200 + b'"b":NaN}', "(byte 220)", NAN),
        (b'{"a":NaN}', "(byte 9000)", NAN),
        (b'{"a":NaN}', "(byte 5)", NAN),
    ],
)
def test_what_only_pythons_json_allows_is_named_with_its_remedy(text: bytes, problem: str, said: str) -> None:
    assert explain(text, problem) == said


@pytest.mark.parametrize(("offset", "found"), [(-64, True), (-65, False), (60, True), (61, False), (0, True)])
def test_64_bytes_on_each_side_of_the_fault_are_looked_at(offset: int, found: bool) -> None:
    text = bytearray(b" " * 200_000)
    text[AT + offset : AT + offset + 4] = b":NaN"
    assert explain(text, f"malformed (byte {AT})") == (NAN if found else "")
