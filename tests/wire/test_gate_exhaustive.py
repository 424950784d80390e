"""The quick searches of the gate find what a slow reading of the JSON finds, at every place and size that matters."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from iii_trio.wire import Undecodable, decode, nests_deeper
from iii_trio.wire.bounds import MAX_DEPTH, MAX_DIGITS
from iii_trio.wire.gate import why_unreadable

CONTEXTS = [
    b"[%s]", b"[-%s]", b'["%s"]', b'["a\\"",%s]', b'["a\\"%s"]', b'["\\\\",%s]', b'["\\\\\\"%s"]', b'{"\\"a":%s}',
    b"[0.%s]", b"[%s.5]", b"[%se-4300]", b"[%sE-4300]", b'["",%s,""]', b'[1,"x",%s]', b'{"%s":1}',
]  # fmt: skip


def has_long_integer(text: bytes) -> bool:
    found = []

    def read(digits: str) -> int:
        found.append(len(digits.lstrip("-")))
        return 0

    json.loads(text, parse_int=read)
    return max(found, default=0) > MAX_DIGITS


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("length", [MAX_DIGITS, MAX_DIGITS + 1, 2 * MAX_DIGITS])
def test_a_long_integer_is_found_wherever_it_begins(context: bytes, length: int) -> None:
    text = context % (b"1" + b"0" * (length - 1))
    expected = has_long_integer(text)
    for shift in range(130, 262):
        assert (why_unreadable(b" " * shift + text) is not None) is expected, shift


@pytest.mark.parametrize("length", [MAX_DIGITS, MAX_DIGITS + 1])
def test_a_text_may_be_an_integer_and_nothing_else(length: int) -> None:
    assert (why_unreadable(b"1" * length) is not None) is (length > MAX_DIGITS)


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH])
def test_a_part_that_is_kept_has_one_level_less_than_its_message(levels: int) -> None:
    text = b'{"type":"registerfunction","id":"f","metadata":%s}' % (b"[" * levels + b"]" * levels)
    assert isinstance(decode(text), Undecodable) is (levels == MAX_DEPTH)


def test_the_second_of_two_long_runs_of_digits_is_found() -> None:
    runs = {
        b'"%s"': False, b"0.%s": False, b"%s.0": False, b'"\\"%s"': False, b'"\\\\","%s"': False, b"%s": True,
    }  # fmt: skip
    for first, second in itertools.product(runs, repeat=2):
        for between in (b",", b"," + b" " * 100, b',"x\\"",'):
            text = b"[" + (first + between + second) % (b"1" * 4400, b"2" * 4301) + b"]"
            assert has_long_integer(text) is (runs[first] or runs[second])
            assert (why_unreadable(text) is not None) is (runs[first] or runs[second]), (first, between, second)


@pytest.mark.parametrize("size", [16_384, 16_385])
def test_the_depth_of_a_long_text_is_left_to_the_decoder(size: int) -> None:
    text = b'["%s",%s]' % (b"x" * (size - 2 * MAX_DEPTH - 5), b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert len(text) == size and (why_unreadable(text) is not None) is (size <= 16_384)


def depth_of(text: bytes) -> int:
    """The depth, read one byte after the other."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in text.decode():
        if in_string:
            escaped, in_string = byte == "\\" and not escaped, byte != '"' or escaped
        elif byte == '"':
            in_string = True
        elif byte in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in "]}":
            depth -= 1
    return deepest


TOKENS = ["[]", "{}", '""', '"["', '"]"', '"\\""', '"\\\\"', '"\\\\\\"["', "1"]


def value(rng: random.Random, levels: int) -> str:
    if levels <= 0 or rng.random() < 0.05:
        return rng.choice(TOKENS)
    inner = [value(rng, levels - 1)] + [value(rng, levels - rng.randrange(1, 40)) for _ in range(rng.randrange(3))]
    rng.shuffle(inner)
    if rng.random() < 0.5:
        return "[" + ",".join(inner) + "]"
    return "{" + ",".join(f"{rng.choice(TOKENS[2:8])}:{each}" for each in inner) + "}"


@pytest.mark.parametrize("levels", [0, 1, 2, 3, 4, 5, 8, 16, 17, 31, 32, 33, 34, 40])
def test_the_depth_is_that_of_a_reading_byte_by_byte(levels: int) -> None:
    rng = random.Random(levels)
    for _ in range(40):
        text = value(rng, levels).encode()
        depth = depth_of(text)
        for bound in range(max(0, depth - 3), depth + 3):
            assert nests_deeper(text, bound) is (depth > bound), (text, bound)
            # A text without brackets around it is long enough to be searched.
            longer = b"[" + b"1," * 50 + text + b"]"
            assert nests_deeper(longer, bound) is (depth + 1 > bound), (text, bound)
