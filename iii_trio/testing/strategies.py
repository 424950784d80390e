"""Hypothesis strategies for payloads, refs, frames, splits, conversations and failures.

Needs Hypothesis (the extra `test`). Property tests of async code are synchronous `@given` tests that call `simulate`, or
`simulate_conversation`, which have a `trio.run` and a clock of their own for each example.
"""

from __future__ import annotations

import math
from typing import Any

import hypothesis.strategies as st

from ..transport.frames import BINARY, CLOSE, PING, PONG, TEXT, close_payload, frame
from ..wire import Direction, JsonValue, Ref
from .conversations import Conversation, Ending, Fault, Item, Mishap, Stream
from .sim_stream import Conditions

EDGES = (0, 1, 125, 126, 127, 65_535, 65_536)
"""Sizes at which a frame's head changes, and their neighbours."""

_STORABLE = st.characters(exclude_categories=["Cs"])


def json_values(max_leaves: int = 10) -> st.SearchStrategy[JsonValue]:
    """Payloads: JSON values that every peer can write and read."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(_STORABLE, max_size=20)
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(_STORABLE, max_size=8), inner, max_size=4),
        max_leaves=max_leaves,
    )


def refs() -> st.SearchStrategy[Ref]:
    """Draw refs of a valid form, which name no real channel."""
    return st.builds(Ref, st.uuids(version=4).map(str), st.uuids(version=4).map(str), st.sampled_from(Direction))


def payloads_with_refs(max_leaves: int = 10) -> st.SearchStrategy[JsonValue]:
    """Payloads in which refs may stand anywhere."""
    return st.recursive(
        json_values(1) | refs().map(Ref.to_json),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(_STORABLE, max_size=8), inner, max_size=4),
        max_leaves=max_leaves,
    )


def items(max_size: int = 300) -> st.SearchStrategy[Item]:
    """Draw an item of a channel, bytes or text."""
    return st.binary(max_size=max_size) | st.text(_STORABLE, max_size=max_size // 3)


def large_items() -> st.SearchStrategy[Item]:
    """Items of the sizes at which something changes, cheap to draw."""
    sizes = st.sampled_from(EDGES)
    return sizes.map(bytes) | sizes.map(lambda size: "x" * size)


def masks() -> st.SearchStrategy[bytes | None]:
    """Draw a frame's mask, or none."""
    return st.none() | st.binary(min_size=4, max_size=4)


@st.composite
def frames(draw: st.DrawFn, mask: bytes | None = None) -> bytes:
    """Whole, valid frames of every kind, masked with `mask` if there is one."""
    opcode = draw(st.sampled_from((TEXT, BINARY, PING, PONG, CLOSE)))
    match opcode:
        case _ if opcode == TEXT:
            payload = draw(st.text(_STORABLE, max_size=50)).encode()
        case _ if opcode == CLOSE:
            payload = close_payload(draw(st.sampled_from((1000, 1001, 3000, 4001))), draw(st.text("abc", max_size=20)))
        case _:
            payload = draw(st.binary(max_size=125))
    return bytes(frame(opcode, payload, mask=mask)) if mask is not None else bytes(frame(opcode, payload))


@st.composite
def splits(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Ways to cut `data` into pieces, as a network may."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def conditions() -> st.SearchStrategy[Conditions]:
    """Networks, from a perfect one to a rough one."""
    return st.builds(
        Conditions,
        delay_seconds=st.sampled_from((0.0, 0.001, 0.1)),
        jitter_seconds=st.sampled_from((0.0, 0.05)),
        bytes_per_second=st.sampled_from((math.inf, 100_000.0)),
        segment_bytes=st.sampled_from((65_536, 1_460, 100, 7)),
        split=st.sampled_from((0.0, 0.5)),
        merge=st.sampled_from((1.0, 0.5, 0.0)),
        short_writes=st.sampled_from((0.0, 0.5)),
        lost_by_reset=st.sampled_from((0.0, 1.0)),
        send_buffer_bytes=st.sampled_from((65_536, 1_000, 100)),
        receive_buffer_bytes=st.sampled_from((65_536, 1_000, 100)),
    )


def faults(workers: int) -> st.SearchStrategy[Fault]:
    """Something that goes wrong with one of so many workers, or with the engine."""
    return st.builds(
        Fault,
        at=st.sampled_from((0.0, 0.01, 0.1, 1.0, 5.0)),
        mishap=st.sampled_from(Mishap),
        worker=st.integers(0, workers - 1),
        lasts=st.sampled_from((0.0, 1.0, 10.0, 200.0)),
    )


def fault_plans(workers: int, max_size: int = 2) -> st.SearchStrategy[tuple[Fault, ...]]:
    """Draw the failures of one history."""
    return st.lists(faults(workers), max_size=max_size).map(tuple)


def streams(workers: int, max_items: int = 8) -> st.SearchStrategy[Stream]:
    """Draw a channel between some of so many workers."""
    waits = st.sampled_from((0.0, 0.0, 0.5))
    who: Any = st.integers(0, workers - 1)
    return st.builds(
        Stream,
        items=st.lists(items(), max_size=max_items).map(tuple),
        ending=st.sampled_from(Ending),
        takes=st.none() | st.integers(0, max_items),
        owner=who,
        writer=who,
        reader=who,
        buffer_size=st.sampled_from((64, 2, 1)),
        writer_waits=waits,
        writer_pauses=waits,
        reader_waits=waits,
        reader_pauses=waits,
    )


@st.composite
def conversations(draw: st.DrawFn, max_streams: int = 3, faulty: bool = True) -> Conversation:
    """Draw some workers, some streams between them, a network and its faults."""
    workers = draw(st.lists(st.sampled_from(("memory", "network")), min_size=1, max_size=3).map(tuple))
    return Conversation(
        workers=workers,  # type: ignore[arg-type]
        streams=draw(st.lists(streams(len(workers)), min_size=1, max_size=max_streams).map(tuple)),
        faults=draw(fault_plans(len(workers))) if faulty else (),
        conditions=draw(conditions()),
    )
