"""The refs of a channel: each end has its own key, and no key is shown."""

from __future__ import annotations

from iii_trio.core.channel import Channel
from iii_trio.wire import Direction


def channel() -> Channel:
    return Channel(
        id="c1",
        read_key="key-for-reading",
        write_key="key-for-writing",
        owner="w1",
        buffer_size=1,
        max_bytes=1,
        expires_after_seconds=None,
        created_at=0.0,
        touched_at=0.0,
    )


def test_each_end_has_its_own_key() -> None:
    one = channel()
    reading, writing = one.ref(Direction.READ), one.ref(Direction.WRITE)
    assert (reading.channel_id, reading.access_key, reading.direction) == ("c1", "key-for-reading", Direction.READ)
    assert (writing.channel_id, writing.access_key, writing.direction) == ("c1", "key-for-writing", Direction.WRITE)


def test_a_channel_in_a_traceback_shows_no_key() -> None:
    assert "c1" in repr(channel())
    assert "key-for" not in repr(channel())


def test_two_channels_are_never_equal() -> None:
    """Channels are compared as objects, because two engines may give the same id."""
    one = channel()
    assert one == one
    assert one != channel()
