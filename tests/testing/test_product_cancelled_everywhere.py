"""The product's public operations, cancelled at every step in both ways: nothing hangs, nothing is left, nothing lies."""

from __future__ import annotations

import logging
from random import Random

import attrs
import pytest
import trio

import iii_trio
from iii_trio.environment import Environment
from iii_trio.testing import Network, cancel_everywhere
from iii_trio.testing.cancelling import Run, Seen

BOTH = pytest.mark.parametrize("over", ["memory", "network"])
ITEMS = [b"one", "two", b"three"]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def around(over: str) -> object:
    """An engine and its network; when the subject is over, the engine must be empty."""

    async def prepare(seen: Seen, run: Run) -> None:
        async with iii_trio.open_engine() as engine, trio.open_nursery() as nursery:
            network = Network(1)
            await nursery.start(network.run)

            def open_worker(name: str) -> object:
                address = engine.address if over == "memory" else network.address(engine, name)
                return iii_trio.open_worker(address, name=name, environment=Environment(rng=Random(1)))

            seen["open_worker"] = open_worker
            await run()
            await trio.sleep(60)
            seen["left"] = {kind: n for kind, n in attrs.asdict(engine.statistics()).items() if n}
            seen["outcomes"] = [str(channel.outcome) for channel in engine.ended_channels()]
            nursery.cancel_scope.cancel()

    return prepare


@BOTH
def test_opening_a_worker(over: str) -> None:
    async def subject(seen: Seen) -> None:
        async with seen["open_worker"]("a") as worker:
            seen["joined"] = worker.connected

    def check(seen: Seen) -> None:
        assert not seen["left"]

    cancel_everywhere(subject, check, around=around(over), others=True)  # type: ignore[arg-type]


@BOTH
def test_opening_a_worker_under_a_cancellation(over: str) -> None:
    async def subject(seen: Seen) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with seen["open_worker"]("a"):
                raise AssertionError("not reached")

    def check(seen: Seen) -> None:
        assert not seen["left"]

    cancel_everywhere(subject, check, around=around(over), others=True)  # type: ignore[arg-type]


@BOTH
def test_a_call(over: str) -> None:
    async def subject(seen: Seen) -> None:
        async with seen["open_worker"]("a") as worker:
            worker.register_function("echo", _echo)
            seen["answer"] = await worker.trigger("echo", {"value": 1})

    async def _echo(value: int) -> int:
        await trio.sleep(1)
        return value

    def check(seen: Seen) -> None:
        assert not seen["left"]
        assert seen.get("answer", 1) == 1

    cancel_everywhere(subject, check, around=around(over), others=True)  # type: ignore[arg-type]


@BOTH
def test_writing_a_stream_that_never_looks_complete_when_it_is_not(over: str) -> None:
    async def subject(seen: Seen) -> None:
        channel = seen["channel"]
        async with channel.writer as writer:
            for item in ITEMS:
                await writer.send(item)
        seen["closed"] = True

    async def with_a_reader(seen: Seen, run: Run) -> None:
        async def inner() -> None:
            async with (
                seen["open_worker"]("a") as worker,
                worker.create_channel(1) as channel,
                trio.open_nursery() as n,
            ):
                seen["channel"] = channel
                seen["got"] = []
                n.start_soon(read, channel.reader)
                await run()

        async def read(reader: iii_trio.ChannelReader) -> None:
            try:
                async for item in reader:
                    seen["got"].append(item)
                seen["how"] = "clean"
            except iii_trio.ChannelBroken as error:
                seen["how"] = error.outcome

        await around(over)(seen, inner)  # type: ignore[operator]

    def check(seen: Seen) -> None:
        assert not seen["left"]
        assert seen["got"] == ITEMS[: len(seen["got"])]
        if seen.get("closed") or seen.get("how") == "clean":
            assert (seen["got"], seen["how"], seen["outcomes"]) == (ITEMS, "clean", ["completed"])
        elif seen["outcomes"] != ["expired"]:
            assert (seen["how"], seen["outcomes"]) == ("aborted", ["aborted"])

    cancel_everywhere(subject, check, around=with_a_reader, others=True)


@BOTH
def test_reading_a_stream_of_which_nothing_is_lost(over: str) -> None:
    async def subject(seen: Seen) -> None:
        while True:
            try:
                seen["got"].append(await seen["reader"].receive())
            except trio.EndOfChannel:
                return

    async def with_a_writer(seen: Seen, run: Run) -> None:
        async def inner() -> None:
            async with (
                seen["open_worker"]("a") as worker,
                worker.create_channel(1) as channel,
                trio.open_nursery() as n,
            ):
                seen["got"], seen["reader"] = [], channel.reader
                n.start_soon(write, channel.writer)
                await run()
                await subject(seen)  # whoever comes next gets what is left

        async def write(writer: iii_trio.ChannelWriter) -> None:
            async with writer:
                for item in ITEMS:
                    await writer.send(item)

        await around(over)(seen, inner)  # type: ignore[operator]

    def check(seen: Seen) -> None:
        assert (seen["got"], seen["outcomes"], seen["left"]) == (ITEMS, ["completed"], {})

    cancel_everywhere(subject, check, around=with_a_writer, others=True)
