"""A channel's ends in a worker's hands, and their keeper, without an engine: each promise of their methods, exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from iii_trio.errors import AttachRefused, ChannelBroken, ConnectionFailed, MisuseError
from iii_trio.transport.link import EndReason, Identity
from iii_trio.wire import ChannelEnded, Direction, ErrorCode, Outcome, Ref
from iii_trio.worker.calls import WorkerSession
from iii_trio.worker.channels import ENGINES_DEFAULT, channel_request, open_channel, ref_of
from iii_trio.worker.end_keeper import EndKeeper
from iii_trio.worker.ends import ChannelReader, ChannelResult, ChannelWriter
from iii_trio.worker.outcomes import Outcomes

WRITE, READ = Ref("c", "kw", Direction.WRITE), Ref("c", "kr", Direction.READ)
BROKEN = ChannelBroken("reader_lost", "it crashed")


@attrs.define(eq=False)
class FakeEnd:
    """What an address attaches: it notes what is done to it, and waits where it is told to."""

    calls: list[tuple[Any, ...]] = attrs.field(factory=list)
    items: list[bytes | str] = attrs.field(factory=list)
    waits: bool = False
    raises: Exception | None = None
    free: trio.Event = attrs.field(factory=trio.Event)

    async def _do(self, *call: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(call)
        if self.waits:
            await self.free.wait()
        if self.raises is not None:
            raise self.raises

    async def put(self, item: bytes | str) -> None:
        await self._do("put", item)

    async def wait_room(self) -> None:
        await self._do("wait_room")

    async def close(self) -> None:
        await self._do("close")

    async def take(self) -> bytes | str:
        await self._do("take")
        if not self.items:
            raise trio.EndOfChannel
        return self.items.pop(0)

    def abort(self, reason: str, code: str | None = None) -> None:
        self.calls.append(("abort", reason, code))

    def cancel(self, reason: str, code: str | None = None) -> None:
        self.calls.append(("cancel", reason, code))

    def told(self, end: EndReason) -> None:
        self.calls.append(("told", end))


@attrs.define(eq=False)
class Owner:
    """The owner of ends. It attaches at once, unless it is told to wait."""

    end: FakeEnd = attrs.field(factory=FakeEnd)
    attaches: bool = True
    held: list[Any] = attrs.field(factory=list)

    def hold(self, end: Any) -> None:
        self.held.append(end)
        if self.attaches:
            end._started(self.end)

    async def wait_outcome(self, channel_id: str) -> ChannelResult:
        await trio.lowlevel.checkpoint()
        return ChannelResult("completed", channel_id)


def writer(owner: Owner) -> ChannelWriter:
    return ChannelWriter(owner, WRITE)


def reader(owner: Owner) -> ChannelReader:
    return ChannelReader(owner, READ)


Make = Callable[[Owner], Any]
BOTH = pytest.mark.parametrize("make", [writer, reader])


def use(end: Any) -> Callable[[], Any]:
    """Return the method that uses an end."""
    return (lambda: end.send(b"x")) if isinstance(end, ChannelWriter) else end.receive


@pytest.mark.parametrize(("kind", "ref"), [(ChannelWriter, READ), (ChannelReader, WRITE)])
def test_an_end_is_of_its_direction(kind: Any, ref: Ref) -> None:
    with pytest.raises(MisuseError, match=f"its direction is {ref.direction}"):
        kind(Owner(), ref)


@BOTH
async def test_an_end_is_attached_once_at_its_first_use(make: Make) -> None:
    owner = Owner()
    owner.end.items = [b"1", b"2"]
    end = make(owner)
    assert owner.held == [] and not end._used and end.channel_id == "c"
    for _ in range(2):
        with trio.testing.assert_checkpoints():
            await use(end)()
    assert owner.held == [end] and end._used and len(owner.end.calls) == 2
    assert await end.wait_outcome() == ChannelResult("completed", "c")


@BOTH
async def test_a_second_task_is_busy_and_changes_nothing(make: Make) -> None:
    owner = Owner()
    owner.end.items, owner.end.waits = [b"1", b"2"], True
    end = make(owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use(end))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match=r"another task is (sending to|receiving from)"):
            await use(end)()
        owner.end.free.set()
    await use(end)()


@BOTH
async def test_a_use_that_is_cancelled_leaves_the_end_free(make: Make) -> None:
    for attaches in (False, True):
        owner = Owner(attaches=attaches)
        owner.end.items, owner.end.waits = [b"1"], True
        end = make(owner)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use(end))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        owner.end.waits = False
        if not attaches:
            end._started(owner.end)
        await use(end)()
        assert owner.held == [end]


@BOTH
@pytest.mark.parametrize(
    "error", [AttachRefused(404, "no"), ConnectionFailed("gone"), BROKEN, trio.BrokenResourceError()]
)
async def test_an_end_that_cannot_be_attached_raises_at_every_use(make: Make, error: Any) -> None:
    owner = Owner(attaches=False)
    end = make(owner)
    async with trio.open_nursery() as nursery:

        async def fails() -> None:
            with pytest.raises(type(error)) as caught:
                await use(end)()
            assert caught.value is error

        nursery.start_soon(fails)
        await trio.testing.wait_all_tasks_blocked()
        end._not_attached(error)
    await fails()


@BOTH
async def test_a_closed_end_is_closed_for_good(make: Make) -> None:
    owner = Owner()
    end = make(owner)
    end._use()
    await end.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await use(end)()
    calls = list(owner.end.calls)
    with trio.testing.assert_checkpoints():
        await end.aclose()
    getattr(end, "abort" if make is writer else "cancel")("again")
    assert owner.end.calls == calls and len(calls) == 1


@BOTH
async def test_an_end_broken_while_it_was_closed_here_says_closed(make: Make) -> None:
    """What this side did says more than what came of it."""
    owner = Owner()
    owner.end.waits, owner.end.raises = True, BROKEN
    end = make(owner)
    for closes in (False, True):
        async with trio.open_nursery() as nursery:

            async def run(closes: bool = closes) -> None:
                with pytest.raises(trio.ClosedResourceError if closes else ChannelBroken):
                    await use(end)()

            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            if closes:
                end._end_by_force("here")
            owner.end.free.set()
        owner.end.free = trio.Event()


@BOTH
async def test_force_before_the_attaching_is_told_behind_it(make: Make) -> None:
    owner = Owner(attaches=False)
    end = make(owner)
    end._end_by_force("odd \ud800 text", "code")
    end._end_by_force("again", "other")
    assert owner.held == [end] and owner.end.calls == []
    end._started(owner.end)
    (call,) = owner.end.calls
    assert call[0] == ("abort" if make is writer else "cancel") and call[2] == "code"
    assert "text" in call[1] and call[1].encode()


@BOTH
async def test_the_word_of_the_engine_goes_to_what_is_attached(make: Make) -> None:
    owner = Owner(attaches=False)
    end = make(owner)
    news = EndReason(Outcome.ABORTED, "why")
    end._on_channel_end(news)
    end._use()
    end._started(owner.end)
    end._on_channel_end(news)
    assert owner.end.calls == [("told", news)]


@BOTH
async def test_who_ends_an_end(make: Make) -> None:
    assert make(Owner())._is_left_to_its_call
    lent = make(Owner())
    assert lent.ref == (WRITE if make is writer else READ) and not lent._is_left_to_its_call and not lent._used
    detached = make(Owner())
    assert detached.detach() is detached and not detached._is_left_to_its_call
    used = make(Owner())
    used._use()
    assert used.ref and used._is_left_to_its_call and used._used, "passing on what was used changes nothing"


@BOTH
async def test_a_block_closes_its_end_or_ends_it_by_force(make: Make) -> None:
    owner = Owner()
    async with make(owner) as end:
        end._use()
    assert owner.end.calls == ([("close",)] if make is writer else [("cancel", "the reader closed", None)])
    owner = Owner()
    with pytest.raises(KeyError):
        async with make(owner) as end:
            end._use()
            raise KeyError("k")
    (call,) = owner.end.calls
    assert call == ("abort" if make is writer else "cancel", "'k'", ErrorCode.INVOCATION_FAILED)


async def test_a_writer_takes_bytes_and_unicode_and_nothing_else() -> None:
    owner = Owner()
    end = writer(owner)

    class Bytes(bytes):
        pass

    for item in (b"b", Bytes(b"s"), bytearray(b"a"), memoryview(b"m"), "text", "é\U0001f600"):
        await end.send(item)  # type: ignore[arg-type]
    sent = [call[1] for call in owner.end.calls]
    assert sent == [b"b", b"s", b"a", b"m", "text", "é\U0001f600"]
    for wrong, error in ((3, TypeError), (None, TypeError), ("\ud800", ValueError)):
        with pytest.raises(error):
            await end.send(wrong)  # type: ignore[arg-type]
    assert len(owner.end.calls) == 6


async def test_a_close_while_an_item_is_on_its_way_is_an_abort() -> None:
    owner = Owner()
    owner.end.waits = True
    end = writer(owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.send, b"x")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="the stream was aborted"), trio.testing.assert_checkpoints():
            await end.aclose()
        assert owner.end.calls[1:] == [("abort", "the writer was closed while an item was still being sent", None)]
        nursery.cancel_scope.cancel()


async def test_a_close_while_a_task_waits_for_room_lets_it_go() -> None:
    owner = Owner()
    owner.end.waits = True
    end = writer(owner)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await end.wait_room()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        owner.end.waits = False
        await end.aclose()
    assert owner.end.calls == [("wait_room",), ("close",)]


async def test_a_close_that_is_cancelled_is_an_abort() -> None:
    owner = Owner()
    owner.end.waits = True
    end = writer(owner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(end.aclose)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert owner.end.calls[1:] == [("abort", "the writer was cancelled while closing", ErrorCode.INVOCATION_CANCELLED)]
    await end.aclose()


async def test_a_close_that_fails_is_over_and_a_checkpoint() -> None:
    owner = Owner()
    owner.end.raises = BROKEN
    end = writer(owner)
    with pytest.raises(ChannelBroken), trio.testing.assert_checkpoints():
        await end.aclose()
    await end.aclose()
    assert owner.end.calls == [("close",)]
    failed = Owner(attaches=False)
    end = writer(failed)
    end._not_attached(ConnectionFailed("gone"))
    with pytest.raises(ConnectionFailed):
        await end.aclose()
    await end.aclose()
    assert failed.held == [end]


async def test_what_was_put_back_comes_first_and_uses_nothing() -> None:
    owner = Owner()
    owner.end.items = [b"3"]
    end = reader(owner)
    end.put_back(b"2")
    end.put_back(b"1")
    with trio.testing.assert_checkpoints():
        assert await end.receive() == b"1"
    assert await end.receive() == b"2" and owner.held == []
    assert await end.receive() == b"3" and owner.held == [end]


async def test_all_bytes_of_a_stream_and_no_text() -> None:
    owner = Owner()
    owner.end.items = [b"a", b"b"]
    assert await reader(owner).read_all() == b"ab"
    owner.end.items = [b"a", "text", b"b"]
    end = reader(owner)
    with pytest.raises(TypeError):
        await end.read_all()
    assert await end.receive() == "text"


# --- channels and what asks for them


@pytest.mark.parametrize(
    ("bounds", "request_"),
    [
        ((None, None, ENGINES_DEFAULT), {"buffer_size": None}),
        ((1, 1, None), {"buffer_size": 1, "max_bytes": 1, "expires_after_ms": None}),
        ((1024, 2**53, 0.5), {"buffer_size": 1024, "max_bytes": 2**53, "expires_after_ms": 500}),
        ((None, None, 0.001), {"buffer_size": None, "expires_after_ms": 1}),
    ],
)
def test_a_channel_is_asked_for_with_its_bounds(bounds: Any, request_: dict[str, Any]) -> None:
    assert channel_request(*bounds) == request_


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        ((0, None, None), "buffer_size is 0; give 1 to 1024"),
        ((1025, None, None), "buffer_size is 1025"),
        ((-1, None, None), "buffer_size is -1"),
        ((True, None, None), "buffer_size is True; give an integer"),
        ((1.5, None, None), "buffer_size is 1.5; give an integer"),
        ((None, 0, None), "max_bytes is 0"),
        ((1, 2**53 + 1, None), f"max_bytes is {2**53 + 1}; give 1 to {2**53}"),
        ((None, None, 0), "expires_after_seconds is 0; give a positive number"),
        ((None, None, -1), "expires_after_seconds is -1"),
        ((None, None, float("inf")), "expires_after_seconds is inf"),
        ((None, None, float("nan")), "expires_after_seconds is nan"),
    ],
)
def test_bounds_that_no_engine_takes_are_a_misuse(bounds: Any, named: str) -> None:
    with pytest.raises(MisuseError) as refused:
        channel_request(*bounds)
    assert str(refused.value).startswith(named)


def test_a_ref_may_be_json() -> None:
    assert ref_of(WRITE) is WRITE and ref_of(WRITE.to_json()) == WRITE
    for wrong in ({}, {"channel_id": 3}, {**WRITE.to_json(), "direction": "up"}):
        with pytest.raises(MisuseError):
            ref_of(wrong)


@pytest.mark.parametrize("used", ["neither", "writer", "reader", "both"])
@pytest.mark.parametrize("way", ["left", "raised", "detached", "lent"])
async def test_a_block_ends_all_ends_but_those_that_were_only_passed_on(used: str, way: str) -> None:
    owner = Owner()

    async def create() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"reader": READ.to_json(), "writer": WRITE.to_json()}

    try:
        async with open_channel(owner, create) as channel:
            assert channel.id == "c"
            if way == "lent":
                assert channel.reader_ref == READ and channel.writer_ref == WRITE
            if used in ("writer", "both"):
                channel.writer._use()
            if used in ("reader", "both"):
                channel.reader._use()
            if way == "detached":
                channel.reader.detach()
                channel.writer.detach()
            if way == "raised":
                raise KeyError("k")
    except KeyError:
        assert way == "raised"
    calls = owner.end.calls
    if way == "detached":
        assert calls == []
        return
    clean = [("close",)], [("cancel", "the block was left", None)]
    forced = [("abort", "'k'", ErrorCode.INVOCATION_FAILED)], [("cancel", "'k'", ErrorCode.INVOCATION_FAILED)]
    for_writer, for_reader = forced if way == "raised" else clean
    # A ref that was taken first is lent, but an end that is used here after all stays here.
    ours = ("writer", "reader", "both") if way != "lent" else (used,)
    expected = (for_writer if {"writer", "both"} & set(ours) else []) + (
        for_reader if {"reader", "both"} & set(ours) else []
    )
    assert list(dict.fromkeys(calls)) == expected  # this owner attaches at once, and then an end is ended twice


async def test_a_channel_that_ended_otherwise_leaves_its_block_in_peace() -> None:
    owner = Owner()
    owner.end.raises = BROKEN

    async def create() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"reader": READ.to_json(), "writer": WRITE.to_json()}

    async with open_channel(owner, create) as channel:
        channel.writer._use()
    assert owner.end.calls[0] == ("close",)
    async with open_channel(owner, create):
        owner.end.raises = AttachRefused(404, "there is no such channel")


# --- the keeper


@attrs.define(eq=False)
class FakeAddress:
    """An address that notes who attaches, and holds until `free`."""

    attached: list[tuple[str, Ref, Identity | None]] = attrs.field(factory=list)
    ends: list[FakeEnd] = attrs.field(factory=list)
    free: trio.Event = attrs.field(factory=trio.Event)
    raises: Exception | None = None

    async def _attach(self, kind: str, ref: Ref, identity: Identity | None, task_status: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.attached.append((kind, ref, identity))
        if self.raises is not None:
            raise self.raises
        self.ends.append(FakeEnd())
        task_status.started(self.ends[-1])
        await self.free.wait()

    async def attach_writer(self, ref: Ref, identity: Identity | None, *, task_status: Any) -> None:
        await self._attach("writer", ref, identity, task_status)

    async def attach_reader(self, ref: Ref, identity: Identity | None, *, task_status: Any) -> None:
        await self._attach("reader", ref, identity, task_status)

    def __str__(self) -> str:
        return "ws://there"


@attrs.define(eq=False)
class FakeSession:
    worker_id: str = "w"
    channel_secret: str | None = "s"
    supports_extensions: bool = True
    outcomes: dict[str, trio.Event] = attrs.field(factory=dict)


def keeper(address: FakeAddress, nursery: trio.Nursery, session: FakeSession | None) -> EndKeeper:
    async def wait_session() -> WorkerSession:
        await trio.lowlevel.checkpoint()
        assert session is not None
        return session  # type: ignore[return-value]

    logger: Any = Logged()
    made = EndKeeper(address, nursery, lambda: session, wait_session, logger)  # type: ignore[arg-type, return-value]
    made.lines = logger.lines  # type: ignore[attr-defined]
    return made


@attrs.define
class Logged:
    lines: list[str] = attrs.field(factory=list)

    def info(self, text: str, *arguments: Any) -> None:
        self.lines.append(text % arguments)


@pytest.mark.parametrize(
    ("session", "identity"),
    [
        (None, None),
        (FakeSession(), Identity("w", "s", "i")),
        (FakeSession(supports_extensions=False), None),
        (FakeSession(channel_secret=None), None),
    ],
)
@pytest.mark.parametrize("ref", [WRITE, READ])
async def test_an_end_is_attached_as_the_session_that_holds_it(
    session: FakeSession | None, identity: Identity | None, ref: Ref
) -> None:
    address = FakeAddress()
    async with trio.open_nursery() as nursery:
        keeping = keeper(address, nursery, session)
        end: Any = keeping.open(ref, "i")
        assert type(end) is (ChannelWriter if ref is WRITE else ChannelReader)
        end._use()
        await trio.testing.wait_all_tasks_blocked()
        assert address.attached == [("writer" if ref is WRITE else "reader", ref, identity)]
        # News of its channel reaches it, and news of another one does not.
        for channel_id in ("c", "other"):
            news = ChannelEnded(channel_id, "aborted", "why", "code")
            keeping.on_channel_ended(session or FakeSession(), news)  # type: ignore[arg-type]
        assert address.ends[0].calls == [("told", EndReason(Outcome.ABORTED, "why", "code"))]
        address.free.set()
        await trio.testing.wait_all_tasks_blocked()
        assert keeping._held == {}


async def test_an_outcome_of_a_newer_engine_is_kept_and_told_to_no_end() -> None:
    address, session = FakeAddress(), FakeSession()
    async with trio.open_nursery() as nursery:
        keeping = keeper(address, nursery, session)
        news: list[ChannelEnded] = []
        keeping.on_ended = news.append
        keeping.open(WRITE, None)._use()  # type: ignore[union-attr]
        await trio.testing.wait_all_tasks_blocked()
        message = ChannelEnded("c", "transcended", "why")
        keeping.on_channel_ended(session, message)  # type: ignore[arg-type]
        assert news == [message] and address.ends[0].calls == []
        assert await keeping.wait_outcome("c") == ChannelResult("transcended", "why")  # type: ignore[arg-type]
        address.free.set()


async def test_an_outcome_is_waited_for_or_cannot_be_told() -> None:
    address, session = FakeAddress(), FakeSession()
    async with trio.open_nursery() as nursery:
        keeping = keeper(address, nursery, session)
        got: list[ChannelResult] = []

        async def wait() -> None:
            got.append(await keeping.wait_outcome("c"))

        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        keeping.on_channel_ended(session, ChannelEnded("c", "completed", ""))  # type: ignore[arg-type]
        with trio.testing.assert_checkpoints():
            await wait()
        await trio.testing.wait_all_tasks_blocked()
        assert got == [ChannelResult("completed", "")] * 3
        session.supports_extensions = False
        with pytest.raises(MisuseError, match="ws://there does not tell how channels end"):
            await keeping.wait_outcome("other")
        assert (await keeping.wait_outcome("c")).outcome == "completed"


async def test_a_link_that_is_lost_ends_the_wait_for_an_outcome() -> None:
    outcomes, session = Outcomes(), FakeSession()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(ConnectionFailed, match="before the channel's outcome was told"):
                await outcomes.wait(session, "c")  # type: ignore[arg-type]

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        session.outcomes["c"].set()


def test_the_latest_thousand_outcomes_are_kept() -> None:
    outcomes, session = Outcomes(), FakeSession()
    for index in range(1001):
        outcomes.add(session, str(index), ChannelResult("completed", ""))  # type: ignore[arg-type]
    assert len(outcomes) == 1000 and "0" not in outcomes and {"1", "1000"} <= set(outcomes)


async def test_leaving_ends_every_end_by_force_and_attaches_no_more() -> None:
    address = FakeAddress()
    async with trio.open_nursery() as nursery:
        keeping = keeper(address, nursery, FakeSession())
        ends: list[Any] = [keeping.open(ref, None) for ref in (WRITE, READ, WRITE)]
        for end in ends:
            end._use()
        closing = ChannelWriter(keeping, Ref("closing", "k", Direction.WRITE))
        closing._use()
        await trio.testing.wait_all_tasks_blocked()
        # Trio starts tasks in any order.
        by_ref = dict(zip([ref.channel_id for _, ref, _ in address.attached], address.ends, strict=True))
        by_ref["closing"].waits = True
        keeping.finish_later(closing)
        await trio.testing.wait_all_tasks_blocked()
        assert by_ref["closing"].calls == [("close",)]
        finished = False

        async def wait() -> None:
            nonlocal finished
            await keeping.wait_finished()
            finished = True

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert not finished
        keeping.close()
        await trio.testing.wait_all_tasks_blocked()
        assert finished and keeping._finishing == {}
        forced = sorted(end.calls[-1][:2] for end in address.ends if end is not by_ref["closing"])
        assert forced == [("abort", "the worker left"), ("abort", "the worker left"), ("cancel", "the worker left")]
        assert by_ref["closing"].calls[-1][0] == "abort"
        late: Any = keeping.open(WRITE, None)
        with pytest.raises(ConnectionFailed, match="the worker has left ws://there"):
            await late.send(b"x")
        assert len(address.attached) == 4
        address.free.set()


@pytest.mark.parametrize("error", [None, BROKEN, trio.ClosedResourceError(), ConnectionFailed("gone")])
async def test_a_stream_that_outlives_its_call_is_closed_and_a_failure_is_a_line(error: Exception | None) -> None:
    address = FakeAddress()
    async with trio.open_nursery() as nursery:
        keeping = keeper(address, nursery, FakeSession())
        end: Any = keeping.open(WRITE, None)
        end._use()
        await trio.testing.wait_all_tasks_blocked()
        address.ends[0].raises = error
        keeping.finish_later(end)
        await keeping.wait_finished()
        lines: list[str] = keeping.lines  # type: ignore[attr-defined]
        assert address.ends[0].calls == [("close",)] and len(lines) == (error is not None)
        assert all(line.startswith("a stream that a handler wrote did not end well: ") for line in lines)
        address.free.set()


@pytest.mark.parametrize("error", [AttachRefused(404, "no"), BROKEN, trio.BrokenResourceError()])
async def test_an_end_that_cannot_be_attached_is_held_no_more(error: Exception) -> None:
    address = FakeAddress(raises=error)
    async with trio.open_nursery() as nursery:
        keeping = keeper(address, nursery, None)
        first: Any = keeping.open(WRITE, None)
        second: Any = keeping.open(WRITE, None)
        for end in (first, second):
            end._use()
        assert keeping._held == {"c": [first, second]}
        await trio.testing.wait_all_tasks_blocked()
        assert keeping._held == {}
        with pytest.raises(type(error)):
            await first.send(b"x")
