"""Calls that are passed on together, and what they leave behind."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import iii_trio
from iii_trio.errors import CallError
from iii_trio.lowlevel import call_nowait, register_inline_handler, wait_link_lost
from iii_trio.transport.outbox import Outbox
from iii_trio.transport.remote_link import RemoteLink
from iii_trio.triggers.cluster import passing
from iii_trio.triggers.cluster.passing import PassedCall
from iii_trio.triggers.cluster.records import FUNCTION, Key
from iii_trio.triggers.cluster.together import Together
from iii_trio.wire import InvokeFunction

from .mesh_world import MeshWorld, mesh_world


class FakeLink:
    """Notes what is done to it."""

    def __init__(self, does: list[str]) -> None:
        self.does = does

    def hold_output(self) -> None:
        self.does.append("hold")

    def flush_output(self) -> None:
        self.does.append("flush")


def test_a_link_is_held_once_until_the_last_read_ends() -> None:
    does: list[str] = []
    link, together = FakeLink(does), Together()
    together.hold(link)  # type: ignore[arg-type]
    assert does == []  # nothing would end it
    with together:
        together.hold(link)  # type: ignore[arg-type]
        # A call that fails at once is answered within the read of another link.
        with together:
            together.hold(link)  # type: ignore[arg-type]
        assert does == ["hold"]
    assert does == ["hold", "flush"]
    with together:
        pass
    assert does == ["hold", "flush"]


def test_a_link_that_fails_keeps_no_other_link_held() -> None:
    class Failing(FakeLink):
        def flush_output(self) -> None:
            raise RuntimeError("a bug")

    does: list[str] = []
    together = Together()
    with pytest.raises(RuntimeError, match="a bug"), together:
        for link in (FakeLink(does), Failing(does), FakeLink(does), Failing(does), FakeLink(does)):
            together.hold(link)  # type: ignore[arg-type]
    assert does == ["hold"] * 5 + ["flush"] * 3


async def test_calls_that_come_together_leave_together(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:

            @shop.function("double")
            async def double(n: int) -> int:
                if n < 0:
                    raise CallError("negative", str(n))
                return 2 * n

            await shop.wait_registered()
            await world.settle()
            written: list[int] = []
            write_now = Outbox._write_now

            def counted(self: Outbox, stream: object) -> None:
                written.append(self.waiting_bytes)
                write_now(self, stream)  # type: ignore[arg-type]

            answers: dict[int, int] = {}

            async def ask(n: int) -> None:
                answers[n] = await app.trigger("double", {"n": n})

            monkeypatch.setattr(Outbox, "_write_now", counted)
            async with trio.open_nursery() as nursery:
                for n in range(64):
                    nursery.start_soon(ask, n)
            assert answers == {n: 2 * n for n in range(64)}
            # One at a time they are 64 of the caller, and six for each call on its further way.
            assert len(written) < 64 + 5 * 20, len(written)


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks that serve links within a process."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += "InProcess.connect" in task.name


@asynccontextmanager
async def caller_of_another_node() -> AsyncIterator[iii_trio.Worker]:
    """Open a mesh, and a worker that has called `price` of another node once."""
    async with mesh_world("a", "b") as world:
        async with world.open_worker("a", "shop", "network") as shop, world.open_worker("b", "app", "network") as app:

            @shop.function("price")
            async def price(n: int) -> int:
                return n

            await shop.wait_registered()
            await world.settle()
            await app.trigger("price", {"n": 1})
            yield app


async def test_an_answer_is_passed_on_in_the_step_that_read_it(autojump_clock: MockClock) -> None:
    async with caller_of_another_node() as app:
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for n in range(20):
            assert await app.trigger("price", {"n": n}) == n
        trio.lowlevel.remove_instrument(steps)
        assert steps.count < 10, steps.count


async def test_a_call_that_was_passed_on_leaves_nothing_for_the_cycle_collector(autojump_clock: MockClock) -> None:
    async with caller_of_another_node() as app:
        gc.collect()
        gc.disable()
        try:
            for n in range(20):
                assert await app.trigger("price", {"n": n}) == n
            # The collector's own count, because a list of what it found would keep that alive.
            found = gc.collect()
        finally:
            gc.enable()
        assert found < 20, found


async def test_calls_of_one_id_in_two_namespaces_do_not_share_an_answer(autojump_clock: MockClock) -> None:
    async with (
        mesh_world("a", "b") as world,
        world.open_worker("a", "north a", namespace="north") as north_a,
        world.open_worker("a", "south a", namespace="south") as south_a,
        world.open_worker("b", "north b", namespace="north") as north_b,
        world.open_worker("b", "south b", namespace="south") as south_b,
    ):
        answer = trio.Event()

        async def slow() -> str:
            await answer.wait()
            return "slow"

        for worker in (north_a, south_a):
            worker.register_function("slow", slow)
        await world.settle()
        id_ = "0af76519-16cd-43dd-8448-eb211c80319c"
        handles = []
        for worker, namespace in ((north_b, "north"), (south_b, "south")):
            handles.append(call_nowait(worker, InvokeFunction("slow", id_, namespace=namespace), lambda: None))
        await trio.sleep(1)
        with pytest.raises(CallError, match=f"An invocation with the id {id_} is under way already") as failed:
            handles[1].value()
        assert (failed.value.code, failed.value.origin) == ("invocation_error", "engine")
        answer.set()
        await world.until(lambda: handles[0].settled)
        assert handles[0].value() == "slow"
        assert world["b"].cluster.links["a"].calls == 0


async def test_a_relay_whose_session_was_lost_goes_on_with_the_next_one(autojump_clock: MockClock) -> None:
    async with mesh_world("a", "b") as world:
        async with (
            world.open_worker("a", "one") as one,
            world.open_worker("b", "two") as two,
            world.open_worker("b", "three") as three,
        ):
            one.register_function("there", _say("a"))
            three.register_function("here", _say("b"))
            b = world["b"].cluster
            here = Key(FUNCTION, "default", "here")
            # As if the function had come here while the call was on its way to another node.
            register_inline_handler(two, "ask", lambda call: b.proxies.call_here(PassedCall(call, here)))
            await world.settle()
            assert await two.trigger("ask") == await two.trigger("here") == "b"
            relay = b._relays.get("default")
            assert relay is not None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_link_lost, relay.worker)
                await trio.testing.wait_all_tasks_blocked()
                session = relay.worker._membership.session
                assert session is not None
                session.link.hang_up(None, "a bug")  # type: ignore[attr-defined]
            with pytest.raises(CallError, match="Function here not found"):
                await two.trigger("ask")
            await world.until(lambda: relay.worker.connected)
            await world.settle()
            assert await two.trigger("ask") == await two.trigger("here") == "b"
            assert await two.trigger("there") == "a"


# --- a link that is full


class Room:
    """Says whether connections to other nodes have room."""

    def __init__(self) -> None:
        self.is_there = trio.Event()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    room = Room()
    room.is_there.set()

    async def wait_room(link: RemoteLink) -> None:
        await room.is_there.wait()

    monkeypatch.setattr(RemoteLink, "has_room", property(lambda link: room.is_there.is_set()))
    monkeypatch.setattr(RemoteLink, "wait_room", wait_room)
    yield room


def _say(text: str):  # type: ignore[no-untyped-def]
    async def say() -> str:
        return text

    return say


@asynccontextmanager
async def full_link(room: Room) -> AsyncIterator[tuple[MeshWorld, iii_trio.Worker, list[object]]]:
    """A mesh in which a function of `a` is called from `b`, whose link is full from now on."""
    async with mesh_world("a", "b", "c") as world:
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            seen: list[object] = []

            @one.function("say")
            async def say(n: int, more: str = "") -> str:
                seen.append(n)
                return "a"

            await world.settle()
            room.is_there = trio.Event()
            yield world, two, seen


async def test_calls_that_wait_for_room_keep_their_order_and_cancelled_ones_leave_nothing(
    autojump_clock: MockClock, room: Room
) -> None:
    async with full_link(room) as (world, two, seen):
        link = world["b"].cluster.links["a"]
        cancelled = trio.CancelScope()

        async def call(n: int) -> None:
            with cancelled if n == 1 else trio.CancelScope():
                assert await two.trigger("say", {"n": n, "more": "x" * 1000}) == "a"

        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(call, n)
                await trio.sleep(0.1)
            assert link.calls == 4
            cancelled.cancel()
            await trio.sleep(0.1)
            assert link._passing is not None and link.calls == len(link._passing._waiting) == 3
            assert 3000 < link._passing._waiting_bytes < 3500 and seen == []
            room.is_there.set()
        assert seen == [0, 2, 3] and link.calls == link._passing._waiting_bytes == 0


async def test_calls_that_wait_for_room_are_refused_beyond_a_bound(
    autojump_clock: MockClock, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "_MAX_WAITING_BYTES", 3000)
    async with full_link(room) as (world, two, seen):
        answers: dict[int, object] = {}

        async def call(n: int) -> None:
            try:
                answers[n] = await two.trigger("say", {"n": n, "more": "x" * (5000 if n == 0 else 100)})
            except CallError as error:
                answers[n] = (error.code, error.message)

        async with trio.open_nursery() as nursery:
            for n in range(2):
                nursery.start_soon(call, n)
                await trio.sleep(0.1)
            # One call may be larger than the bound, and is the only one then.
            why = "node a does not take what waits for it; the call was not delivered"
            assert answers == {1: ("channel_send_failed", why)}
            room.is_there.set()
        assert answers[0] == "a" and seen == [0] and world["b"].cluster.links["a"].calls == 0


async def test_N3_a_call_that_waited_for_room_when_its_node_was_lost_goes_to_one_that_stands_by(
    autojump_clock: MockClock, room: Room
) -> None:
    async with full_link(room) as (world, two, seen):
        async with world.open_worker("c", "three") as three:
            room.is_there.set()
            three.register_function("say", lambda n: f"c {n}", request_format={})
            await world.settle()
            room.is_there = trio.Event()
            answers: list[object] = []

            async def call() -> None:
                answers.append(await two.trigger("say", {"n": 1}))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.sleep(0.1)
                await world.stop("a")
                room.is_there.set()
                await world.until(lambda: answers != [])
            assert answers == ["c 1"] and seen == []


async def test_N20_a_drain_does_not_wait_for_a_node_that_has_not_answered_its_first_dial(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh_world("b") as world:
        dial = world._dial

        async def never(here: str, there: str) -> trio.abc.Stream:
            if (here, there) == ("b", "a"):
                await trio.sleep_forever()
            return await dial(here, there)

        monkeypatch.setattr(world, "_dial", never)
        await world.start("a")
        async with world.open_worker("a", "one") as one, world.open_worker("b", "two") as two:
            one.register_function("say", _say("a"))
            b = world["b"].cluster
            await world.until(lambda: Key(FUNCTION, "default", "say") in b.proxies)
            codes: list[str] = []

            async def call() -> None:
                with pytest.raises(CallError, match=r"node a, which has it, cannot be reached|not found") as failed:
                    await two.trigger("say")
                codes.append(failed.value.code)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                await trio.sleep(1)
                assert b.links["a"].calls == 1
                began = trio.current_time()
                assert await world["b"].engine.drain(30)
                assert codes == ["function_not_found"] and trio.current_time() - began < 1
