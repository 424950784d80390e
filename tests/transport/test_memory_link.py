"""A link without a socket: heard at once, delivered to the last, ended once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from iii_trio.transport.link import EndReason
from iii_trio.transport.memory_link import MemoryLink


def new_link() -> tuple[MemoryLink, list[bytes], list[str]]:
    heard: list[bytes] = []
    gone: list[str] = []
    return MemoryLink(heard.extend, gone.append), heard, gone


async def test_what_is_sent_is_heard_at_once_and_in_order() -> None:
    link, heard, _ = new_link()
    link.send(b"one")
    link.send(b"two")
    assert heard == [b"one", b"two"]
    await link.wait_room()


async def test_what_was_put_before_the_end_is_still_delivered() -> None:
    link, _, gone = new_link()
    assert link.put(b"one", bound=100) and link.put(b"two", bound=100)
    link.hang_up(1000, "the engine left")
    link.hang_up(None, "said later")
    assert link.ended == EndReason(None, "the engine left") and not gone
    assert [await link.receive(), await link.receive(), await link.receive()] == [b"one", b"two", None]
    link.close()
    assert not gone


async def test_closing_is_told_once_and_nothing_is_sent_after_it() -> None:
    link, heard, gone = new_link()
    link.close("done")
    link.close()
    link.send(b"too late")
    assert gone == ["done"] and not heard
    assert link.put(b"nobody is there to take it", bound=100)
    assert await link.receive() is None


async def test_it_is_bounded_by_bytes_but_takes_one_message_of_any_size() -> None:
    link, _, _ = new_link()
    assert link.put(b"x" * 1000, bound=10)
    assert not link.put(b"y", bound=10)
    await link.receive()
    assert link.put(b"y" * 6, bound=10) and not link.put(b"z" * 6, bound=10) and link.put(b"z" * 4, bound=10)


async def test_a_listener_hears_everything_in_order_until_the_end() -> None:
    link, _, _ = new_link()
    messages = [b"%d" % number for number in range(200)]  # more than are passed on in one turn
    for message in messages[:150]:
        link.put(message, bound=10_000)
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.listen, heard.append)
        await trio.testing.wait_all_tasks_blocked()
        assert heard == messages[:150]
        assert link.put(b"x" * 10, bound=10)  # there is room again
        for message in messages[150:]:
            link.put(message, bound=10_000)
        link.hang_up(None, "over")
    assert heard == [*messages[:150], b"x" * 10, *messages[150:]]


async def test_what_a_listener_causes_to_be_said_to_it_follows_in_its_turn() -> None:
    link, _, _ = new_link()
    heard: list[bytes] = []

    def hear(message: bytes) -> None:
        if message == b"question":
            link.put(b"answer", bound=100)
            link.flush()  # as the engine does, at the end of the step that this led to
        heard.append(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.listen, hear)
        await trio.testing.wait_all_tasks_blocked()
        for message in b"question", b"other":
            link.put(message, bound=100)
        assert not heard  # the step is not over
        link.flush()
        assert heard == [b"question", b"other", b"answer"]
        link.hang_up(None, "over")


async def test_what_one_step_of_the_engine_says_is_bracketed_together() -> None:
    link, heard, _ = new_link()
    seen: list[str] = []

    class Brackets:
        def begin(self) -> None:
            seen.append("begin")
            link.hold_output()

        def end(self) -> None:
            seen.append("end")
            assert heard == []
            link.flush_output()

    def hear(message: bytes) -> None:
        seen.append(message.decode())
        link.send(b"answer to " + message)

    link.bracket(Brackets())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.listen, hear)
        await trio.testing.wait_all_tasks_blocked()
        link.flush()
        assert seen == []  # there was nothing to hear
        for message in b"one", b"two":
            link.put(message, bound=100)
        link.flush()
        assert seen == ["begin", "one", "two", "end"] and heard == [b"answer to one", b"answer to two"]
        link.send(b"later")
        assert heard[2:] == [b"later"]
        link.hang_up(None, "over")


@asynccontextmanager
async def listener_that_fails(link: MemoryLink, hear: Callable[[bytes], object], why: str) -> AsyncIterator[None]:
    """Have a link listened to by a function whose failure ends the listening, which has to be by the end of the block."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with pytest.raises(ZeroDivisionError, match=why):
                await link.listen(hear)

        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        yield


async def test_a_bracket_ends_also_where_a_listener_fails() -> None:
    link, _, _ = new_link()
    seen: list[str] = []

    class Brackets:
        def begin(self) -> None:
            seen.append("begin")

        def end(self) -> None:
            seen.append("end")

    def hear(message: bytes) -> None:
        raise ZeroDivisionError(message)

    link.bracket(Brackets())
    async with listener_that_fails(link, hear, "one"):
        link.put(b"one", bound=100)
        link.flush()
    assert seen == ["begin", "end"]


async def test_a_bracket_that_fails_at_its_end_ends_the_listening_and_not_the_step_of_the_engine() -> None:
    link, heard, _ = new_link()

    class Brackets:
        def begin(self) -> None:
            pass

        def end(self) -> None:
            raise ZeroDivisionError("at the end")

    link.bracket(Brackets())
    async with listener_that_fails(link, link.send, "at the end"):
        link.put(b"one", bound=100)
        link.flush()
        assert heard == [b"one"]


async def test_what_a_listener_raises_ends_its_listening_and_not_the_step_of_the_engine() -> None:
    link, _, _ = new_link()
    heard: list[bytes] = []

    def hear(message: bytes) -> None:
        heard.append(message)
        raise ZeroDivisionError(message)

    async with listener_that_fails(link, hear, "one"):
        for message in b"one", b"two":
            link.put(message, bound=100)
        link.flush()
    assert heard == [b"one"]


async def test_what_comes_after_a_cancelled_listener_waits() -> None:
    link, _, _ = new_link()
    heard: list[bytes] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.listen, heard.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    link.put(b"later", bound=10)
    assert not heard and await link.receive() == b"later"


async def test_a_cancelled_receive_loses_nothing() -> None:
    link, _, _ = new_link()
    with trio.CancelScope() as scope:
        scope.cancel()
        await link.receive()
    link.put(b"one", bound=10)
    with trio.CancelScope() as scope:
        scope.cancel()
        await link.receive()
    assert await link.receive() == b"one"


async def test_the_end_wakes_who_waits(autojump_clock: trio.testing.MockClock) -> None:
    link, _, _ = new_link()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await link.receive() is None

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        link.close()


def test_an_end_has_a_reason() -> None:
    link, _, gone = new_link()
    link.close()
    assert gone == ["it closed"] and link.ended == EndReason(None, "it closed")
    with pytest.raises(AttributeError):
        link.ended.reason = "else"  # type: ignore[misc, union-attr]


async def test_what_is_gathered_is_heard_together_and_before_the_end() -> None:
    heard: list[list[bytes]] = []
    told: list[str] = []
    link = MemoryLink(heard.append, lambda reason: told.append(f"{reason} after {len(heard)}"), gathered=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve)
        await trio.testing.wait_all_tasks_blocked()
        link.send(b"one")
        link.send(b"two")
        assert not heard
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [[b"one", b"two"]]
        link.send(b"last")
        link.close("done")
    assert heard == [[b"one", b"two"], [b"last"]] and told == ["done after 2"]


async def test_what_is_gathered_is_heard_when_its_task_is_cancelled_but_not_by_an_engine_that_hung_up() -> None:
    heard: list[bytes] = []
    link = MemoryLink(heard.extend, lambda reason: None, gathered=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.serve)
        await trio.testing.wait_all_tasks_blocked()
        link.send(b"one")
        nursery.cancel_scope.cancel()
    assert heard == [b"one"]
    link.send(b"two")
    link.hang_up(None, "the engine left")
    link.send(b"three")
    await link.serve()
    assert heard == [b"one"]
