"""Each bound of the wire, on both sides of it. The numbers stand here because peers rely on them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iii_trio.errors import CallError
from iii_trio.wire import InvocationResult, Undecodable, decode
from iii_trio.wire.bounds import check_engine_input, check_name

CALL = {"type": "invokefunction", "function_id": "f"}
ANSWER = {"type": "invocationresult", "invocation_id": "i"}
NAME, KIB_64 = 1024, 65_536
BOUNDED = [
    (CALL, "function_id", NAME),
    (CALL, "namespace", NAME),
    (CALL, "invocation_id", 128),
    (CALL, "traceparent", KIB_64),
    (CALL, "baggage", KIB_64),
    (ANSWER, "invocation_id", 128),
    (ANSWER, "function_id", NAME),
    (ANSWER, "baggage", KIB_64),
    ({"type": "registerfunction", "id": "f"}, "description", KIB_64),
    ({"type": "registertriggertype", "id": "t"}, "description", KIB_64),
    ({"type": "unregistertrigger", "id": "b"}, "trigger_type", NAME),
    ({"type": "cancelinvocation"}, "invocation_id", 128),
]


@pytest.mark.parametrize(("frame", "field", "bound"), BOUNDED, ids=lambda part: str(part)[:40])
def test_a_text_of_a_message_has_at_most_so_many_characters(frame: dict[str, str], field: str, bound: int) -> None:
    def read(length: int) -> Any:
        return decode(json.dumps({**frame, field: "é" * length}, ensure_ascii=False).encode())

    assert getattr(read(bound), field) == "é" * bound
    refused = read(bound + 1)
    assert isinstance(refused, Undecodable) and f"<= {bound}" in refused.problem and field in refused.problem


ERRORS = [("code", 256), ("message", 8192), ("stacktrace", 65_536)]


@pytest.mark.parametrize(("field", "bound"), ERRORS)
def test_a_text_of_an_error_is_cut_to_so_many_characters(field: str, bound: int) -> None:
    def read(length: int) -> str:
        error = {"code": "c", "message": "m", field: "x" * length}
        message = decode(json.dumps({**ANSWER, "error": error}).encode())
        assert isinstance(message, InvocationResult)
        return str(json.loads(bytes(message.error))[field])

    assert read(bound) == "x" * bound
    cut = read(bound + 1)
    assert len(cut) == bound and (field == "code" or cut.endswith(f"… ({bound + 1} characters in all)"))


@pytest.mark.parametrize(("size", "kept"), [(131_072, True), (131_073, False)])
@pytest.mark.parametrize("known", [True, False])
def test_an_error_keeps_its_other_fields_up_to_128_kib(size: int, kept: bool, known: bool) -> None:
    error = {"code": "c", "message": "m", "more": ""} if known else {"more": ""}
    error["more"] = "x" * (size - len(json.dumps(error)))
    body = json.dumps(error).encode()
    assert len(body) == size
    message: Any = decode(b'{"type":"invocationresult","invocation_id":"i","error":%s}' % body)
    assert (bytes(message.error) == body) is kept
    assert kept or json.loads(bytes(message.error))["code"] == ("c" if known else "invocation_failed")


@pytest.mark.parametrize("function_id", ["engine::workers::list", "engine::queue::enqueue", "iii::durable::publish"])
def test_a_payload_for_the_engine_has_at_most_1_mib_unless_it_holds_a_job(function_id: str) -> None:
    check_engine_input(function_id, 1_048_576)
    if function_id != "engine::workers::list":
        check_engine_input(function_id, 1_048_577)
        return
    with pytest.raises(CallError, match=r"is 1048577 bytes; .* at most 1048576") as caught:
        check_engine_input(function_id, 1_048_577)
    assert caught.value.code == "payload_too_large"


def test_a_name_in_a_payload_has_at_most_1024_characters() -> None:
    check_name("f", "namespace", None)
    check_name("f", "namespace", "é" * 1024)
    with pytest.raises(CallError, match="input for f: `namespace` has 1025 characters; at most 1024") as caught:
        check_name("f", "namespace", "é" * 1025)
    assert caught.value.code == "deserialization_error"


@pytest.mark.parametrize(("levels", "digits", "passes"), [(512, 4300, True), (513, 1, False), (1, 4301, False)])
def test_a_message_has_at_most_512_levels_and_integers_of_4300_digits(levels: int, digits: int, passes: bool) -> None:
    value = b"[" * (levels - 1) + b"9" * digits + b"]" * (levels - 1)
    read = decode(b'{"type":"invokefunction","function_id":"f","data":%s}' % value)
    assert isinstance(read, Undecodable) is not passes
