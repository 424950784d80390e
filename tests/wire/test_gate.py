"""The gate: what would fail a later reader is refused when it comes, and what is merely unusual passes."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from iii_trio.wire import (
    CancelInvocation,
    InvocationResult,
    InvokeFunction,
    TriggerRegistrationResult,
    Undecodable,
    decode,
    diagnosis,
    from_json,
    nests_deeper,
    with_caller_id,
)
from iii_trio.wire.bounds import MAX_DEPTH, MAX_DIGITS, MAX_NAME

ID = "0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b11"
FIELD = b'"_caller_worker_id":"w"}'


def invoke(data: bytes) -> bytes:
    return b'{"type":"invokefunction","invocation_id":"%s","function_id":"f","data":%s}' % (ID.encode(), data)


def levels(count: int) -> bytes:
    return b"[" * count + b"]" * count


def test_what_was_checked_before_is_not_checked_again_but_decoded_in_any_case() -> None:
    too_deep = invoke(levels(MAX_DEPTH))
    assert isinstance(decode(too_deep), Undecodable)
    assert decode(too_deep, checked=True) == InvokeFunction("f", ID, Raw(levels(MAX_DEPTH)))
    assert isinstance(decode(b"{", checked=True), Undecodable)
    assert isinstance(decode(b'{"type":"invokefunction"}', checked=True), Undecodable)


# --- what is passed on


@pytest.mark.parametrize(
    ("data", "passes"),
    [
        (levels(MAX_DEPTH - 1), True),
        (levels(MAX_DEPTH), False),
        (b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, False),
        (b"[" + b'["]]]]]]",{}],' * 2000 + b"1]", True),
        (b'["' + b"]" * 5000 + b'",' + levels(MAX_DEPTH) + b"]", False),
        (b'["\\"' + b"[" * 5000 + b'"]', True),
        (b'["\\\\",' + levels(MAX_DEPTH) + b"]", False),
        (b"9" * MAX_DIGITS, True),
        (b"9" * (MAX_DIGITS + 1), False),
        (b"[1,-" + b"9" * (MAX_DIGITS + 1) + b"]", False),
        (b'"' + b"9" * 9000 + b'"', True),
        (b'["\\"' + b"9" * 9000 + b'"]', True),
        (b'["\\\\",' + b"9" * 9000 + b"]", False),
        (b"0." + b"9" * 9000, True),
        (b"1" + b"0" * 9000 + b"e-9000", True),
        (b'{"a":"' + b"1" * 9000 + b'","b":' + b"1" * 9000 + b"}", False),
    ],
)
def test_depth_and_digits_are_refused_beyond_their_bound_wherever_they_stand(data: bytes, passes: bool) -> None:
    read = decode(invoke(data))
    if passes:
        assert isinstance(read, InvokeFunction) and bytes(read.data) == data
    else:
        assert isinstance(read, Undecodable)
        assert (read.type, read.invocation_id, read.function_id) == ("invokefunction", ID, "f")
        assert str(MAX_DEPTH) in read.problem or str(MAX_DIGITS) in read.problem


@pytest.mark.parametrize("shift", range(0, 260, 13))
def test_a_long_integer_is_found_at_any_place(shift: int) -> None:
    integer = b"7" * (MAX_DIGITS + 1)
    assert isinstance(decode(invoke(b'["%s",%s]' % (b"x" * shift, integer))), Undecodable)
    assert isinstance(decode(invoke(b'["%s",%s]' % (b"x" * shift, integer[1:]))), InvokeFunction)


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_depth_is_counted_as_json_reads_it(seed: int, bound: int) -> None:
    rng = random.Random(seed)

    def value(depth: int) -> Any:
        if depth <= 0 or rng.random() < 0.1:
            return rng.choice([1, "[[[{", ']}"\\', "\\", None])
        inner = [value(depth - 1 - rng.randrange(2)) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
        return inner if rng.random() < 0.5 else {f'k"[{n}': each for n, each in enumerate(inner)}

    def depth(item: Any) -> int:
        if isinstance(item, dict):
            item = list(item.values())
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    made = [value(rng.randrange(44)) for _ in range(rng.choice([1, 30]))]
    assert nests_deeper(json.dumps(made).encode(), bound) is (depth(made) > bound)


# --- what is read again

BAD = {
    "range": b'{"n":1e999}', "negative range": b'{"n":-1e999}', "digits": b"9" * 5000, "many digits": b"9" * 400 + b".0",
    "depth": levels(985), "surrogate": b'"\\ud800"', "nan": b"NaN", "utf-8": b'"\xff"',
}  # fmt: skip
KEPT = {
    "registerfunction": (b'"id":"f"', ["request_format", "response_format", "metadata", "invocation"]),
    "registertriggertype": (b'"id":"t"', ["trigger_request_format", "call_request_format"]),
    "registertrigger": (b'"id":"b","trigger_type":"t","function_id":"f"', ["config", "metadata"]),
    "invokefunction": (
        b'"function_id":"f","invocation_id":"%s","action":{"type":"enqueue","queue":"q"}' % ID.encode(),
        ["metadata"],
    ),
}
CASES = [(kind, field) for kind, (_, fields) in KEPT.items() for field in fields]


@pytest.mark.parametrize(("kind", "field"), CASES)
@pytest.mark.parametrize("bad", BAD)
def test_a_part_that_is_kept_must_be_readable(kind: str, field: str, bad: str) -> None:
    head = b'{"type":"%s",%s,"%s":' % (kind.encode(), KEPT[kind][0], field.encode())
    read = decode(head + BAD[bad] + b"}")
    assert isinstance(read, Undecodable) and read.problem and read.type == kind
    assert read.invocation_id == (ID if kind == "invokefunction" else None)
    good = decode(head + b'{"n":1e30}}')
    assert not isinstance(good, Undecodable) and from_json(bytes(getattr(good, field))) == {"n": 1e30}


@pytest.mark.parametrize("field", [field for kind, field in CASES if kind == "registerfunction"])
def test_a_part_that_is_kept_is_searched_for_depth_whatever_its_size(field: str) -> None:
    """Payloads that are only passed on are not, beyond 16 KiB."""
    part = b'["%s",%s]' % (b"x" * 20_000, levels(MAX_DEPTH - 1))
    assert isinstance(decode(b'{"type":"registerfunction","id":"f","%s":%s}' % (field.encode(), part)), Undecodable)
    assert isinstance(decode(invoke(part)), InvokeFunction)


@pytest.mark.parametrize(
    ("call", "passes"),
    [
        (b'"function_id":"f"', True),
        (b'"function_id":"f","action":{"type":"void"}', True),
        (b'"function_id":"f","action":{"type":"call"}', True),
        (b'"function_id":"f","action":{"type":"enqueue","queue":"q"}', False),
        (b'"function_id":"iii::durable::publish"', False),
    ],
)
def test_only_the_payload_of_a_job_is_decoded(call: bytes, passes: bool) -> None:
    read = decode(b'{"type":"invokefunction",%s,"data":{"n":1e999}}' % call)
    assert isinstance(read, InvokeFunction) is passes


@pytest.mark.parametrize(("size", "passes"), [(1_048_575, False), (1_048_576, False), (1_048_577, True)])
def test_the_payload_of_a_job_is_decoded_up_to_1_mib(size: int, passes: bool) -> None:
    data = b'["%s",1e999]' % (b"x" * (size - 10))
    assert len(data) == size
    read = decode(
        b'{"type":"invokefunction","function_id":"f","action":{"type":"enqueue","queue":"q"},"data":%s}' % data
    )
    assert isinstance(read, InvokeFunction) is passes


ANSWERS = {
    "invocationresult": b'"invocation_id":"%s"' % ID.encode(),
    "triggerregistrationresult": b'"id":"b","trigger_type":"t","function_id":"f"',
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("body", [b'{"n":1e999}', b'{"code":"c","message":"m","n":1e999}', b"1e999"])
def test_an_unreadable_error_is_still_an_error(kind: str, body: bytes) -> None:
    read = decode(b'{"type":"%s",%s,"error":%s}' % (kind.encode(), ANSWERS[kind], body))
    assert isinstance(read, InvocationResult | TriggerRegistrationResult)
    error = from_json(bytes(read.error))
    assert isinstance(error, dict) and error["code"] == "serialization_error" and "range" in str(error["message"])


@pytest.mark.parametrize("kind", ANSWERS)
def test_errors_are_cut_when_they_come(kind: str) -> None:
    long = {"code": "c" * 9999, "message": "m" * 10**6, "stacktrace": "s" * 10**6, "more": 1}
    read: Any = decode(b'{"type":"%s",%s,"error":%s}' % (kind.encode(), ANSWERS[kind], json.dumps(long).encode()))
    error = json.loads(bytes(read.error))
    assert {name: len(text) for name, text in error.items()} == {"code": 256, "message": 8192, "stacktrace": 65536}
    assert error["message"].endswith("(1000000 characters in all)")


@pytest.mark.parametrize("body", [b"null", b'{ "code":"c","message":"m","more":[1]}', b'"text"', b"false", b'{"a":1}'])
def test_other_errors_pass_as_they_came(body: bytes) -> None:
    read: Any = decode(b'{"type":"invocationresult","invocation_id":"%s","error":%s}' % (ID.encode(), body))
    assert bytes(read.error) == body


def test_an_error_of_no_known_shape_and_any_size_is_not_kept() -> None:
    text = json.dumps({"type": "invocationresult", "invocation_id": ID, "error": "x" * 10**6}).encode()
    read: Any = decode(text)
    assert len(bytes(read.error)) < 200 and b"1000002 bytes" in bytes(read.error)


def test_a_reason_to_cancel_is_cut() -> None:
    read = decode(b'{"type":"cancelinvocation","invocation_id":"i","reason":"%s"}' % (b"x" * 10**6))
    assert isinstance(read, CancelInvocation) and len(read.reason) == 8192


# --- names


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("id", '{"type":"registerfunction","id":"%s"}'),
        ("id", '{"type":"registertriggertype","id":"%s"}'),
        ("namespace", '{"type":"registertriggertype","id":"t","namespace":"%s"}'),
        ("id", '{"type":"registertrigger","id":"%s","trigger_type":"t","function_id":"f"}'),
        ("trigger_type", '{"type":"registertrigger","id":"b","trigger_type":"%s","function_id":"f"}'),
        ("function_id", '{"type":"registertrigger","id":"b","trigger_type":"t","function_id":"%s"}'),
        ("trigger_namespace",
         '{"type":"registertrigger","id":"","trigger_type":"","function_id":"","trigger_namespace":"%s"}'),
        ("function_id", '{"type":"invokefunction","function_id":"%s"}'),
        ("namespace", '{"type":"invokefunction","function_id":"f","namespace":"%s"}'),
        ("queue", '{"type":"invokefunction","function_id":"f","action":{"type":"enqueue","queue":"%s"}}'),
    ],
)  # fmt: skip
def test_names_are_bounded(field: str, text: str) -> None:
    assert not isinstance(decode((text % ("é" * MAX_NAME)).encode()), Undecodable)
    read = decode((text % ("é" * (MAX_NAME + 1))).encode())
    assert isinstance(read, Undecodable)
    assert str(MAX_NAME) in read.problem and field in read.problem
    assert all(len(name) <= MAX_NAME for name in (read.function_id, *read.names.values()))


def test_an_invocation_id_of_any_length_is_not_sent_back() -> None:
    read = decode(b'{"type":"invokefunction","function_id":"f","invocation_id":"%s"}' % (b"x" * 5000))
    assert isinstance(read, Undecodable) and read.invocation_id is None


# --- the caller's id


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"{}", b'{"_caller_worker_id":"w"}'),
        (b"{ \n}", b'{"_caller_worker_id":"w"}'),
        (b'{"a": 1 }', b'{"a": 1 ,"_caller_worker_id":"w"}'),
        (b'{"_caller_worker_id":"forged"}', b'{"_caller_worker_id":"w"}'),
        (
            b'{"a":[1, 2],"_caller_worker_id":{"x":1},"b":"\\u00e9"}',
            b'{"a":[1, 2],"b":"\\u00e9","_caller_worker_id":"w"}',
        ),
        (b'{"\\u005fcaller_worker_id":1}', b'{"_caller_worker_id":"w"}'),
        (b'{"\\u005Fcaller_worker_i\\u0064":1,"c":2}', b'{"c":2,"_caller_worker_id":"w"}'),
        (b'{"_ca\\u006c\\u006cer_wor\\u006ber_id":1,"_caller_worker_id":2}', b'{"_caller_worker_id":"w"}'),
        (b'{"a":{"_caller_worker_id":1}}', b'{"a":{"_caller_worker_id":1},"_caller_worker_id":"w"}'),
        (b'{"a":"_caller_worker_id"}', b'{"a":"_caller_worker_id","_caller_worker_id":"w"}'),
        (b'{"\\\\u005fcaller_worker_id":1}', b'{"\\\\u005fcaller_worker_id":1,"_caller_worker_id":"w"}'),
        (b'["_caller_worker_id"]', b'["_caller_worker_id"]'),
        (b"null", b"null"),
    ],
)
def test_the_callers_id_is_there_once_and_is_ours(data: bytes, sent: bytes) -> None:
    assert with_caller_id(data, FIELD) == sent


# --- the diagnosis

HUGE = 4 * 1024 * 1024


@pytest.mark.parametrize(
    "text",
    [
        b"[" * HUGE, b'"' * HUGE, b'{"a":' * (HUGE // 5), b"[]" * (HUGE // 2), b'{"a":"\\' * (HUGE // 7), b"{" * HUGE + b"}",
        b'{"type":"invokefunction","data":[' + b"[1]," * (HUGE // 4), b" " * HUGE, b"\\" * HUGE, b'{"' + b"x" * HUGE,
        b'{"type":"ping",' + b'"a":"b",' * (HUGE // 8), b'{"n":' + b"9" * HUGE, b"\xff" * HUGE,
    ],
    ids=lambda text: repr(bytes(text[:16])),
)  # fmt: skip
def test_the_diagnosis_reads_little_of_any_text(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    matched = read = 0

    class Counting:
        def __init__(self, pattern: Any) -> None:
            self.pattern = pattern

        def match(self, text: bytes, at: int = 0) -> Any:
            nonlocal matched, read
            assert len(text) <= diagnosis.HEAD_BYTES
            found = self.pattern.match(text, at)
            matched, read = matched + 1, read + (len(found[0]) if found else 0)
            return found

        def search(self, text: bytes) -> Any:
            nonlocal read
            read += len(text)
            return self.pattern.search(text)

    class CountingRe:
        def compile(self, pattern: Any) -> Counting:
            return Counting(re.compile(pattern))

        def match(self, pattern: Any, text: bytes) -> Any:
            return self.compile(pattern).match(text)

        def search(self, pattern: Any, text: Any) -> Any:
            # The text of the decoder's own complaint is short.
            return self.compile(pattern).search(text) if isinstance(text, bytes) else re.search(pattern, text)

    monkeypatch.setattr(diagnosis, "re", CountingRe())
    assert isinstance(decode(text), Undecodable)
    assert matched <= 3 * diagnosis.MAX_TOKENS + 1
    assert read <= 4 * diagnosis.HEAD_BYTES


@pytest.mark.parametrize(
    "filler", [b"x" * 200_000, b'\\"[{' * 50_000, b"{" * 70_000], ids=["plain", "quotes", "braces"]
)
@pytest.mark.parametrize("bad", [b"NaN", b'"\\ud800"', b"01"])
def test_ids_behind_a_large_payload_are_found(filler: bytes, bad: bytes) -> None:
    text = b'{"type":"invokefunction","data":{"a":"%s","n":%s,"invocation_id":"no"},"function_id":"f","invocation_id":"%s"}'
    read = decode(text % (filler, bad, ID.encode()))
    assert isinstance(read, Undecodable)
    assert (read.type, read.function_id, read.invocation_id) == ("invokefunction", "f", ID)


@pytest.mark.parametrize("at", [10, 100_000, 1_000_000])
def test_what_only_pythons_json_allows_is_named_far_into_a_text(at: int) -> None:
    read = decode(invoke(b'["%s",NaN,1]' % (b"x" * at)))
    assert isinstance(read, Undecodable) and "NaN is not JSON" in read.problem


def test_a_raw_part_that_is_kept_is_what_came() -> None:
    read = decode(b'{"type":"registertrigger","id":"b","trigger_type":"t","function_id":"f","config":{ "a" : 1 }}')
    assert read.config == Raw(b'{ "a" : 1 }')  # type: ignore[union-attr]
