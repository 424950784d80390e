"""`Queues`: each method asks one function of the engine, with exactly its payload, and returns a part of the answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from iii_trio import CallError, ChannelBroken, Queues


@attrs.define(eq=False)
class Asked:
    """A worker that notes what is asked through it, and gives one answer to everything."""

    answer: Any
    calls: list[tuple[str, Any]] = attrs.field(factory=list)

    async def trigger(self, function_id: str, payload: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.calls.append((function_id, payload))
        return self.answer


ANSWER = {
    "state": "done",
    "queues": [1], "jobs": [2], "after": 7, "was": "ready", "purged": 3, "redriven": 4, "discarded": 5,
}  # fmt: skip
NO_LIMITS = {"state": None, "function_id": None, "older_than_seconds": None, "newer_than_seconds": None}
CALLS: list[tuple[Callable[[Queues], Any], str, dict[str, Any], Any]] = [
    (lambda q: q.list(), "engine::queue::list", {}, [1]),
    (lambda q: q.jobs("a"), "engine::queue::jobs", {"queue": "a", **NO_LIMITS, "after": 0, "limit": 50}, ([2], 7)),
    (
        lambda q: q.jobs(
            "a", kind="topic", state="dead", function="f", older_than_seconds=1, newer_than_seconds=2, after=3, limit=4
        ),
        "engine::queue::jobs",
        {
            "topic": "a",
            "state": "dead",
            "function_id": "f",
            "older_than_seconds": 1,
            "newer_than_seconds": 2,
            "after": 3,
            "limit": 4,
        },
        ([2], 7),
    ),
    (lambda q: q.job("i"), "engine::queue::job", {"id": "i", "payload_bytes": 4096}, ANSWER),
    (lambda q: q.job("i", payload_bytes=1), "engine::queue::job", {"id": "i", "payload_bytes": 1}, ANSWER),
    (lambda q: q.wait("i"), "engine::queue::wait", {"id": "i"}, ANSWER),
    (lambda q: q.cancel("i"), "engine::queue::cancel", {"id": "i"}, "ready"),
    (lambda q: q.purge("a"), "engine::queue::purge", {"queue": "a", "dry_run": False}, 3),
    (
        lambda q: q.purge("a", kind="topic", function="f", namespace="n", dry_run=True),
        "engine::queue::purge",
        {"topic": "a", "function_id": "f", "namespace": "n", "dry_run": True},
        3,
    ),
    (lambda q: q.pause("a", namespace="n"), "engine::queue::pause", {"queue": "a"}, None),
    (lambda q: q.pause("a", function="f"), "engine::queue::pause", {"queue": "a", "function_id": "f"}, None),
    (lambda q: q.resume("a", kind="queue"), "engine::queue::resume", {"queue": "a"}, None),
    (
        lambda q: q.resume("a", kind="topic", function="f", namespace="n"),
        "engine::queue::resume",
        {"topic": "a", "function_id": "f", "namespace": "n"},
        None,
    ),
    (
        lambda q: q.unsubscribe("t", "f"),
        "engine::queue::unsubscribe",
        {"topic": "t", "function_id": "f", "dry_run": False},
        3,
    ),
    (
        lambda q: q.unsubscribe("t", "f", namespace="n", dry_run=True),
        "engine::queue::unsubscribe",
        {"topic": "t", "function_id": "f", "namespace": "n", "dry_run": True},
        3,
    ),
    (
        lambda q: q.dead_letters("a"),
        "engine::queue::dlq_messages",
        {"queue": "a", "offset": 0, "limit": 50, "payloads": True},
        ANSWER,
    ),
    (
        lambda q: q.dead_letters("a", kind="topic", offset=1, limit=2, payloads=False),
        "engine::queue::dlq_messages",
        {"topic": "a", "offset": 1, "limit": 2, "payloads": False},
        ANSWER,
    ),
    (
        lambda q: q.redrive("a"),
        "iii::queue::redrive",
        {"queue": "a", "count": None, "to_function_id": None, "to_namespace": None},
        4,
    ),
    (
        lambda q: q.redrive("a", kind="topic", count=9, to_function="f", to_namespace="n"),
        "iii::queue::redrive",
        {"topic": "a", "count": 9, "to_function_id": "f", "to_namespace": "n"},
        4,
    ),
    (lambda q: q.redrive("a", "i"), "iii::queue::redrive_message", {"queue": "a", "message_id": "i"}, 4),
    (lambda q: q.discard("a"), "engine::queue::discard", {"queue": "a", "dry_run": False}, 5),
    (lambda q: q.discard("a", dry_run=True), "engine::queue::discard", {"queue": "a", "dry_run": True}, 5),
    (lambda q: q.discard("a", "i"), "iii::queue::discard_message", {"queue": "a", "message_id": "i"}, 4),
]


@pytest.mark.parametrize(("ask", "function_id", "payload", "result"), CALLS)
async def test_a_method_asks_one_function(
    ask: Callable[[Queues], Any], function_id: str, payload: dict[str, Any], result: Any
) -> None:
    worker = Asked(ANSWER)
    assert await ask(Queues(worker)) == result  # type: ignore[arg-type]
    assert worker.calls == [(function_id, payload)]


class OfIII(Asked):
    """A worker of an engine that has iii's own functions only."""

    async def trigger(self, function_id: str, payload: Any) -> Any:
        await super().trigger(function_id, payload)
        if function_id == "engine::queue::jobs":
            raise CallError("function_not_found", "no such function")
        return self.answer


async def test_an_engine_that_cannot_tell_whether_a_queue_exists_calls_it_empty() -> None:
    assert await Queues(OfIII([])).dead_letters("a") == []  # type: ignore[arg-type]
    assert await Queues(OfIII({"redriven": 0})).redrive("a") == 0  # type: ignore[arg-type]


class Backed(Asked):
    """A worker whose channel gives some pieces and then an error, or its end."""

    pieces: list[bytes]
    fails: Exception | None
    refuses: Exception | None

    async def trigger(self, function_id: str, payload: Any) -> Any:
        await super().trigger(function_id, payload)
        if self.refuses is not None:
            raise self.refuses
        return {}

    @asynccontextmanager
    async def create_channel(self) -> Any:
        worker = self

        class Reader:  # no generator: one that is left half-way would have to be closed
            def __init__(self) -> None:
                self.left = list(worker.pieces)

            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> bytes:
                await trio.lowlevel.checkpoint()
                if self.left:
                    return self.left.pop(0)
                if worker.refuses is not None:
                    await trio.sleep_forever()
                if worker.fails is not None:
                    raise worker.fails
                raise StopAsyncIteration

        @attrs.define
        class Channel:
            reader: Reader
            writer_ref: str

        yield Channel(Reader(), "the ref")


@pytest.mark.parametrize(
    ("fails", "refuses"), [(None, None), (ChannelBroken("aborted", "cut"), None), (None, CallError("c", "no disk"))]
)
async def test_a_backup_is_whole_or_raises(fails: Exception | None, refuses: Exception | None) -> None:
    worker = Backed(None)
    worker.pieces, worker.fails, worker.refuses = [b"abc", b"de"], fails, refuses
    taken: list[bytes] = []

    async def take(piece: bytes) -> None:
        await trio.lowlevel.checkpoint()
        taken.append(piece)

    error = fails or refuses
    if error is None:
        assert await Queues(worker).backup(take) == 5 and taken == [b"abc", b"de"]  # type: ignore[arg-type]
    else:
        with pytest.raises(type(error)) as caught:
            await Queues(worker).backup(take)  # type: ignore[arg-type]
        assert caught.value is error
    assert worker.calls == [("engine::queue::backup", {"writer": "the ref"})]
