"""The effects: what the flight recorder writes of them, and that nobody changes one on its way."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from iii_trio.core.effects import Deliver, Effect, Send


def test_a_message_is_written_as_an_array_that_says_whether_it_may_be_refused() -> None:
    assert msgspec.json.encode(Send("s", b"text")) == b'["Send","s","dGV4dA=="]'
    assert msgspec.json.encode(Deliver("s", b"text", "i")) == b'["Deliver","s","dGV4dA==","i"]'


@pytest.mark.parametrize("kind", get_args(Effect))
def test_an_effect_cannot_be_changed(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen is True
