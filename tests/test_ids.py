"""Ids are UUIDs of version 4, each another."""

from __future__ import annotations

import uuid

from iii_trio.ids import new_id


def test_ids_are_uuids_of_version_4_and_differ() -> None:
    ids = [new_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    for text in ids:
        read = uuid.UUID(text)
        assert str(read) == text and read.version == 4 and read.variant == uuid.RFC_4122
    for place in (i for i in range(36) if ids[0][i] != "-" and i != 14):  # every digit varies
        assert len({text[place] for text in ids}) == (4 if place == 19 else 16)
