"""Background work that survives: jobs outlive the engine, wait for their worker, are tried again, and end as dead letters.

Jobs of one account are done one after the other, in their order, also while one of them is tried again; other accounts go on
beside it.
"""

from __future__ import annotations

import tempfile
from typing import Any

import trio

import iii_trio

LEDGER = iii_trio.QueueSettings(
    fifo=True, group_by="account", max_attempts=3, backoff_seconds=0.05, missing_function_seconds=None
)
broken = {"printer"}
"""What does not work at the moment."""


def offer_booking(worker: iii_trio.Worker, booked: trio.MemorySendChannel[str]) -> None:
    """Offer `ledger::book`, which has its days."""

    @worker.function("ledger::book")
    async def book(account: str, text: str, metadata: dict[str, Any]) -> None:
        attempt = metadata["job"]["attempt"]
        if text == "rent" and attempt < 3:
            print(f"  {account}: {text}, attempt {attempt}: the bank does not answer")
            raise iii_trio.CallError("bank_down", "the bank does not answer")
        if text in broken:
            raise iii_trio.CallError("no_paper", f"the {text} has no paper")
        print(f"  {account}: {text}, attempt {attempt}: booked")
        await booked.send(text)


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        config = iii_trio.EngineConfig(
            modules={"queue": iii_trio.QueueConfig(queues={"ledger": LEDGER}, directory=directory)}
        )

        print("an engine takes jobs that nobody can do yet, and ends:")
        async with iii_trio.open_engine(config) as engine, engine.open_worker("shop") as shop:
            for account, text in (("ada", "rent"), ("ada", "tea"), ("bob", "cake"), ("bob", "printer")):
                job = {"account": account, "text": text}
                receipt = await shop.trigger("ledger::book", job, action=iii_trio.enqueue("ledger"))
                print(f"  {account}: {text} is kept, as {receipt.id[:8]}…")

        print("the next one has them, and now somebody does them:")
        send, receive = trio.open_memory_channel[str](0)
        async with iii_trio.open_engine(config) as engine, engine.open_worker("bank") as bank:
            offer_booking(bank, send)
            done = [await receive.receive() for _ in range(3)]
            print("  ada's in their order:", [text for text in done if text in ("rent", "tea")])

            dead = await dead_letters(bank)
            print("a dead letter:", dead[0]["error"], f"(after {dead[0]['retries']} calls)")
            broken.clear()
            await bank.trigger("iii::queue::redrive", {"queue": "ledger"})
            print("mended, and tried again:", await receive.receive())


async def dead_letters(worker: iii_trio.Worker) -> list[dict[str, Any]]:
    """Wait until the ledger has dead letters, and return them."""
    while True:
        found = await worker.trigger("engine::queue::dlq_messages", {"queue": "ledger"})
        if found:
            return list(found)
        await trio.sleep(0.02)


if __name__ == "__main__":
    trio.run(main)
