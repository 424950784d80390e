"""Payloads from `--json` and `key=value` arguments."""

from __future__ import annotations

from typing import Any

import pytest

from iii_trio.cli.exits import UsageError
from iii_trio.cli.payload import make_payload, with_ref


@pytest.mark.parametrize(
    ("text", "pairs", "payload"),
    [
        (None, [], {}),
        ("[1, 2]", [], [1, 2]),
        ("null", [], None),
        (None, ["n=1", "x=-1.5", "on=true", "none=null"], {"n": 1, "x": -1.5, "on": True, "none": None}),
        (None, ["name=Ada", "empty=", "sum=a=b"], {"name": "Ada", "empty": "", "sum": "a=b"}),
        (None, ['quoted="1"'], {"quoted": "1"}),
        (None, ['deep={"a": [1]}', "broken={a"], {"deep": {"a": [1]}, "broken": "{a"}),
        (None, ["nan=NaN"], {"nan": "NaN"}),
        ('{"a": 1, "b": 2}', ["b=3"], {"a": 1, "b": 3}),
    ],
)
def test_pairs_are_json_or_text_and_override_the_keys_of_json(text: str | None, pairs: list[str], payload: Any) -> None:
    assert make_payload(text, pairs) == payload


@pytest.mark.parametrize(
    ("text", "pairs", "sentence"),
    [
        (None, ["a"], "'a' is not a key=value pair; write for example name=a"),
        (None, ["=1"], "'=1' is not a key=value pair; write for example name=1"),
        (None, ["a=1", "a=2"], "'a' is given twice; keep one of the two"),
        ("{", [], "--json is not JSON: Expecting property name enclosed in double quotes at character 2 of '{'"),
        ('{"a": NaN}', [], "--json is not JSON: NaN does not exist in JSON"),
        ("3", ["a=1"], "--json is a number, which has no keys for 'a=1'; give an object, or no pairs"),
    ],
)
def test_what_is_no_payload_is_said_in_one_sentence(text: str | None, pairs: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_payload(text, pairs)
    assert str(caught.value) == sentence


def test_json_that_is_too_deep_is_no_payload() -> None:
    with pytest.raises(UsageError, match="--json is not JSON"):
        make_payload("[" * 100_000, [])
    assert make_payload(None, ["a=" + "[" * 100_000])["a"].startswith("[[")


def test_a_ref_never_replaces_a_key() -> None:
    assert with_ref({"a": 1}, "reader", "ref") == {"a": 1, "reader": "ref"}
    with pytest.raises(UsageError) as caught:
        with_ref({"reader": 1}, "reader", "ref")
    said = "'reader' is the key of the channel; name another one with --as, or leave out reader=…"
    assert str(caught.value) == said
    with pytest.raises(UsageError, match=r"^--json is a list, but the channel goes under the key 'reader'; give"):
        with_ref([], "reader", "ref")
