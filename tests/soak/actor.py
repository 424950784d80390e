"""A worker of the soak, as a process: `python -m tests.soak.actor URL NAME SEED PAUSE LONGEST`.

It offers to read, to write and to echo, and does something with others of its kind every PAUSE seconds in the mean (0:
never, and it offers nothing either); its streams last LONGEST seconds at most. It tells what came of it on stdout, and is
told on stdin: `{"pause": seconds}`, `{"settle": true}` (begin nothing more, say when all is over). The end of its stdin is
its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from random import Random
from typing import Any, Final, final

import trio

import iii_trio

from .ends import PREFIX, read_stream, say, write_stream
from .plans import ENDINGS, Plan

_MAX_SECONDS: Final = 60.0
"""What one deed may take before it counts as hanging: far longer than anybody is stopped."""
_EXPIRES_SECONDS: Final = 12.0
"""How long a finished stream outlives its owner where no reader came (clause C4.5): longer than anybody is stopped."""
_FIRINGS: Final = 3
_DEEDS: Final = {"stream": 5, "echo": 3, "give_up": 1, "be_triggered": 1, "come_and_go": 1}


def _is_here(function: Mapping[str, Any]) -> bool:
    return str(function["function_id"]).endswith("::here")


def _ours(here: list[str]) -> list[str]:
    """Those that can do everything."""
    return [name for name in here if not name.startswith("sdk")]


@final
class Actor:
    """What one worker does."""

    def __init__(self, worker: iii_trio.Worker, name: str, random: Random, pause: float, longest: float) -> None:
        self._worker = worker
        self._name = name
        self._random = random
        self._pause = pause
        self._longest = longest
        self._settling = trio.CancelScope()
        self._numbers = iter(range(10**9))
        self._fired: dict[str, tuple[list[int], trio.Event]] = {}

    def offer(self) -> None:
        """Say what this worker does for others; `here` last: who is told of it can have it all."""
        own = f"{PREFIX}{self._name}::"
        worker = self._worker

        @worker.function(f"{own}read")
        async def read(reader: iii_trio.ChannelReader, plan: dict[str, Any]) -> dict[str, Any]:
            return await read_stream(reader, Plan.from_json(plan))

        @worker.function(f"{own}write")
        async def write(writer: iii_trio.ChannelWriter, plan: dict[str, Any]) -> dict[str, Any]:
            return await write_stream(writer, Plan.from_json(plan))

        @worker.function(f"{own}echo")
        async def echo(value: Any) -> Any:
            return value

        @worker.function(f"{own}hang")
        async def hang(value: Any) -> None:
            await trio.sleep_forever()

        @worker.function(f"{own}noted")
        async def noted(token: str, number: int) -> None:
            if token in self._fired:
                numbers, done = self._fired[token]
                numbers.append(number)
                if len(numbers) == _FIRINGS:
                    done.set()

        @worker.trigger_type(f"{own}tick")
        async def tick(bound: iii_trio.BoundTrigger, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            try:
                for number in range(_FIRINGS):
                    await bound.fire({"token": bound.config["token"], "number": number})
            except iii_trio.CallError:
                pass  # who wanted it is gone, or has it no more
            await trio.sleep_forever()

        @worker.function(f"{own}here")
        async def here(value: Any) -> str:
            return "trio"

    async def act(self) -> None:
        """Do one thing after the other, several at once where they take longer, until told to settle."""
        async with trio.open_nursery() as deeds:
            with self._settling:
                while True:
                    if not self._pause:
                        await trio.sleep_forever()
                    await trio.sleep(min(self._random.expovariate(1 / self._pause), 10 * self._pause))
                    deeds.start_soon(self._do_something)
        say("settled")

    def told(self, command: dict[str, Any]) -> None:
        """A line of stdin."""
        if self._pause:
            self._pause = command.get("pause", self._pause)
        if "settle" in command:
            self._settling.cancel()

    async def _do_something(self) -> None:
        (what,) = self._random.choices(list(_DEEDS), list(_DEEDS.values()))
        began = time.monotonic()
        try:
            with trio.fail_after(_MAX_SECONDS):
                found = await self._worker.trigger("engine::functions::list", {"prefix": PREFIX})
                here = [each["function_id"].split("::")[1] for each in found["functions"] if _is_here(each)]
                if here:
                    await getattr(self, f"_{what}")(here)
        except trio.TooSlowError:
            say("wrong", text=f"{what} of {self._name} took more than {_MAX_SECONDS:g} s")
        except (iii_trio.CallError, iii_trio.ConnectionFailed) as error:
            self._tell_call("look around", [], began, str(error))

    def _tell_call(self, what: str, who: list[str], began: float, problem: str | None, *, false: bool = False) -> None:
        """`false`: an answer that is wrong, whatever happened to whom."""
        ended = time.monotonic()
        say("call", what=what, who=[self._name, *who], began=began, ended=ended, problem=problem, false=false)

    async def _call(self, what: str, callee: str, function: str, payload: Any) -> Any:
        began = time.monotonic()
        try:
            value = await self._worker.trigger(f"{PREFIX}{callee}::{function}", payload)
        except (iii_trio.CallError, iii_trio.ConnectionFailed) as error:
            self._tell_call(what, [callee], began, str(error))
            return None
        false = function == "echo" and value != payload["value"]
        self._tell_call(what, [callee], began, "it came back otherwise" if false else None, false=false)
        return value

    async def _echo(self, here: list[str]) -> None:
        value = "é" * self._random.choice((1, 100, 5_000)) + str(next(self._numbers))
        await self._call("call", self._random.choice(here), "echo", {"value": value})

    async def _give_up(self, here: list[str]) -> None:
        """A call that is cancelled."""
        callee, began = self._random.choice(_ours(here) or [self._name]), time.monotonic()
        with trio.move_on_after(self._random.random() / 5) as patience:
            await self._call("call without answer", callee, "hang", {"value": 1})
        if patience.cancelled_caught:
            self._tell_call("call given up", [callee], began, None)

    async def _come_and_go(self, here: list[str]) -> None:
        """A function that is there for one call."""
        function_id = f"brief{next(self._numbers)}"
        registered = self._worker.register_function(f"{PREFIX}{self._name}::{function_id}", lambda value: value)
        try:
            await self._call("call of a brief function", self._name, function_id, {"value": 1})
        finally:
            registered.unregister()

    async def _be_triggered(self, here: list[str]) -> None:
        provider, began = self._random.choice(_ours(here) or [self._name]), time.monotonic()
        token = f"{self._name}-{next(self._numbers)}-{began}"
        numbers, done = self._fired[token] = ([], trio.Event())
        binding = self._worker.register_trigger(
            f"{PREFIX}{provider}::tick", f"{PREFIX}{self._name}::noted", config={"token": token}
        )
        with trio.move_on_after(_MAX_SECONDS / 3):
            await done.wait()
        binding.unregister()
        del self._fired[token]
        came = numbers[:_FIRINGS] == list(range(_FIRINGS))
        self._tell_call("trigger", [provider], began, None if came else f"it fired {numbers}")

    async def _stream(self, here: list[str]) -> None:
        """A channel of this worker's, whose ends go to any two, this one among them."""
        reader, writer = self._random.choice(here), self._random.choice(here)
        sdk = any(name.startswith("sdk") for name in (reader, writer))
        plan = Plan.draw(
            self._random, f"{self._name}-{os.getpid()}-{next(self._numbers)}",
            owner=self._name, writer=writer, reader=reader, longest=self._longest, now=time.monotonic(),
            ending="close" if sdk else self._random.choice(ENDINGS),
        )  # fmt: skip
        say("planned", plan=plan.to_json())
        outcome = None
        try:
            made = self._worker.create_channel(plan.buffer_size, expires_after_seconds=_EXPIRES_SECONDS)
            async with made as channel, trio.open_nursery() as nursery:
                ends = {"reader": channel.reader_ref.to_json(), "writer": channel.writer_ref.to_json()}

                async def hand_over(side: str, name: str, verb: str) -> None:
                    payload = {side: ends[side], "plan": plan.to_json()}
                    if await self._call("call with an end", name, verb, payload) is None:
                        nursery.cancel_scope.cancel()  # nobody is at that end: the other has nothing to wait for

                nursery.start_soon(hand_over, "reader", reader, "read")
                nursery.start_soon(hand_over, "writer", writer, "write")
                try:
                    outcome = (await channel.wait_outcome()).outcome
                except iii_trio.ConnectionFailed:
                    pass  # the link to the engine was lost: the calls hear of it, too
        except (iii_trio.CallError, iii_trio.ConnectionFailed) as error:
            self._tell_call("making of a channel", [], plan.began, str(error))
        say("owner", plan=plan.to_json(), outcome=outcome)


async def run(url: str, name: str, seed: int, pause: float, longest: float) -> None:
    """Be that worker until stdin ends."""
    async with iii_trio.open_worker(url, name=name) as worker, trio.open_nursery() as nursery:
        actor = Actor(worker, name, Random(seed), pause, longest)

        async def obey() -> None:
            unfinished = b""
            while data := await stdin.receive_some():
                *lines, unfinished = (unfinished + data).split(b"\n")
                for line in lines:
                    actor.told(json.loads(line))
            nursery.cancel_scope.cancel()

        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            if pause:
                actor.offer()
                await worker.wait_registered()
            say("ready")
            nursery.start_soon(obey)
            await actor.act()
            await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(run, sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]))
