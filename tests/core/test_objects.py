"""Values cannot change, and things are told apart by identity: see `tests/helpers/objects.py`."""

from __future__ import annotations

from typing import get_args

import iii_trio.core
import iii_trio.wire
from iii_trio.core.effects import Effect
from iii_trio.wire import Message
from tests.helpers.objects import classes_of, unruly_classes


def test_an_object_of_the_core_is_a_value_or_a_thing() -> None:
    assert unruly_classes(iii_trio.core) == set()
    assert set(get_args(Effect)) <= set(classes_of(iii_trio.core))


def test_what_the_wire_reads_is_a_value_but_for_messages_and_the_shapes_of_telemetry() -> None:
    messages = {kind.__name__ for kind in get_args(Message)}
    assert {name for name in unruly_classes(iii_trio.wire) if not name.startswith("_")} == messages
