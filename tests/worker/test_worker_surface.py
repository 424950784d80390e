"""What `Worker` shows its users, and the types of it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

import iii_trio
from iii_trio import lowlevel
from iii_trio.errors import CallError
from iii_trio.wire import InvokeFunction
from iii_trio.worker import Worker, open_worker
from tests.helpers.fake_engine import FakeEngine


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_a_worker_shows_what_its_users_need() -> None:
    assert _public(Worker) == {
        "connected", "create_channel", "function", "http", "open_reader", "open_writer",
        "register_external_function", "register_function", "register_trigger",
        "register_trigger_type", "state", "subscribe", "supports_extensions", "trigger", "trigger_type", "trigger_void",
        "wait_connected", "wait_outcome", "wait_registered", "wait_state", "worker_id",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [Worker, iii_trio.ChannelReader, iii_trio.ChannelWriter, iii_trio.Channel])
def test_all_of_it_is_documented_and_takes_no_unnamed_options(kind: type) -> None:
    for name in _public(kind):
        member = inspect.getattr_static(kind, name)
        assert inspect.getdoc(getattr(kind, name)), name
        if inspect.isfunction(member):
            kinds = {parameter.kind for parameter in inspect.signature(member).parameters.values()}
            assert inspect.Parameter.VAR_KEYWORD not in kinds, name


def test_the_low_level_interface_is_documented() -> None:
    assert all(inspect.getdoc(getattr(lowlevel, name)) for name in lowlevel.__all__ if name != "InlineHandler")


@pytest.mark.parametrize("function", [iii_trio.open_worker, iii_trio.open_engine, iii_trio.Engine.open_worker])
def test_options_are_named(function: Any) -> None:
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds


@attrs.frozen
class Price:
    amount: int
    currency: str = "EUR"


async def test_a_value_is_structured_as_it_is_wanted() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:

        @worker.function("price")
        async def price(amount: Any) -> Any:
            return {"amount": amount}

        await worker.wait_registered()
        value: Price = await worker.trigger("price", {"amount": 3}, into=Price)
        assert value == Price(3)
        assert await worker.trigger("price", {"amount": 3}) == {"amount": 3}
        assert await worker.trigger("price", {"amount": 3}, into=dict[str, int]) == {"amount": 3}
        with pytest.raises(CallError) as caught:
            await worker.trigger("price", {"amount": "3"}, into=Price)
    assert caught.value.code == "deserialization_error"
    assert caught.value.message == "the value of price does not fit Price: amount: expected an integer, got a string"


async def test_a_ref_is_a_ref_and_travels_as_one() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        async with worker.create_channel() as channel:
            ref = channel.reader_ref
            assert isinstance(ref, iii_trio.Ref) and ref == channel.reader.ref

            @worker.function("size")
            async def size(reader: iii_trio.ChannelReader) -> int:
                return len(await reader.read_all())

            await worker.wait_registered()
            async with channel.writer:
                await channel.writer.send(b"four")
            assert await worker.trigger("size", {"reader": ref}) == 4


async def test_a_call_that_was_given_up_calls_nobody_back() -> None:
    engine = FakeEngine()
    called: list[str] = []
    async with open_worker(engine) as worker:
        handle = lowlevel.call_nowait(worker, InvokeFunction("f"), lambda: called.append("f"))
        handle.give_up("unwanted \udcff")
        call = engine.link.of(InvokeFunction)[-1]
        engine.link.answer(call, 1)
        await worker.wait_registered()
    assert not called


TYPED = """
import iii_trio

async def main(worker: iii_trio.Worker) -> None:
    async with worker.create_channel() as channel:
        ref: iii_trio.Ref = channel.reader_ref
        await worker.trigger("f", {"reader": ref})
        result = await channel.wait_outcome()
        assert result.outcome != "complete"  # type: ignore[comparison-overlap]
    number: int = await worker.trigger("f", into=int)
    worker.function("f", descripton="a typo")  # type: ignore[call-arg]
"""


@pytest.mark.slow
def test_a_users_code_is_typed_strictly(tmp_path: Path) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)]
    root = Path(iii_trio.__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stdout
