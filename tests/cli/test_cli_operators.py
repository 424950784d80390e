"""`iii-trio jobs`, `job`, `cancel`, `purge`, `pause`, `resume` and `unsubscribe`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings
from tests.cli.test_cli_queues import cells
from tests.helpers.cli_processes import Site


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """An engine with the queues `default` and `mail`, where no worker has the functions."""
    queues = {"mail": QueueSettings(delay_seconds=1000)}
    config = EngineConfig(listeners=(Listener(port=0),), modules={"queue": QueueConfig(queues=queues)})
    async with iii_trio.open_engine(config) as engine:
        (address,) = await engine.listen()
        yield Site(engine, str(address))


async def enqueued(site: Site, count: int, queue: str = "mail") -> list[str]:
    async with site.engine.open_worker() as worker:
        return [(await worker.trigger("f", {"n": n}, action=iii_trio.enqueue(queue))).id for n in range(count)]


async def test_jobs_are_shown_by_page_and_one_with_its_payload(site: Site) -> None:
    ids = await enqueued(site, 3)
    shown = await site.run("jobs", "mail", "--limit", "2")
    first, second, note = cells(shown.out)
    assert [first[0], second[0]] == ids[:2]
    assert first[1:3] == ["f", "delayed for 17 min"] and first[4:] == ["0", "7 B"]
    assert note[0].startswith("there are more: --after ")
    rest = await site.run("jobs", "mail", "--after", note[0].split()[-1], "--json")
    assert [row["id"] for row in json.loads(rest.out)["jobs"]] == ids[2:]
    assert (await site.run("jobs", "mail", "--state", "dead")).out == "none\n"
    one = json.loads((await site.run("job", ids[1], "--json")).out)
    assert (one["state"], one["payload"]) == ("delayed", {"n": 1})
    assert '{"n": 1}' in (await site.run("job", ids[1])).out
    missing = await site.run("job", "x")
    assert (missing.code, missing.out) == (3, "")
    assert missing.err == "job_not_found: there is no job x: it was done, removed, or never there\n"


async def test_jobs_are_cancelled_and_purged_after_a_dry_run(site: Site) -> None:
    ids = await enqueued(site, 3)
    assert (await site.run("cancel", ids[0])).out == f"job {ids[0]} is cancelled; it was delayed\n"
    assert (await site.run("purge", "mail", "--dry-run")).out == "2 waiting jobs of mail would be removed\n"
    assert (await site.run("purge", "mail")).out == "2 waiting jobs of mail are removed\n"
    assert (await site.run("jobs", "mail")).out == "none\n"


async def test_a_job_is_enqueued_with_options_of_its_own(site: Site) -> None:
    once = await site.run("enqueue", "default", "f", "--delay", "600", "--priority", "3", "--unique-key", "k")
    again = await site.run("enqueue", "default", "f", "--unique-key", "k")
    assert once.code == 0 and once.out == again.out
    assert cells((await site.run("jobs", "default")).out)[0][2] == "delayed for 10 min"
    wrong = await site.run("enqueue", "default", "f", "--replace")
    assert (wrong.code, wrong.out) == (2, "")


async def test_a_queue_is_paused_and_resumed(site: Site) -> None:
    assert (await site.run("pause", "mail")).out == "mail is paused\n"
    assert cells((await site.run("queues")).out)[1][-1] == "resume (it is paused)"
    assert json.loads((await site.run("resume", "mail", "--json")).out) == {
        "queue": "mail", "paused": False, "lanes": 1
    }  # fmt: skip


async def test_a_subscriber_that_is_away_is_named_and_unsubscribed_after_a_dry_run(site: Site) -> None:
    async with site.engine.open_worker("shop") as worker:

        @worker.subscribe("orders", "on_order")
        async def on_order() -> None: ...

        await worker.wait_registered()
        here = await site.run("unsubscribe", "orders", "on_order")
        assert here.code == 3 and "subscriber_not_away" in here.err
    async with site.engine.open_worker() as worker:
        while not (await worker.trigger("engine::queue::list", {}))["queues"][-1]["subscribers"][0]["away_since_ms"]:
            await trio.lowlevel.checkpoint()
        await worker.trigger("iii::durable::publish", {"topic": "orders", "data": 1})
    (orders,) = [row for row in cells((await site.run("queues")).out) if row[0] == "orders"]
    assert re.search(r"on_order \(away for \d+ s, 1 jobs\)$", orders[-1])
    dry = await site.run("unsubscribe", "orders", "on_order", "--dry-run")
    assert dry.out == "on_order and its 1 jobs of orders would be removed\n"
    done = await site.run("unsubscribe", "orders", "on_order")
    assert done.out == "on_order and its 1 jobs of orders are removed\n"
    again = await site.run("unsubscribe", "orders", "on_order")
    assert (again.code, again.out) == (2, "")


async def test_where_a_queue_and_a_topic_have_one_name_the_command_asks_which(site: Site) -> None:
    async with site.engine.open_worker("shop") as worker:

        @worker.subscribe("mail", "on_mail")
        async def on_mail() -> None: ...

        await worker.wait_registered()
        await enqueued(site, 2)
        for command in (
            ("jobs", "mail"),
            ("purge", "mail"),
            ("dead-letters", "mail"),
            ("redrive", "mail"),
            ("pause", "mail"),
        ):
            asked = await site.run(*command)
            assert (asked.code, asked.out) == (2, "")
            assert asked.err == "iii-trio: there are a queue and a topic `mail`; say --kind queue or --kind topic\n"
        assert (await site.run("jobs", "mail", "--kind", "topic")).out == "none\n"
        assert len(cells((await site.run("jobs", "mail", "--kind", "queue")).out)) == 2
