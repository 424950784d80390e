"""Each message in its smallest form, as it is read and written."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from msgspec import Raw, structs

from iii_trio.wire import Message, Undecodable, decode, encode
from iii_trio.wire.messages import is_given

SMALLEST: dict[str, dict[str, Any]] = {
    "registertriggertype": {"id": "t"},
    "unregistertriggertype": {"id": "t"},
    "registerfunction": {"id": "f"},
    "unregisterfunction": {"id": "f"},
    "registertrigger": {"id": "b", "trigger_type": "t", "function_id": "f"},
    "unregistertrigger": {"id": "b"},
    "triggerregistrationresult": {"id": "b", "trigger_type": "t", "function_id": "f"},
    "registerservice": {"id": "s"},
    "invokefunction": {"function_id": "f"},
    "invocationresult": {"invocation_id": "i"},
    "ping": {},
    "pong": {},
    "workerregistered": {"worker_id": "w"},
    "reattach": {"previous_worker_id": "w"},
    "registrationrejected": {"code": "c", "namespace": "n", "owner_worker_id": "w"},
    "error": {},
    "cancelinvocation": {"invocation_id": "i"},
    "channelended": {"channel_id": "c", "outcome": "completed"},
}


def test_every_message_is_here() -> None:
    assert {kind.__struct_config__.tag for kind in get_args(Message)} == SMALLEST.keys()


@pytest.mark.parametrize("kind", SMALLEST)
def test_the_smallest_form_of_a_message_is_read_and_written_as_it_is(kind: str) -> None:
    text = json.dumps({"type": kind, **SMALLEST[kind]}, separators=(",", ":")).encode()
    message = decode(text)
    assert not isinstance(message, Undecodable) and encode(message) == text
    for field in structs.fields(message):
        if field.name not in SMALLEST[kind]:
            value = getattr(message, field.name)
            assert any(value is one or value == one for one in (None, Raw(), "", False, ()))


@pytest.mark.parametrize("kind", SMALLEST)
def test_a_message_needs_each_field_of_its_smallest_form(kind: str) -> None:
    for field in SMALLEST[kind]:
        fields = {name: value for name, value in SMALLEST[kind].items() if name != field}
        read = decode(json.dumps({"type": kind, **fields}).encode())
        assert isinstance(read, Undecodable) and field in read.problem


@pytest.mark.parametrize(
    ("payload", "given"), [(b"", False), (b"null", False), (b"0", True), (b'""', True), (b"{}", True)]
)
def test_a_payload_is_given_unless_it_is_absent_or_null(payload: bytes, given: bool) -> None:
    assert is_given(Raw(payload)) is given
