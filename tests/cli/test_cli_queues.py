"""`iii-trio queues`, `dead-letters`, `redrive`, `discard` and `enqueue` against an engine with known queues."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import trio

import iii_trio
from iii_trio.config import EngineConfig, Listener
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings
from tests.helpers.cli_processes import SECONDS, Site, read_line, run, start

pytestmark = pytest.mark.slow  # each of them starts processes

QUEUES = {
    "mail": QueueSettings(max_attempts=1),
    "ledger": QueueSettings(fifo=True, group_by="account"),
}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """An engine with the queues `default`, `ledger` and `mail`, and a worker that can do nothing right."""
    config = EngineConfig(listeners=(Listener(port=0),), modules={"queue": QueueConfig(queues=QUEUES)})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("post") as worker:

        @worker.function("mail::send")
        async def send(to: str) -> None:
            raise iii_trio.CallError("no_such_address", f"{to}\nis nobody")

        await worker.wait_registered()
        (address,) = await engine.listen()
        yield Site(engine, str(address))


def cells(out: str) -> list[list[str]]:
    """The rows of a table, without its heading."""
    lines = [line for line in out.splitlines() if line.strip() and not set(line.strip()) <= set("─ ")]
    return [re.split(r"  +", line.strip()) for line in lines[1:]]


async def dead(site: Site, queue: str, count: int) -> list[dict[str, object]]:
    """The dead letters of a queue, as soon as there are so many."""
    async with site.engine.open_worker() as worker:
        with trio.fail_after(SECONDS):
            while len(found := await worker.trigger("engine::queue::dlq_messages", {"queue": queue})) != count:
                pass
    return list(found)


async def test_queues_say_how_many_jobs_are_where_and_what_they_wait_for(site: Site) -> None:
    assert (await site.run("enqueue", "ledger", "nobody::home", "account=1", "-n", "bank")).code == 0
    shown = await site.run("queues")
    assert (shown.code, shown.err) == (0, "")
    default, ledger, mail, where = cells(shown.out)
    assert default == ["default", "queue", "0", "0", "0", "0", "0.0/s"]
    assert ledger[:6] == ["ledger", "queue", "1", "0", "0", "0"] and ledger[-1] == "nobody::home in bank"
    assert mail[0] == "mail"
    assert where == ["jobs are kept in memory"]
    said = json.loads((await site.run("queues", "--json")).out)
    assert [row["depth"] for row in said["queues"]] == [0, 1, 0]


async def test_a_job_is_enqueued_and_its_receipt_is_its_id(site: Site) -> None:
    done = await site.run("enqueue", "mail", "mail::send", "to=x", "--json", '{"to": "y"}')
    assert (done.code, done.err) == (0, "")
    (letter,) = await dead(site, "mail", 1)
    assert done.out == f"{letter['id']}\n"
    assert letter["payload"] == {"to": "x"}


async def test_Q8_dead_letters_are_listed_with_their_errors_and_tried_again_or_thrown_away(site: Site) -> None:
    assert (await site.run("dead-letters", "mail")).out == "none\n"
    ids = [(await site.run("enqueue", "mail", "mail::send", f"to={to}")).out.strip() for to in ("a", "b", "c")]
    await dead(site, "mail", 3)
    rows = cells((await site.run("dead-letters", "mail")).out)
    assert [row[0] for row in rows] == ids[::-1], "the newest first"
    assert rows[0][1:4] == ["mail::send", "no_such_address: c is nobody", "1 failed"]
    assert re.fullmatch(r"\d+ s ago", rows[0][4]) and rows[0][5] == "10 B"

    (first, note) = cells((await site.run("dead-letters", "mail", "--limit", "1")).out)
    assert first[0] == ids[2] and note == ["1 of 3 are shown; --limit shows more"]
    assert [row["id"] for row in json.loads((await site.run("dead-letters", "mail", "--json")).out)] == ids[::-1]

    assert (await site.run("discard", "mail", ids[1])).out == "1 dead letter of mail is gone\n"
    assert (await site.run("redrive", "mail", ids[2])).out == "1 dead letter of mail is a job again\n"
    assert {row["id"] for row in await dead(site, "mail", 2)} == {ids[0], ids[2]}
    assert (await site.run("redrive", "mail")).out == "2 dead letters of mail are jobs again\n"
    await dead(site, "mail", 2)
    assert (await site.run("discard", "mail", "--all")).out == "2 dead letters of mail are gone\n"
    assert (await site.run("redrive", "mail")).out == "mail has no dead letters\n"


@pytest.mark.parametrize("command", [("dead-letters",), ("redrive",), ("discard", "--all"), ("enqueue", "f")])
async def test_an_unknown_queue_is_one_sentence_with_those_that_are_there(site: Site, command: tuple[str, ...]) -> None:
    ended = await site.run(command[0], "nail", *command[1:])
    assert (ended.code, ended.out) == (2, "")
    what = "queue" if command[0] == "enqueue" else "queue or topic"  # a topic's messages are published
    assert ended.err == f"iii-trio: there is no {what} `nail`; there are default, ledger, mail\n"


@pytest.mark.parametrize("command", ["redrive", "discard"])
async def test_a_dead_letter_that_is_not_there_is_named(site: Site, command: str) -> None:
    ended = await site.run(command, "mail", "x1")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == "job_not_found: mail has no dead letter x1; `iii-trio dead-letters mail` shows what it has\n"


async def test_what_a_queue_refuses_is_said_in_its_words(site: Site) -> None:
    ended = await site.run("enqueue", "ledger", "f", "amount=3")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == (
        "enqueue_error: fifo_group_missing: "
        "FIFO queue 'ledger' requires field 'account' in data, but it was not found\n"
    )


async def test_an_engine_without_a_queue_says_so() -> None:
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0),), modules={"queue": None})) as engine:
        (address,) = await engine.listen()
        for command in (("queues",), ("redrive", "mail"), ("enqueue", "mail", "f")):
            ended = await run(*command, "--address", str(address))
            assert (ended.code, ended.out) == (3, "")
            assert ended.err.startswith("function_not_found: this engine has no queue: ")


async def test_queues_are_watched(site: Site) -> None:
    async with trio.open_nursery() as nursery:
        process = await start(nursery, "queues", "--json", "--watch", "--every", "0.05", "--address", site.address)
        assert json.loads(await read_line(process.stdout))["queues"][1]["depth"] == 0
        async with site.engine.open_worker() as worker:
            await worker.trigger("nobody::home", {"account": 1}, action=iii_trio.enqueue("ledger"))
        with trio.fail_after(SECONDS):
            while not json.loads(await read_line(process.stdout))["queues"][1]["depth"]:
                pass
        nursery.cancel_scope.cancel()


async def test_the_beginning_of_an_id_is_enough_where_it_is_one_letters_own(site: Site) -> None:
    for _ in range(3):
        assert (await site.run("enqueue", "mail", "mail::send", "to=x")).code == 0
    letters = [str(letter["id"]) for letter in await dead(site, "mail", 3)]
    start = next(
        letter[:size]
        for letter in letters
        for size in range(1, 36)
        if sum(x.startswith(letter[:size]) for x in letters) == 1
    )
    done = await site.run("discard", "mail", start + "…")  # as a narrow table shows it
    assert (done.code, done.out) == (0, "1 dead letter of mail is gone\n")
    missing = await site.run("redrive", "mail", "zz")
    assert (missing.code, missing.err) == (
        3,
        "job_not_found: mail has no dead letter zz; `iii-trio dead-letters mail` shows what it has\n",
    )
    assert "is empty; give its first characters" in (await site.run("redrive", "mail", "")).err
