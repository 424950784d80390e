"""The promises of the queue, Q1 to Q10, each by its number, under a virtual clock: docs/queue.md says what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import CallError, QueueSettings, enqueue
from iii_trio.triggers.queue import Change, MemoryStore, Put, StorageError
from tests.helpers.queue_world import Seen, be_lost, dead, inline, queueing, rows, settled

Clock = trio.testing.MockClock


class Gate:
    """Runs what blocks once it is open."""

    def __init__(self) -> None:
        self.open = trio.Event()
        self.waiting = 0

    async def __call__(self, function: Callable[[], Any]) -> Any:
        self.waiting += 1
        await self.open.wait()
        return await inline(function)


class FailingStore(MemoryStore):  # type: ignore[misc]  # final, for those who use it
    """Has no room while told so."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    def write(self, changes: Sequence[Change]) -> None:
        if self.full and any(isinstance(change, Put) for change in changes):
            raise StorageError("no room; make some")
        super().write(changes)


# --- Q1: an answer means that the job is kept


@pytest.mark.parametrize("how", ["enqueue", "publish"])
async def test_Q1_no_answer_leaves_before_the_commit_is_over_and_nothing_runs(autojump_clock: Clock, how: str) -> None:
    gate = Gate()
    gate.open.set()
    async with queueing(run_blocking=gate) as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        seen = Seen()

        @worker.subscribe("orders", "f")
        async def f(n: int) -> None:
            seen.add(n)

        await worker.wait_registered()
        await settled()
        gate.open = trio.Event()
        gate.waiting = 0
        answered = trio.Event()

        async def ask() -> None:
            if how == "enqueue":
                assert (await worker.trigger("f", {"n": 1}, action=enqueue())).id
            else:
                assert await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": 1}}) is None
            answered.set()

        nursery.start_soon(ask)
        await settled()
        assert (gate.waiting, answered.is_set(), list(seen)) == (1, False, [])
        gate.open.set()
        await answered.wait()
        await settled()
        assert seen == [(0.0, 1)]


async def test_Q1_what_cannot_be_kept_is_refused_and_never_runs_and_all_goes_on(autojump_clock: Clock) -> None:
    store = FailingStore()
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            seen.add(n)

        store.full = True
        with pytest.raises(CallError, match="no room; make some") as refused:
            await worker.trigger("f", {"n": 1}, action=enqueue())
        assert refused.value.code == "enqueue_error"
        store.full = False
        await worker.trigger("f", {"n": 2}, action=enqueue())
        await trio.sleep(10_000)
        assert seen.what == [2]
        assert (await rows(worker))["default"]["depth"] == 0


async def test_Q1_callers_that_wait_together_share_a_commit(autojump_clock: Clock) -> None:
    gate = Gate()
    gate.open.set()
    async with queueing(run_blocking=gate) as engine, engine.open_worker("w") as worker, trio.open_nursery() as nursery:
        await settled()
        gate.open, gate.waiting = trio.Event(), 0
        for n in range(100):
            nursery.start_soon(lambda n=n: worker.trigger("nobody", {"n": n}, action=enqueue()))
        await settled()
        gate.open.set()
        await settled()
        assert (await rows(worker))["default"]["depth"] == 100
        assert gate.waiting <= 2, "the first may go alone, all others go together"


async def test_Q1_jobs_beyond_the_bound_are_refused(autojump_clock: Clock) -> None:
    async with queueing(jobs=2) as engine, engine.open_worker("w") as worker:
        for _ in range(2):
            await worker.trigger("nobody", {}, action=enqueue())
        with pytest.raises(CallError, match="at most 2"):
            await worker.trigger("nobody", {}, action=enqueue())


# --- Q2: what ends the engine costs a job nothing


@pytest.mark.parametrize("drained", [False, True])
async def test_Q2_a_job_that_runs_when_the_engine_ends_is_run_anew_and_it_costs_nothing(
    autojump_clock: Clock, drained: bool
) -> None:
    store = MemoryStore()
    seen = Seen()

    async def work(engine: iii_trio.Engine) -> None:
        async with engine.open_worker("w") as worker:

            @worker.function("f")
            async def f(metadata: dict[str, Any]) -> None:
                seen.add(metadata["job"]["attempt"])
                await trio.sleep_forever()

            await trio.sleep_forever()

    for _ in range(5):  # more often than max_attempts and max_lost_deliveries would allow
        async with trio.open_nursery() as nursery:
            async with queueing(store) as engine:
                nursery.start_soon(work, engine)
                if not seen:
                    async with engine.open_worker("p") as producer:
                        await producer.trigger("f", {}, action=enqueue())
                await trio.sleep(1)
                if drained:
                    assert not await engine.drain(2)
            nursery.cancel_scope.cancel()
    assert seen.what == [1] * 5
    async with queueing(store) as engine, engine.open_worker("w") as worker:
        done = trio.Event()

        @worker.function("f")
        async def done_now() -> None:
            done.set()

        await done.wait()
        await settled()
    assert not list(store.load().jobs)


async def test_Q2_a_drain_lets_jobs_finish_and_begins_no_others(autojump_clock: Clock) -> None:
    store = MemoryStore()
    async with queueing(store, one=QueueSettings(concurrency=1)) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            await trio.sleep(5)
            seen.add(n)

        for n in range(3):
            await worker.trigger("f", {"n": n}, action=enqueue("one"))
        await trio.sleep(1)
        assert await engine.drain(60)
    assert seen == [(5.0, 0)]
    assert [(record.data, record.progress.attempts, record.progress.lost) for record in store.load().jobs] == [
        (b'{"n":1}', 0, 0),
        (b'{"n":2}', 0, 0),
    ]


# --- Q3: a worker that is lost


async def test_Q3_a_lost_worker_costs_no_attempt_and_the_third_one_makes_a_dead_letter(
    autojump_clock: Clock,
) -> None:
    lost = QueueSettings(max_attempts=1, backoff_seconds=7)
    async with queueing(mail=lost) as engine, engine.open_worker("w") as worker:
        seen = Seen()
        await worker.trigger("kill", {"n": 1}, action=enqueue("mail"))

        for _ in range(3):
            [message] = await be_lost(engine, "kill")
            seen.add(message["metadata"]["job"]["attempt"])
        await trio.sleep(1)
        (letter,) = await dead(worker, "mail")
    assert seen.what == [1, 1, 1]
    assert seen.times[1] - seen.times[0] < 1, "at once, as soon as its function is there"
    assert seen.times[2] - seen.times[1] == pytest.approx(7, abs=0.2), "it rests, from the second time on"
    assert (letter["code"], letter["retries"], letter["lost"]) == ("worker_lost", 0, 3)


async def test_Q3_an_error_that_only_looks_like_a_lost_worker_costs_an_attempt(autojump_clock: Clock) -> None:
    async with queueing(mail=QueueSettings(max_attempts=1)) as engine, engine.open_worker("w") as worker:

        @worker.function("f")
        async def f() -> None:
            raise CallError("invocation_stopped", "Invocation stopped")

        await worker.trigger("f", {}, action=enqueue("mail"))
        await trio.sleep(1)
        (letter,) = await dead(worker, "mail")
        assert (letter["code"], letter["retries"], letter["lost"]) == ("invocation_stopped", 1, 0)


# --- Q4: attempts that take long


async def test_Q4_a_job_whose_worker_lives_is_not_given_away_however_long_it_takes(
    autojump_clock: Clock,
) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f() -> None:
            seen.add("begun")
            await trio.sleep(80_000)
            seen.add("done")

        await worker.trigger("f", {}, action=enqueue())
        await trio.sleep(86_000)
        assert seen == [(0.0, "begun"), (80_000.0, "done")]
        assert (await rows(worker))["default"]["depth"] == 0


async def test_Q4_past_its_timeout_an_attempt_has_failed_and_its_handler_is_cancelled(
    autojump_clock: Clock,
) -> None:
    bounded = QueueSettings(max_attempts=2, visibility_timeout_seconds=10, backoff_seconds=5)
    async with queueing(mail=bounded) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(metadata: dict[str, Any]) -> None:
            try:
                await trio.sleep(60)
            finally:
                seen.add(metadata["job"]["attempt"])

        await worker.trigger("f", {}, action=enqueue("mail"))
        await trio.sleep(1000)
        assert seen == [(10.0, 1), (25.0, 2)]
        (letter,) = await dead(worker, "mail")
        assert letter["code"] == "visibility_timeout" and "10 s" in letter["message"]


# --- Q5: fifo


async def test_Q5_a_failing_job_blocks_its_own_group_only_and_keeps_its_order(autojump_clock: Clock) -> None:
    fifo = QueueSettings(fifo=True, group_by="account", max_attempts=3, backoff_seconds=10, concurrency=10)
    async with queueing(ledger=fifo) as engine, engine.open_worker("w") as worker:
        seen = Seen()
        tries = {"a1": 3}

        @worker.function("f")
        async def f(account: str, n: int) -> None:
            name = f"{account}{n}"
            tries[name] = tries.get(name, 1) - 1
            if tries[name]:
                raise ValueError(name)
            seen.add(name)

        for n in range(1, 4):
            for account in "ab":
                await worker.trigger("f", {"account": account, "n": n}, action=enqueue("ledger"))
        await trio.sleep(100)
        assert [name for name in seen.what if name[0] == "a"] == ["a1", "a2", "a3"]
        assert [time for time, name in seen if name[0] == "b"] == [0.0] * 3
        assert [time for time, name in seen if name[0] == "a"] == [30.0] * 3  # after pauses of 10 and 20


async def test_Q5_groups_run_side_by_side_up_to_the_concurrency_each_one_by_one(autojump_clock: Clock) -> None:
    fifo = QueueSettings(fifo=True, group_by="g", concurrency=2)
    async with queueing(ledger=fifo) as engine, engine.open_worker("w") as worker:
        running: set[int] = set()
        most = 0

        @worker.function("f")
        async def f(g: int) -> None:
            nonlocal most
            assert g not in running
            running.add(g)
            most = max(most, len(running))
            await trio.sleep(1)
            running.remove(g)

        for g in [1, 1, 1, 2, 2, 3]:
            await worker.trigger("f", {"g": g}, action=enqueue("ledger"))
        await trio.sleep(100)
        assert most == 2 and not await dead(worker, "ledger")


async def test_Q5_the_next_of_a_group_starts_once_the_end_of_the_one_before_is_kept(autojump_clock: Clock) -> None:
    gate = Gate()
    gate.open.set()
    fifo = QueueSettings(fifo=True, group_by="g")
    async with queueing(run_blocking=gate, ledger=fifo) as engine, engine.open_worker("w") as worker:
        seen = Seen()
        both_are_kept = trio.Event()

        @worker.function("f")
        async def f(n: int) -> None:
            seen.add(n)
            await both_are_kept.wait()

        for n in (1, 2):
            await worker.trigger("f", {"g": 1, "n": n}, action=enqueue("ledger"))
        await settled()
        gate.open = trio.Event()
        both_are_kept.set()
        await settled()
        assert seen.what == [1]
        gate.open.set()
        await settled()
        assert seen.what == [1, 2]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"other": 1}, "FIFO queue 'ledger' requires field 'account' in data, but it was not found"),
        ([1], "FIFO queue 'ledger' requires field 'account' in data, but it was not found"),
        ({"account": None}, "FIFO queue 'ledger': field 'account' must not be null"),
    ],
)
async def test_Q5_data_that_does_not_name_its_group_is_refused(autojump_clock: Clock, data: Any, text: str) -> None:
    async with (
        queueing(ledger=QueueSettings(fifo=True, group_by="account")) as engine,
        engine.open_worker("w") as worker,
    ):
        with pytest.raises(CallError) as refused:
            await worker.trigger("f", data, action=enqueue("ledger"))
        assert refused.value.code == "enqueue_error" and text in refused.value.message


async def test_Q5_a_message_without_the_group_that_one_subscriber_wants_is_published_all_the_same(
    autojump_clock: Clock,
) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.subscribe("orders", group_by="customer")
        async def grouped(n: int) -> None:
            await trio.sleep(1)
            seen.add(("grouped", n))

        @worker.subscribe("orders")
        async def plain(n: int) -> None:
            seen.add(("plain", n))

        await worker.wait_registered()
        await settled()
        for n, customer in enumerate([{}, {"customer": None}, {"customer": "ada"}]):
            await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": n, **customer}})
        await trio.sleep(10)
        assert sorted(what for what in seen.what if what[0] == "plain") == [("plain", n) for n in range(3)]
        in_turn = [(time, n) for time, (kind, n) in seen if kind == "grouped"]
        assert sorted(in_turn) == [(1.0, 0), (1.0, 2), (2.0, 1)], "what has no group is of one"


# --- Q6: attempts


async def test_Q6_failures_are_tried_again_after_growing_pauses_up_to_a_ceiling(
    autojump_clock: Clock,
) -> None:
    mail = QueueSettings(max_attempts=6, backoff_seconds=1, max_backoff_seconds=5)
    async with queueing(mail=mail) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(metadata: dict[str, Any]) -> None:
            seen.add(metadata["job"]["attempt"])
            raise CallError("mailbox_full", "no room")

        receipt = await worker.trigger("f", {"to": "a"}, action=enqueue("mail"))
        await trio.sleep(1000)
        assert seen == [(0.0, 1), (1.0, 2), (3.0, 3), (7.0, 4), (12.0, 5), (17.0, 6)]
        (letter,) = await dead(worker, "mail")
        assert letter["id"] == receipt.id and letter["payload"] == {"to": "a"}
        assert (letter["code"], letter["message"], letter["retries"]) == ("mailbox_full", "no room", 6)


async def test_Q6_attempts_and_pauses_outlive_the_engine(autojump_clock: Clock) -> None:
    store = MemoryStore()
    mail = QueueSettings(max_attempts=3, backoff_seconds=50)
    seen = Seen()
    for _ in range(3):
        async with queueing(store, mail=mail) as engine, engine.open_worker("w") as worker:

            @worker.function("f")
            async def f(metadata: dict[str, Any]) -> None:
                seen.add(metadata["job"]["attempt"])
                raise ValueError

            if not seen:
                await worker.trigger("f", {}, action=enqueue("mail"))
            await trio.sleep(110)
    assert seen.what == [1, 2, 3]


async def test_Q6_a_delayed_job_waits_for_its_time(autojump_clock: Clock) -> None:
    async with queueing(later=QueueSettings(delay_seconds=30)) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f() -> None:
            seen.add("run")

        await worker.trigger("f", {}, action=enqueue("later"))
        await trio.sleep(100)
        assert seen == [(30.0, "run")]


# --- Q7: topics


async def test_Q7_what_is_published_while_a_subscriber_is_away_waits_over_restarts(
    autojump_clock: Clock,
) -> None:
    store = MemoryStore()
    seen = Seen()

    def subscribe(worker: iii_trio.Worker) -> None:
        @worker.subscribe("orders")
        async def on_order(n: int) -> None:
            seen.add(n)

    async def publish(worker: iii_trio.Worker, n: int) -> None:
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": n}})

    async with queueing(store) as engine, engine.open_worker("p") as publisher:
        await publish(publisher, 0)  # nobody has ever asked for it
        async with engine.open_worker("s") as worker:
            subscribe(worker)
            await worker.wait_registered()
            await settled()
            await publish(publisher, 1)
            await settled()
        await publish(publisher, 2)
    async with queueing(store) as engine, engine.open_worker("p") as publisher:
        await publish(publisher, 3)
        assert (await rows(publisher))["orders"]["waits_for"] == ["orders::on_order in default"]
        assert seen.what == [1]
        async with engine.open_worker("s") as worker:
            subscribe(worker)
            await trio.sleep(1)
            assert sorted(seen.what) == [1, 2, 3]


async def test_Q7_each_subscriber_has_its_own_copy_and_who_unsubscribes_gets_no_more(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen = Seen()

        async def take(n: int) -> None:
            seen.add(("a", n))

        async def take_too(n: int) -> None:
            seen.add(("b", n))

        worker.register_function("a", take)
        worker.register_function("b", take_too)
        binding = worker.register_trigger("durable:subscriber", "a", config={"topic": "orders"})
        worker.register_trigger("durable:subscriber", "b", config={"topic": "orders"})
        await worker.wait_registered()
        await settled()
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": 1}})
        await settled()
        assert sorted(seen.what) == [("a", 1), ("b", 1)]
        binding.unregister()
        await settled()
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": 2}})
        await settled()
        assert seen.what[2:] == [("b", 2)]
        assert (await rows(worker))["orders"]["depth"] == 0


async def test_Q7_a_job_waits_for_a_function_that_nobody_has_and_starts_when_it_comes(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen = Seen()
        for n in range(20):
            await worker.trigger("later", {"n": n}, action=enqueue())
        await worker.trigger("there", {}, action=enqueue())  # others are not held up by it

        @worker.function("there")
        async def there() -> None:
            seen.add("there")

        await trio.sleep(100)
        assert (await rows(worker))["default"]["waits_for"] == ["later in default"]
        seen.add("comes")

        @worker.function("later")
        async def later(n: int, metadata: dict[str, Any]) -> None:
            assert metadata["job"]["attempt"] == 1
            seen.add(n)

        await trio.sleep(1)
        assert seen.what[:2] == ["there", "comes"] and sorted(seen.what[2:]) == list(range(20))
        assert seen.times[-1] - seen.times[1] < 0.2


async def test_Q7_a_function_that_does_not_come_in_time_is_a_failure(autojump_clock: Clock) -> None:
    settings = QueueSettings(max_attempts=2, missing_function_seconds=60, backoff_seconds=1)
    async with queueing(mail=settings) as engine, engine.open_worker("w") as worker:
        await worker.trigger("nobody", {}, action=enqueue("mail"))
        await trio.sleep(119)
        assert not await dead(worker, "mail")
        await trio.sleep(10)
        (letter,) = await dead(worker, "mail")
        assert (letter["code"], letter["retries"]) == ("function_not_found", 2)


async def test_Q7_a_condition_that_says_no_skips_and_one_that_fails_is_a_failure(autojump_clock: Clock) -> None:
    async with queueing() as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("wants")
        async def wants(n: int) -> bool | None:
            if n == 3:
                raise ValueError
            return None if n == 0 else n > 1

        @worker.subscribe("orders", condition="wants", max_attempts=1)
        async def on_order(n: int) -> None:
            seen.add(n)

        await worker.wait_registered()
        await settled()
        for n in range(4):
            await worker.trigger("iii::durable::publish", {"topic": "orders", "data": {"n": n}})
        await trio.sleep(10)
        assert sorted(seen.what) == [0, 2]
        assert [letter["payload"] for letter in await dead(worker, "orders")] == [{"n": 3}]


# --- Q8: dead letters


async def test_Q8_dead_letters_are_bounded_redriven_and_discarded(autojump_clock: Clock) -> None:
    settings = QueueSettings(max_attempts=1, dead_letters=3)
    async with queueing(mail=settings) as engine, engine.open_worker("w") as worker:
        failing = True
        seen = Seen()

        @worker.function("f")
        async def f(n: int) -> None:
            if failing:
                raise ValueError
            seen.add(n)

        for n in range(5):
            await worker.trigger("f", {"n": n}, action=enqueue("mail"))
            await trio.sleep(1)
        letters = await dead(worker, "mail")
        assert [letter["payload"]["n"] for letter in letters] == [4, 3, 2]
        failing = False
        one = {"queue": "mail", "message_id": letters[0]["id"]}
        assert (await worker.trigger("iii::queue::discard_message", one))["redriven"] == 1
        assert (await worker.trigger("iii::queue::discard_message", one))["redriven"] == 0
        assert (await worker.trigger("iii::queue::redrive", {"queue": "mail"})) == {"queue": "mail", "redriven": 2}
        await settled()
        assert sorted(seen.what) == [2, 3] and not await dead(worker, "mail")


# --- Q9: no polling


async def test_Q9_a_thousand_queues_and_subscriptions_that_have_nothing_to_do_do_nothing(autojump_clock: Clock) -> None:
    queues = {f"q{n}": QueueSettings() for n in range(1000)}
    async with queueing(**queues) as engine, engine.open_worker("w") as worker:
        for n in range(1000):
            worker.register_function(f"f{n}", lambda: None)
            worker.register_trigger("durable:subscriber", f"f{n}", config={"topic": f"t{n}"})
        await worker.trigger("nobody", {}, action=enqueue())  # also while one waits for a function
        await worker.wait_registered()
        await trio.sleep(20)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(200)
        trio.lowlevel.remove_instrument(steps)
        assert steps.taken <= 2, "this task's own, and no other"


class Steps(trio.abc.Instrument):
    """Counts what all tasks do."""

    taken = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += 1


# --- Q10: what a handler sees


async def test_Q10_a_handler_sees_its_job_its_callers_metadata_and_its_trace(autojump_clock: Clock) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with queueing(mail=QueueSettings(max_attempts=7)) as engine, engine.open_worker("w") as worker:
        seen = Seen()

        @worker.function("f")
        async def f(payload: Any, metadata: dict[str, Any]) -> None:
            call = iii_trio.current_call()
            seen.add((payload, metadata, call.traceparent, call.baggage))

        receipt = await worker.trigger(
            "f",
            {"a": 1},
            action=enqueue("mail"),
            metadata={"tenant": "x"},
            traceparent=trace,
            baggage="user=7,iii.function.id=other,iii.tag.kind=http",
        )
        await settled()
        job = {"id": receipt.id, "attempt": 1, "max_attempts": 7, "queue": "mail"}
        assert seen.what == [({"a": 1}, {"tenant": "x", "job": job}, trace, "user=7,iii.function.id=f")]
