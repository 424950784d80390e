"""The table of decision 0014, row by row: values that a reader could not decode, in every place where they can stand.

The table says which ones are refused to their sender. A worker answers the others, and a bystander's work goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import iii_trio
from iii_trio import EngineConfig, QueueConfig, QueueSettings
from tests.fuzz.oracles import BYSTANDERS_QUEUE, Bystander, Client, framed

RECORD = Path(__file__).parents[2] / "docs/decisions/0014-one-gate-for-json.md"
VALUES = {
    "`1e999`": b"1e999", "an integer of 5,000 digits": b"9" * 5000, "1,000 levels": b"[" * 1000 + b"]" * 1000,
    "a lone surrogate": b'"\\ud800"', "`NaN`": b"NaN",
}  # fmt: skip
ENQUEUE = b'"function_id":"reads::all","action":{"type":"enqueue","queue":"default"}'
DIRECT = b'"function_id":"engine::queue::enqueue","data":{"queue":"default","function_id":"reads::all"'
PLACES = {
    "`data` of a call": b'"function_id":"reads::all","data":{"n":%s}',
    "`metadata` of a call": b'"function_id":"reads::all","data":1,"metadata":{"n":%s}',
    "`data` of an enqueued call": ENQUEUE + b',"data":{"n":%s}',
    "`metadata` of an enqueued call": ENQUEUE + b',"data":1,"metadata":{"n":%s}',
    "`data` for `engine::queue::enqueue`": DIRECT + b',"data":{"n":%s}}',
    "`metadata` for `engine::queue::enqueue`": DIRECT + b',"data":1,"metadata":{"n":%s}}',
    "`data` for `iii::durable::publish`": b'"function_id":"iii::durable::publish","data":{"topic":"tide","data":{"n":%s}}',
    "`data` for another function of the engine": b'"function_id":"engine::log::info","data":{"message":"m","data":{"n":%s}}',
    "`result` of a call": b'"result":{"n":%s}',
}
ID = "0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b11"
CALL = b'{"type":"invokefunction","invocation_id":"' + ID.encode() + b'",%s}'
ANSWER = b'{"type":"invocationresult","invocation_id":"%s",%s}'


def table() -> list[tuple[str, str, str]]:
    """Return place, value and what the table says of them."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in RECORD.read_text().partition("**What happens to a value**")[2].split("\n\n")[1].splitlines()
    ]
    head, _, *rows = lines
    return [(row[0], value, cell) for row in rows for value, cell in zip(head[1:], row[1:], strict=True)]


def test_the_table_names_every_place_and_value() -> None:
    rows = table()
    assert {place for place, _, _ in rows} == PLACES.keys() and {value for _, value, _ in rows} == VALUES.keys()
    assert {cell for _, _, cell in rows} == {"refused", "passed on"}


class World:
    """An engine with a queue, a bystander, a worker that decodes all that it is given, and a hostile peer."""

    def __init__(self, worker: iii_trio.Worker, open_client: Callable[[], Client]) -> None:
        self.worker, self.evil = worker, open_client()
        self.bystander = Bystander(open_client(), open_client(), open_client(), open_client())
        self.read: list[Any] = []

    async def begin(self) -> None:
        @self.worker.function("reads::all")
        async def reads_all(payload: Any, metadata: Any = None) -> str:
            self.read.append(payload)
            return "read"

        self.worker.register_trigger("durable:subscriber", "reads::all", config={"topic": "tide"})
        await self.worker.wait_registered()
        await self.evil.connect("evil")
        await self.evil.tell({"type": "registerfunction", "id": "evil::f"})
        await self.bystander.begin()

    async def send(self, text: bytes) -> dict[str, Any]:
        """Send a call and return its answer."""
        await self.evil.stream.send_all(framed(text))
        return await self.evil.until(lambda message: message.get("invocation_id") == ID)

    async def depth(self) -> int:
        rows = (await self.worker.trigger("engine::queue::list", {}))["queues"]
        return sum(row["depth"] for row in rows)


async def in_world(check: Callable[[World], Any]) -> None:
    queues = {
        BYSTANDERS_QUEUE: QueueSettings(),
        "default": QueueSettings(),
        "ordered": QueueSettings(fifo=True, group_by="n"),
    }
    config = EngineConfig(modules={"queue": QueueConfig(queues=queues)})
    async with (
        iii_trio.open_engine(config) as engine,
        engine.open_worker("reader") as worker,
        trio.open_nursery() as nursery,
    ):

        def open_client() -> Client:
            near, far = trio.testing.memory_stream_pair()
            nursery.start_soon(engine.serve_stream, far)
            return Client(near)

        world = World(worker, open_client)
        with trio.fail_after(60):
            await world.begin()
            await check(world)
            await world.bystander.goes_on()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("place", "value", "cell"), table())
async def test_a_value_is_refused_to_its_sender_or_answered_by_its_reader(
    place: str, value: str, cell: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = PLACES[place].replace(b"%s", VALUES[value])

    async def of_a_call(world: World) -> None:
        answer = await world.send(CALL % text)
        assert answer["error"]["code"] == "deserialization_error", answer
        assert not world.read and await world.depth() == 0
        # The worker answers with the same code. The engine logs what it refuses itself, but not for its own functions.
        if "another function" not in place:
            assert ("cannot be read" in caplog.text) == (cell == "refused")

    async def of_a_result(world: World) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_answer, world)
            with pytest.raises(iii_trio.CallError) as caught:
                await world.worker.trigger("evil::f", {})
        code = "serialization_error" if cell == "refused" else "deserialization_error"
        assert caught.value.code == code and "cannot be read" in caught.value.message

    async def _answer(world: World) -> None:
        call = await world.evil.until(lambda message: message.get("function_id") == "evil::f")
        await world.evil.stream.send_all(framed(ANSWER % (call["invocation_id"].encode(), text)))

    await in_world(of_a_result if place == "`result` of a call" else of_a_call)


@pytest.mark.parametrize("queue", ["default", "ordered"])
async def test_a_large_job_that_its_worker_cannot_read_fails_alone(
    queue: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Its payload is not decoded when it comes, so its reader answers: the FIFO queue, or the worker."""
    large = b'"function_id":"reads::all","action":{"type":"enqueue","queue":"%s"},"data":{"n":1e999,"filler":"%s"}'

    async def check(world: World) -> None:
        answer = await world.send(CALL % (large % (queue.encode(), b"x" * 2**20)))
        if queue == "ordered":
            assert answer["error"]["code"] == "enqueue_error" and "'n' cannot be decoded" in answer["error"]["message"]
            assert await world.depth() == 0
        else:
            assert "messageReceiptId" in answer["result"]
            await world.worker.trigger("reads::all", {"fine": 1}, action=iii_trio.enqueue("default"))
            await trio.sleep(30)
            (row,) = [
                row for row in (await world.worker.trigger("engine::queue::list", {}))["queues"] if row["name"] == queue
            ]
            assert (row["depth"], row["dead"]) == (0, 1) and world.read == [{"fine": 1}]

    await in_world(check)
