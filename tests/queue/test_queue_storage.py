"""The queue and its store: nothing is answered before it is kept, and a disk that refuses harms nothing that was."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings, enqueue
from iii_trio.environment import Environment
from iii_trio.testing.job_stores import record
from iii_trio.triggers.queue import Change, Forget, MemoryStore, Put, Remember, Remove, StorageError, Store, Update
from iii_trio.triggers.queue.sqlite_store import SqliteStore

T = TypeVar("T")
QUICK = QueueSettings(max_attempts=1, backoff_seconds=0.01, missing_function_seconds=None)
CONFIG = EngineConfig(modules={"queue": QueueConfig(queues={"mail": QUICK})})


async def at_once(function: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return function()


class Slow:
    """Runs what blocks when it is told to: each time one step."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.may_go = trio.Event()
        self.held = False

    def hold(self) -> None:
        self.held, self.asked, self.may_go = True, trio.Event(), trio.Event()

    def release(self) -> None:
        self.held = False
        self.may_go.set()

    async def run(self, function: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        if self.held:
            self.asked.set()
            await self.may_go.wait()
        return function()


class Witness:
    """A store that notes what it was told, once it is kept; and may be told to refuse."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.place = inner.place
        self.load, self.fetch, self.close, self.tidy = inner.load, inner.fetch, inner.close, inner.tidy
        self.commits: list[list[Change]] = []
        self.refuses: tuple[type, ...] = ()

    def write(self, changes: Sequence[Change]) -> None:
        if any(isinstance(change, self.refuses) for change in changes):
            raise StorageError("the jobs cannot be written to: no room; make room on its disk")
        self.inner.write(changes)
        self.commits.append(list(changes))

    @property
    def kinds(self) -> list[type]:
        return [type(change) for commit in self.commits for change in commit]


@asynccontextmanager
async def answered(ask: Callable[[], Any]) -> AsyncIterator[trio.Event]:
    """Ask beside the block; the event is set once the answer is there."""
    there = trio.Event()

    async def wait() -> None:
        await ask()
        there.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        yield there


async def stat(app: iii_trio.Worker, name: str, queue: str = "mail") -> int:
    return int((await app.trigger("engine::queue::topic_stats", {"queue": queue}))[name])


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """Wait for something that has no event of its own."""
    with trio.fail_after(60):
        while not await holds():  # noqa: ASYNC110  (that is what this is for)
            await trio.sleep(0.01)


async def a_dead_letter(app: iii_trio.Worker) -> str:
    """A job that has failed for good; its id."""

    async def fail() -> None:
        raise iii_trio.CallError("broken", "it is broken")

    if "app::fail" not in app._registrations.functions:
        app.register_function("app::fail", fail)
    receipt = await app.trigger("app::fail", 1, action=enqueue("mail"))
    assert isinstance(receipt, iii_trio.Receipt)
    await until(lambda: stat(app, "dlq_depth"))
    return receipt.id


# --- no answer leaves before what it promises is kept


@pytest.mark.parametrize(
    "what", ["enqueue", "publish", "redrive", "redrive one", "discard one", "discard", "subscribe"]
)
@pytest.mark.parametrize("kept_in", ["memory", "sqlite"])
async def test_Q1_no_answer_leaves_before_its_commit_has_returned(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    request: pytest.FixtureRequest,
    what: str,
    kept_in: str,
) -> None:
    slow = Slow()
    store = Witness(MemoryStore() if kept_in == "memory" else SqliteStore(tmp_path))
    request.addfinalizer(store.close)  # also where the test returns early
    async with (
        iii_trio.open_engine(CONFIG, stores={"queue": store}, environment=Environment(run_blocking=slow.run)) as engine,
        engine.open_worker("app") as app,
    ):

        @app.subscribe("news", "app::heard")
        async def heard(data: int) -> None:
            await trio.sleep_forever()

        await app.wait_registered()
        ident = await a_dead_letter(app)
        payload = {"queue": "mail", "message_id": ident}

        asks: dict[str, tuple[Callable[[], Any], type]] = {
            "enqueue": (lambda: app.trigger("app::nobody", 1, action=enqueue("mail")), Put),
            "publish": (lambda: app.trigger("iii::durable::publish", {"topic": "news", "data": 1}), Put),
            "redrive": (lambda: app.trigger("iii::queue::redrive", payload), Update),
            "redrive one": (lambda: app.trigger("iii::queue::redrive_message", payload), Update),
            "discard one": (lambda: app.trigger("iii::queue::discard_message", payload), Remove),
            "discard": (lambda: app.trigger("engine::queue::discard", payload), Remove),
        }
        if what == "subscribe":
            slow.hold()
            store.commits.clear()
            binding = app.register_trigger("durable:subscriber", "app::other", config={"topic": "more"})
            with trio.fail_after(10):
                await slow.asked.wait()
            await trio.sleep(1000)
            assert (binding.error, store.kinds) == (None, [])
            slow.release()
            await trio.sleep(1)
            assert store.kinds == [Remember]
            return
        ask, change = asks[what]
        store.commits.clear()
        slow.hold()
        async with answered(ask) as there:
            with trio.fail_after(10):
                await slow.asked.wait()
            await trio.sleep(1000)  # for ever, as far as the queue can tell
            assert not there.is_set()
            assert store.kinds == []
            slow.release()
            with trio.fail_after(10):
                await there.wait()
            assert store.kinds[0] is change


async def test_Q1_sqlite_says_commit_before_the_answer_is_there(tmp_path: Path) -> None:
    """With a real thread: the statements that SQLite runs, and the answers, in the order in which they came."""
    story: list[str] = []
    store = SqliteStore(tmp_path)
    store.connection.set_trace_callback(lambda statement: story.append(statement.split()[0]))
    async with iii_trio.open_engine(CONFIG, stores={"queue": store}) as engine, engine.open_worker("app") as app:
        app.register_trigger("durable:subscriber", "app::heard", config={"topic": "news"})
        await app.wait_registered()
        await app.trigger("iii::durable::publish", {"topic": "news", "data": 1})
        await app.trigger("app::nobody", 1, action=enqueue("mail"))  # the first job of a lane brings its settings along
        for _ in range(20):
            story.clear()
            await app.trigger("app::nobody", 1, action=enqueue("mail"))
            story.append("answered")
            assert story == ["BEGIN", "INSERT", "COMMIT", "answered"]
        for _ in range(20):
            story.clear()
            await app.trigger("iii::durable::publish", {"topic": "news", "data": 1})
            story.append("answered")
            assert story == ["BEGIN", "INSERT", "COMMIT", "answered"]
    store.close()


async def test_Q1_many_callers_share_one_commit(autojump_clock: trio.testing.MockClock) -> None:
    slow, store = Slow(), Witness(MemoryStore())
    async with (
        iii_trio.open_engine(CONFIG, stores={"queue": store}, environment=Environment(run_blocking=slow.run)) as engine,
        engine.open_worker("app") as app,
    ):
        slow.hold()
        async with trio.open_nursery() as nursery:

            async def one(n: int) -> None:
                await app.trigger("app::nobody", n, action=enqueue("mail"))

            nursery.start_soon(one, 0)
            await slow.asked.wait()
            for n in range(1, 501):
                nursery.start_soon(one, n)
            await trio.testing.wait_all_tasks_blocked()
            slow.release()
        assert [sum(isinstance(change, Put) for change in commit) for commit in store.commits] == [1, 500]


# --- a store that refuses


async def test_Q1_what_the_store_refuses_is_told_and_changes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    store = Witness(MemoryStore())
    async with (
        iii_trio.open_engine(
            CONFIG,
            stores={"queue": store},
            environment=Environment(run_blocking=at_once),
        ) as engine,
        engine.open_worker("app") as app,
    ):
        heard: list[int] = []

        @app.subscribe("news", "app::heard")
        async def hear(data: int) -> None:
            heard.append(data)

        await app.wait_registered()
        ident = await a_dead_letter(app)
        store.refuses = (Put, Update, Remove, Remember, Forget)
        payload = {"queue": "mail", "message_id": ident}
        no_room = "the jobs cannot be written to: no room; make room on its disk"

        async def told(function_id: str, payload: Any, **options: Any) -> tuple[str, str]:
            with pytest.raises(iii_trio.CallError) as caught:
                await app.trigger(function_id, payload, **options)
            return caught.value.code, caught.value.message

        assert await told("app::heard", 1, action=enqueue("mail")) == ("enqueue_error", f"storage_failed: {no_room}")
        assert await told("iii::durable::publish", {"topic": "news", "data": 1}) == ("storage_failed", no_room)
        assert await told("iii::queue::redrive", payload) == ("redrive_failed", no_room)
        assert await told("iii::queue::redrive_message", payload) == ("redrive_message_failed", no_room)
        assert await told("iii::queue::discard_message", payload) == ("discard_message_failed", no_room)
        assert await told("engine::queue::discard", payload) == ("discard_failed", no_room)
        binding = app.register_trigger("durable:subscriber", "app::heard", config={"topic": "more"})
        await trio.sleep(10)
        assert binding.error is not None
        assert (binding.error.code, no_room in binding.error.message) == ("trigger_registration_failed", True)

        store.refuses = ()
        await trio.sleep(10)
        dead = await app.trigger("engine::queue::dlq_messages", {"queue": "mail"})
        assert [row["id"] for row in dead] == [ident]
        assert await app.trigger("engine::queue::topic_stats", {"queue": "mail"}) == {
            "depth": 0, "consumer_count": 10, "dlq_depth": 1, "config": None
        }  # fmt: skip
        assert [row["name"] for row in await app.trigger("engine::queue::list_topics")] == ["default", "mail", "news"]
        await app.trigger("iii::durable::publish", {"topic": "news", "data": 2})
        assert await app.trigger("iii::queue::redrive_message", payload) == {
            "queue": "mail", "message_id": ident, "redriven": 1
        }  # fmt: skip
        await trio.sleep(10)
        assert heard == [2]
        [again] = await app.trigger("engine::queue::dlq_messages", {"queue": "mail"})
        assert again["id"] == ident


async def test_Q5_what_is_done_while_the_store_refuses_is_written_later(autojump_clock: trio.testing.MockClock) -> None:
    """And the group's next waits for that: its end is not on disk."""
    inner = MemoryStore()
    store = Witness(inner)
    config = EngineConfig(modules={"queue": QueueConfig(queues={"mail": QueueSettings(fifo=True, group_by="to")})})
    async with (
        iii_trio.open_engine(
            config,
            stores={"queue": store},
            environment=Environment(run_blocking=at_once),
        ) as engine,
        engine.open_worker("app") as app,
    ):
        done: list[int] = []

        @app.function("app::send")
        async def send(n: int) -> None:
            await trio.sleep(5)
            done.append(n)

        for n in (1, 2):
            await app.trigger("app::send", {"n": n, "to": "x"}, action=enqueue("mail"))
        store.refuses = (Remove,)
        await trio.sleep(100)
        assert done == [1]
        assert len(list(inner.load().jobs)) == 2
        store.refuses = ()
        await trio.sleep(7)  # tried again within a second
        assert done == [1, 2]
        await trio.sleep(1)
        assert list(inner.load().jobs) == []


async def test_a_store_that_refuses_is_not_asked_without_pause(autojump_clock: trio.testing.MockClock) -> None:
    """However many callers come, and come again as soon as they are refused; each has its answer soon."""
    tried: list[float] = []

    class Refusing(Witness):
        def write(self, changes: Sequence[Change]) -> None:
            tried.append(trio.current_time())
            raise StorageError("no room")

    async with (
        iii_trio.open_engine(
            CONFIG, stores={"queue": Refusing(MemoryStore())}, environment=Environment(run_blocking=at_once)
        ) as engine,
        engine.open_worker("app") as app,
    ):
        waited: list[float] = []

        async def keep_asking() -> None:
            while True:
                began = trio.current_time()
                with pytest.raises(iii_trio.CallError, match="no room"):
                    await app.trigger("app::nobody", 1, action=enqueue("mail"))
                waited.append(trio.current_time() - began)

        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(keep_asking)
        assert 100 <= len(tried) <= 201
        assert max(waited) < 0.2
        assert len(waited) > 20 * 50


async def test_a_store_that_breaks_ends_no_engine(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Witness):
        def write(self, changes: Sequence[Change]) -> None:
            raise ZeroDivisionError("a bug")

    async with (
        iii_trio.open_engine(
            CONFIG, stores={"queue": Broken(MemoryStore())}, environment=Environment(run_blocking=at_once)
        ) as engine,
        engine.open_worker("app") as app,
    ):
        for _ in range(3):
            with pytest.raises(iii_trio.CallError, match="storage_failed: the store failed: ZeroDivisionError"):
                await app.trigger("app::nobody", 1, action=enqueue("mail"))
    lines = [line for line in caplog.records if "the store failed" in line.message]
    assert len(lines) == 1  # once, with where it broke
    assert lines[0].exc_info


# --- a full disk


async def test_Q1_a_full_file_refuses_what_comes_and_loses_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    done: Counter[int] = Counter()
    async with iii_trio.open_engine(CONFIG, stores={"queue": store}) as engine, engine.open_worker("app") as app:
        go = trio.Event()

        @app.function("app::send")
        async def send(n: int, filler: str) -> None:
            await go.wait()
            done[n] += 1

        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages + 40}")
        promised, n = [], 0
        with pytest.raises(iii_trio.CallError) as caught:
            while True:
                n += 1
                await app.trigger("app::send", {"n": n, "filler": "x" * 10_000}, action=enqueue("mail"))
                promised.append(n)
        full = (
            f"the jobs in {tmp_path / 'queue.db'} cannot be written to: database or disk is full; make room on its disk"
        )
        assert (caught.value.code, caught.value.message) == ("enqueue_error", f"storage_failed: {full}")
        assert len(promised) > 5
        go.set()
        await until(lambda: stat_is(app, 0))
        assert done == Counter(promised)  # the refused one is not among them
        await app.trigger(
            "app::send", {"n": 1000, "filler": "x" * 10_000}, action=enqueue("mail")
        )  # there is room again
        await until(lambda: stat_is(app, 0))
    assert done == Counter([*promised, 1000])
    assert list(store.load().jobs) == []
    store.close()


async def nothing_left(app: iii_trio.Worker) -> bool:
    return await stat(app, "depth", "plain") == 0


async def stat_is(app: iii_trio.Worker, depth: int) -> bool:
    return await stat(app, "depth") == depth


ENGINE = ["-m", "tests.torture.engine"]
ENGINE_OF_NOBODY = [
    "-c",
    # All that is loaded later, because nobody may read where it is.
    "import os, sys, trio, trio_websocket, iii_trio.embed, iii_trio.triggers.queue.sqlite_store\n"
    "from tests.torture.engine import main\n"
    "if os.geteuid() == 0:  # root may write anywhere\n"
    "    os.setgid(65534), os.setuid(65534)\n"
    "trio.run(main, *sys.argv[1:])\n",
]


@asynccontextmanager
async def engine_process(directory: Path, socket: Path, code: Sequence[str] = ENGINE) -> AsyncIterator[trio.Process]:
    """An engine in a process, with its jobs in `directory`."""
    process = await trio.lowlevel.open_process(
        [sys.executable, *code, str(directory), str(socket), "1000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},  # it writes files
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                assert pipe is not None
                await trio.aclose_forcefully(pipe)


async def ready(process: trio.Process) -> None:
    assert process.stdout is not None
    with trio.fail_after(60):
        assert (await process.stdout.receive_some()).startswith(b"ready")


async def last_words(process: trio.Process) -> str:
    assert process.stderr is not None
    with trio.fail_after(60):
        return b"".join([part async for part in process.stderr]).decode()


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(resource, "prlimit"), reason="the limit of another process can be changed on Linux only"
)
async def test_Q1_an_engine_whose_disk_is_full_lives_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """A real process, whose files may not grow; then killed, and what it had promised is there."""
    socket, jobs = tmp_path / "engine", tmp_path / "jobs"
    done: Counter[int] = Counter()
    promised: list[int] = []
    async with engine_process(jobs, socket) as process:
        await ready(process)
        unlimited = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (400_000, unlimited[1]))
        async with iii_trio.open_worker(f"unix:{socket}", name="app") as app:
            payload = {"filler": "x" * 10_000}
            refusals = 0
            for n in range(200):
                try:
                    await app.trigger("app::later", {"n": n, **payload}, action=enqueue("plain"))
                except iii_trio.CallError as error:
                    refusals += 1
                    assert error.code == "enqueue_error"
                    assert error.message.startswith(
                        f"storage_failed: the jobs in {jobs / 'queue.db'} cannot be written to: "
                    )
                    assert error.message.endswith(("; make room on its disk", "; see to its disk"))
                else:
                    promised.append(n)
            assert refusals > 100
            assert (await app.trigger("engine::queue::topic_stats", {"queue": "plain"}))["depth"] == len(promised)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, unlimited)
            for n in range(1000, 1010):
                await app.trigger("app::later", {"n": n, **payload}, action=enqueue("plain"))
                promised.append(n)
            process.send_signal(signal.SIGKILL)
            await process.wait()
    async with engine_process(jobs, socket) as process:
        await ready(process)
        async with iii_trio.open_worker(f"unix:{socket}", name="app") as app:

            @app.function("app::later")
            async def later(n: int, filler: str) -> None:
                done[n] += 1

            await until(lambda: nothing_left(app))
    assert done == Counter(promised)


# --- whose file it is


async def test_Q11_a_second_engine_at_the_same_file_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    config = EngineConfig(modules={"queue": QueueConfig(queues={"mail": QUICK}, directory=str(tmp_path))})
    refusal = (
        f"the jobs in {tmp_path / 'queue.db'} are in the hands of another engine; "
        "name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
    )
    async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
        await app.trigger("app::nobody", 1, action=enqueue("mail"))
        with pytest.raises(StorageError) as caught:
            async with iii_trio.open_engine(config):
                raise AssertionError("both run")
        assert str(caught.value) == refusal
        async with engine_process(tmp_path, tmp_path / "engine") as process:
            words = await last_words(process)
            assert await process.wait() != 0
        assert words.count(refusal) == 1
        await app.trigger("app::nobody", 2, action=enqueue("mail"))
        assert await stat(app, "depth") == 2
    async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
        assert await stat(app, "depth") == 2


async def test_Q11_a_directory_that_may_not_be_written_is_refused() -> None:
    """New, and with jobs in it already, which stay."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        empty, used = _closed_directories(home)
        before = (used / "queue.db").read_bytes()
        for directory in (empty, used):
            async with engine_process(directory, home / "engine", ENGINE_OF_NOBODY) as process:
                words = await last_words(process)
                assert await process.wait() != 0
            said = words.splitlines()[-1]
            assert said.endswith(
                f"StorageError: jobs cannot be kept in {directory}: {directory} may not be written; "
                "make it writable, or name another directory (iii-trio: --data DIR; in a program: QueueConfig(directory=…))"
            )
        assert (used / "queue.db").read_bytes() == before


def _closed_directories(home: Path) -> tuple[Path, Path]:
    empty, used = home / "empty", home / "used"
    empty.mkdir()
    store = SqliteStore(used)
    store.write([Put(record(1))])
    store.close()
    home.chmod(0o755)
    empty.chmod(0o555)
    used.chmod(0o555)
    return empty, used
