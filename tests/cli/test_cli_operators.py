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

pytestmark = pytest.mark.slow  # each of them starts processes


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """An engine with the queues `default` and `mail`, where no worker has the functions."""
    queues = {"mail": QueueSettings(delay_seconds=1000), "once": QueueSettings(max_attempts=1)}
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
    # 1,000 s, of which some have gone by: these are real processes.
    assert first[1] == "f" and first[2] in ("delayed for 17 min", "delayed for 16 min") and first[4:] == ["0", "7 B"]
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
    again = await site.run("cancel", ids[0])
    assert (again.code, again.err) == (3, f"job_not_cancellable: job {ids[0]} was removed already\n")
    for command in ("cancel", "job"):
        empty = await site.run(command, "")
        assert (empty.code, empty.out) == (2, "") and "the job's id is empty" in empty.err
    nobody = await site.run("purge", "mail", "ghost")
    assert (nobody.code, nobody.err) == (3, "queue_not_found: ghost is not a subscriber of mail\n")
    assert (await site.run("purge", "mail", "--dry-run")).out == "2 jobs of mail would be removed: 2 delayed\n"
    purged = json.loads((await site.run("purge", "mail", "--json")).out)
    assert purged == {"queue": "mail", "purged": 2, "by_state": {"delayed": 2}}
    assert (await site.run("purge", "mail")).out == "no job of mail waits\n"
    assert (await site.run("jobs", "mail")).out == "none\n"
    await enqueued(site, 1, "default")
    assert cells((await site.run("jobs", "default")).out)[0][2] == "waiting_for_function"
    assert (await site.run("jobs", "default", "--state", "ending")).out == "none\n"
    assert (await site.run("purge", "default")).out == "1 job of default is removed: 1 waiting_for_function\n"


async def test_a_job_is_enqueued_with_options_of_its_own(site: Site) -> None:
    once = await site.run("enqueue", "default", "f", "--delay", "600", "--priority", "3", "--unique-key", "k")
    again = await site.run("enqueue", "default", "f", "--unique-key", "k")
    assert once.code == 0 and once.out == again.out
    assert cells((await site.run("jobs", "default")).out)[0][2] == "delayed for 10 min"
    wrong = await site.run("enqueue", "default", "f", "--replace")
    assert (wrong.code, wrong.out) == (2, "")
    zoneless = await site.run("enqueue", "default", "f", "--at", "2099-01-01T10:00:00")
    assert (zoneless.code, zoneless.out) == (2, "") and "write for example 2099-01-01T10:00:00+01:00" in zoneless.err
    nameless = await site.run("enqueue", "default", "f", "--unique-key", "")
    assert (nameless.code, nameless.out) == (2, "")
    assert nameless.err == "iii-trio: `unique_key` has 0 characters; give 1 to 256\n"


async def test_the_end_of_a_job_is_waited_for_and_the_exit_code_says_which_it_was(site: Site) -> None:
    async with site.engine.open_worker("post") as worker, trio.open_nursery() as nursery:

        @worker.function("mail::send")
        async def send(to: str) -> dict[str, str]:
            if to == "nobody":
                raise iii_trio.CallError("no_such_address", "nobody is there")
            return {"sent": to}

        await worker.wait_registered()
        sent = await site.run("enqueue", "default", "mail::send", "to=ada", "--wait")
        receipt, result = sent.out.splitlines()
        assert (sent.code, sent.err, json.loads(result)) == (0, "", {"sent": "ada"})
        done = await site.run("job", receipt, "--wait", "--json")
        assert (done.code, json.loads(done.out)) == (0, {"id": receipt, "state": "done", "result": {"sent": "ada"}})

        await worker.trigger("mail::send", {"to": "nobody"}, action=iii_trio.enqueue("once"))
        (dead,) = await _dead(worker)
        failed = await site.run("job", dead["id"], "--wait", "--json")
        assert (failed.code, failed.err) == (3, "no_such_address: nobody is there\n")
        assert json.loads(failed.out)["state"] == "dead"
        failed = await site.run("enqueue", "once", "mail::send", "to=nobody", "--wait")
        assert (failed.code, len(failed.out.splitlines())) == (3, 1)

        later = await worker.trigger("mail::send", {"to": "ada"}, action=iii_trio.enqueue("mail"))
        late = await site.run("job", later.id, "--wait", "--timeout", "3")
        assert (late.code, late.out) == (124, "")
        why = r"it is to be called in \d+ (min|s)"
        assert re.fullmatch(f"iii-trio: job {later.id} was not over within 3 s: {why}; see --timeout\n", late.err)
        late = await site.run("enqueue", "mail", "mail::send", "to=ada", "--wait", "--timeout", "3")
        assert (late.code, len(late.out.splitlines())) == (124, 1)

        async def cancel() -> None:
            await iii_trio.Queues(worker).cancel(later.id)

        nursery.start_soon(cancel)
        gone = await site.run("job", later.id, "--wait")
        assert (gone.code, gone.err) == (1, f"iii-trio: job {later.id} was cancelled or purged\n")
    wrong = await site.run("job", later.id, "--timeout", "3")
    assert (wrong.code, wrong.err) == (2, "iii-trio: --timeout is for --wait; say it, too\n")


async def _dead(worker: iii_trio.Worker) -> list[dict[str, str]]:
    while not (found := await iii_trio.Queues(worker).dead_letters("once")):
        await trio.lowlevel.checkpoint()
    return found


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
    assert re.search(r"^on_order \(away for \d+ s, 1 job\)$", orders[-1])
    misspelt = await site.run("unsubscribe", "orders", "on_ordr")
    assert (misspelt.code, misspelt.out) == (2, "")
    assert misspelt.err == "iii-trio: on_ordr is not a subscriber of topic `orders`; there are on_order\n"
    dry = await site.run("unsubscribe", "orders", "on_order", "--dry-run")
    would = "on_order would not be a subscriber of orders any more; 1 job would be removed: 1 waiting\n"
    assert dry.out == would
    done = await site.run("unsubscribe", "orders", "on_order")
    assert done.out == "on_order is not a subscriber of orders any more; 1 job is removed: 1 waiting\n"
    again = await site.run("unsubscribe", "orders", "on_order")
    assert (again.code, again.out) == (2, "")
    assert again.err == (
        "iii-trio: topic `orders` has no subscribers; `iii-trio queues` shows the topics that have some\n"
    )
    no_topic = await site.run("purge", "orders", "--kind", "topic")
    assert (no_topic.code, no_topic.err) == (2, "iii-trio: there is no topic `orders`; there is no topic at all\n")


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


async def test_an_enqueue_takes_every_option_of_a_job(site: Site) -> None:
    later = "2099-01-01T00:00:00+01:00"
    first = await site.run("enqueue", "mail", "f", "--at", later, "--unique-key", "a", "--unique-seconds", "60")
    again = await site.run("enqueue", "mail", "f", "--unique-key", "a")
    assert first.code == 0 and again.out == first.out, first.err + again.err
    kept = await site.run("enqueue", "mail", "f", "--keep-result", "60")
    listed = json.loads((await site.run("jobs", "mail", "--json")).out)["jobs"]
    assert [row["id"] for row in listed] == [first.out.strip(), kept.out.strip()]
    assert listed[0]["due_seconds"] > 9e8  # cut to the longest delay
