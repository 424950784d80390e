"""Parameters without a value in the address of a channel's end."""

from __future__ import annotations

import pytest

from iii_trio.errors import MessageError
from iii_trio.wire import Direction, Ref, attach_target, read_attach_target


def test_a_parameter_without_a_value_stays_in_the_address() -> None:
    target = attach_target(Ref("c1", "k", Direction.READ), "/base?token=&zone=a")
    assert target == "/base/ws/channels/c1?token=&zone=a&key=k&dir=read"


def test_an_empty_key_behind_another_counts() -> None:
    """The last one counts even if it is empty, because SDKs append theirs."""
    with pytest.raises(MessageError, match="key"):
        read_attach_target("/ws/channels/c1", "key=k&dir=read&key=")
