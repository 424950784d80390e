"""The queue, as unmodified SDKs use it: jobs and messages that they give, and are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio import EngineConfig, Listener, QueueConfig, QueueSettings

from .conftest import STEP_SECONDS, Mesh, needs, open_mesh

pytestmark = pytest.mark.sdk

KINDS = ["ours", *(pytest.param(kind, marks=needs(kind)) for kind in ("python", "node"))]
UUID_TEXT = 36
CONFIG = EngineConfig(
    listeners=(Listener(port=0),),
    modules={"queue": QueueConfig(queues={"mail": QueueSettings(max_attempts=2, backoff_seconds=0.05)})},
)


async def receipt(mesh: Mesh, worker: str, function_id: str, payload: Any, queue: str = "mail") -> str:
    """Have a worker enqueue a call; the id that its SDK was told."""
    answer = await mesh.call(f"{worker}::call", {"function_id": function_id, "payload": payload, "queue": queue})
    told = answer["result"]
    ident = told["messageReceiptId"] if isinstance(told, dict) else told
    assert isinstance(ident, str)
    assert len(ident) == UUID_TEXT
    return ident


async def stats(mesh: Mesh, queue: str) -> Any:
    return await mesh.call("engine::queue::topic_stats", {"queue": queue})


async def until_stats(mesh: Mesh, queue: str, **expected: int) -> None:
    """Wait until the queue has these figures."""
    found: Any = None
    with trio.move_on_after(STEP_SECONDS):
        while (found := await stats(mesh, queue)) | expected != found:  # noqa: ASYNC110  (that is what this is for)
            await trio.sleep(0.01)
        return
    raise AssertionError(f"{expected} was never so: {found}")


async def start(mesh: Mesh, name: str, kind: str) -> None:
    await mesh.start(**{name: kind})


async def noted(mesh: Mesh, name: str) -> dict[str, Any]:
    with trio.fail_after(STEP_SECONDS):
        return await mesh.peers[name].event("noted")
    raise AssertionError  # fail_after raises


@pytest.mark.parametrize("kind", KINDS)
async def test_Q10_a_job_is_enqueued_and_handled_and_knows_who_it_is(tmp_path: Path, kind: str) -> None:
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(caller=kind, callee=kind)
        ident = await receipt(mesh, "caller", "callee::note_metadata", {"to": "a"})
        heard = await noted(mesh, "callee")
        assert heard["data"] == {"to": "a"}
        assert heard["metadata"] == {"job": {"id": ident, "attempt": 1, "max_attempts": 2, "queue": "mail"}}
        await until_stats(mesh, "mail", depth=0, dlq_depth=0)


@pytest.mark.parametrize("kind", KINDS)
async def test_Q6_a_failing_job_is_tried_again_and_is_then_a_dead_letter_with_the_sdks_own_words(
    tmp_path: Path, kind: str
) -> None:
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(w=kind)
        ident = await receipt(mesh, "w", "w::fail", {"message": "no such address"})
        await until_stats(mesh, "mail", dlq_depth=1)
        [dead] = await mesh.call("engine::queue::dlq_messages", {"queue": "mail"})
        assert (dead["id"], dead["retries"], dead["payload"]) == (ident, 2, {"message": "no such address"})
        assert dead["message"].endswith("no such address")  # ours names the type before it
        assert dead["error"] == f"{dead['code']}: {dead['message']}"
        assert dead["code"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_that_is_not_there_is_told_to_the_sdk(tmp_path: Path, kind: str) -> None:
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(w=kind)
        answer = await mesh.call("w::call", {"function_id": "w::note", "payload": 1, "queue": "male"})
        assert answer["error"]["code"] == "enqueue_error"
        assert answer["error"]["message"].endswith("Queue 'male' not found")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_subscriber_hears_what_is_published_until_it_unsubscribes(tmp_path: Path, kind: str) -> None:
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(publisher=kind, subscriber=kind)
        binding = {"name": "b", "type": "durable:subscriber", "function_id": "subscriber::note_metadata"}
        await mesh.call("subscriber::bind", {**binding, "config": {"topic": "news"}})
        await until_stats(mesh, "news", consumer_count=1)
        await publish(mesh, {"n": 1})
        heard = await noted(mesh, "subscriber")
        assert heard["data"] == {"n": 1}
        assert heard["metadata"]["job"].items() >= {"attempt": 1, "max_attempts": 3, "queue": "news"}.items()
        await mesh.call("subscriber::unbind", {"name": "b"})
        await until_stats(mesh, "news", consumer_count=0)
        await publish(mesh, {"n": 2})
        await mesh.call("subscriber::bind", {**binding, "config": {"topic": "news"}})
        await until_stats(mesh, "news", consumer_count=1)
        await publish(mesh, {"n": 3})
        assert (await noted(mesh, "subscriber"))["data"]["n"] == 3  # it had not wanted the second


async def publish(mesh: Mesh, data: Any) -> None:
    answer = await mesh.call(
        "publisher::call", {"function_id": "iii::durable::publish", "payload": {"topic": "news", "data": data}}
    )
    assert answer == {"result": None}


@pytest.mark.parametrize("kind", KINDS)
async def test_Q3_a_killed_worker_has_its_job_again_when_it_is_back(tmp_path: Path, kind: str) -> None:
    """And the job keeps its attempts: it is not its fault."""
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(caller=kind, callee=kind)
        await receipt(mesh, "caller", "callee::hang", None)
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["callee"].event("hanging")
        ident = await receipt(mesh, "caller", "callee::note_metadata", {"n": 2})
        heard = await noted(mesh, "callee")
        assert heard["metadata"]["job"]["id"] == ident
        await mesh.peers["callee"].kill()
        await start(mesh, "callee", kind)
        with trio.fail_after(STEP_SECONDS):
            await mesh.peers["callee"].event("hanging")
        await until_stats(mesh, "mail", depth=1, dlq_depth=0)


@pytest.mark.parametrize("kind", KINDS)
async def test_Q7_what_is_published_while_a_killed_subscriber_is_away_waits_for_it(tmp_path: Path, kind: str) -> None:
    """Also while the engine is another one meanwhile."""
    jobs = QueueConfig(directory=str(tmp_path / "jobs"))
    config = EngineConfig(listeners=(Listener(port=0),), modules={"queue": jobs})
    binding = {
        "name": "b",
        "type": "durable:subscriber",
        "function_id": "subscriber::note",
        "config": {"topic": "news"},
    }
    async with open_mesh(config, tmp_path) as mesh:
        await mesh.start(publisher=kind, subscriber=kind)
        await mesh.call("subscriber::bind", binding)
        await until_stats(mesh, "news", consumer_count=1)
        await mesh.peers["subscriber"].kill()
        await until_stats(mesh, "news", consumer_count=0)
        await publish(mesh, {"n": 1})
        await until_stats(mesh, "news", depth=1)
    async with open_mesh(config, tmp_path) as mesh:
        await mesh.start(publisher=kind)
        await publish(mesh, {"n": 2})
        await until_stats(mesh, "news", depth=2, consumer_count=0)
        await mesh.start(subscriber=kind)
        await mesh.call("subscriber::bind", binding)
        heard = [(await noted(mesh, "subscriber"))["data"]["n"] for _ in range(2)]
        assert sorted(heard) == [1, 2]
        await until_stats(mesh, "news", depth=0, consumer_count=1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_job_goes_from_each_sdk_to_each(tmp_path: Path, kind: str) -> None:
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(w=kind)

        heard: list[iii_trio.CallInfo | None] = []
        there = trio.Event()

        @mesh.app.function("app::job")
        async def job(n: int) -> None:
            heard.append(iii_trio.current_call())
            there.set()

        ident = await receipt(mesh, "w", "app::job", {"n": 1}, queue="default")
        with trio.fail_after(STEP_SECONDS):
            await there.wait()
        [call] = heard
        assert call is not None
        assert call.metadata["job"]["id"] == ident
        sent = await mesh.app.trigger("w::note", {"n": 2}, action=iii_trio.enqueue())
        assert isinstance(sent, iii_trio.Receipt)
        assert (await noted(mesh, "w"))["data"]["n"] == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_Q3_a_job_that_takes_its_worker_with_it_is_a_dead_letter_after_the_third(
    tmp_path: Path, kind: str
) -> None:
    """And its worker goes on with the others."""
    async with open_mesh(CONFIG, tmp_path) as mesh:
        await mesh.start(w=kind)
        sent = await mesh.app.trigger("w::hang", None, action=iii_trio.enqueue("mail"))
        for _ in range(3):
            with trio.fail_after(STEP_SECONDS):
                await mesh.peers["w"].event("hanging")
            await mesh.peers["w"].kill()
            await start(mesh, "w", kind)
        await until_stats(mesh, "mail", depth=0, dlq_depth=1)
        [dead] = await mesh.call("engine::queue::dlq_messages", {"queue": "mail"})
        assert (dead["id"], dead["code"], dead["lost"], dead["retries"]) == (sent.id, "worker_lost", 3, 0)
        await mesh.app.trigger("w::note", {"n": 2}, action=iii_trio.enqueue("mail"))
        assert (await noted(mesh, "w"))["data"] == {"n": 2}
