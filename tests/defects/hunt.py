"""Look for a broken promise in whichever `iii_trio` can be imported; if there is one, print the shrunk history, exit with 1.

    python tests/defects/hunt.py frames|scripts|conversations|clauses

Run as a process of its own, so that it can be pointed at a copy of the package that has a defect.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import attrs
import hypothesis.strategies as st
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import run_state_machine_as_test

from iii_trio import EngineConfig, Listener, Worker, open_engine
from iii_trio.conformance import run_conformance
from iii_trio.conformance.peer import Peer, Seen, as_message
from iii_trio.testing import simulate, simulate_conversation
from iii_trio.testing.channel_machine import ChannelMachine
from iii_trio.testing.conversations import Conversation
from iii_trio.testing.sim_stream import Conditions
from iii_trio.testing.strategies import conversations
from iii_trio.testing.world import World
from iii_trio.transport.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT, close_payload, frame
from iii_trio.wire import Ref, attach_target

SHRINKING_SECONDS: Final = 2.0
MASK: Final = b"\x0a\x0b\x0c\x0d"
EXAMPLES: Final = {"frames": 200, "scripts": 600, "conversations": 240}


def search(test: Callable[..., object], name: str) -> None:
    """Let Hypothesis find what breaks, and shrink it for a while; the shortest is printed."""
    found: list[str] = []
    began = 0.0

    def watched(arguments: tuple[Any, ...]) -> None:
        nonlocal began
        try:
            test(*arguments)
        except Exception as error:
            began = began or time.monotonic()
            found.append("".join(traceback.format_exception_only(error)) + "\n".join(map(str, arguments)))
            if time.monotonic() > began + SHRINKING_SECONDS:
                tell(found)
            raise
        if found and time.monotonic() > began + SHRINKING_SECONDS:
            tell(found)

    few = settings(
        max_examples=EXAMPLES[name],
        stateful_step_count=12,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_with(watched, few, name)
    except Exception:
        if not found:
            raise
        tell(found)


def run_with(watched: Callable[..., None], few: settings, name: str) -> None:
    match name:
        case "scripts":

            class Watched(ChannelMachine):
                def teardown(self) -> None:
                    watched((self,))

                def __str__(self) -> str:
                    return "\n".join([f"workers over {', '.join(self.over)}:", *map(str, self.steps)])

            run_state_machine_as_test(Watched, settings=few)
        case "conversations":
            few(given(st.tuples(conversations(), st.integers(0, 50)))(watched))()
        case "frames":
            few(given(st.tuples(talks(), networks(), st.integers(0, 50)))(watched))()


def tell(found: list[str]) -> None:
    print(f"broken, in {len(found)} histories; the shortest:\n{min(found, key=len)}", flush=True)
    os._exit(1)  # shrinking has had its time


# --- what is looked for


def play_script(machine: ChannelMachine) -> None:
    ChannelMachine.teardown(machine)


def hold_conversation(conversation: Conversation, seed: int) -> None:
    simulate_conversation(conversation, seed, max_steps=100_000)


@attrs.frozen
class Talk:
    """What a writer that is none of ours says, frame by frame, and how it ends."""

    messages: tuple[tuple[int, tuple[bytes, ...]], ...]
    """Kind, and fragments."""
    ending: int | str | None
    """The code of its Close (None: without one), or `fin`, `reset`, `within`: a Close within a message."""
    reader_first: bool
    buffer_size: int
    at_once: bool
    """All frames, and the Close, go out in one piece."""

    @property
    def whole(self) -> bool:
        return self.ending in (1000, None)


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    return Talk(
        draw(st.lists(st.tuples(st.sampled_from((TEXT, BINARY)), fragments()), max_size=6).map(tuple)),
        draw(st.sampled_from((1000, None, 1001, 1011, 4001, "fin", "reset", "within"))),
        draw(st.booleans()),
        draw(st.sampled_from((64, 1, 2))),
        draw(st.booleans()),
    )


def networks() -> st.SearchStrategy[Conditions]:
    sizes = st.sampled_from((65_536, 200))
    return st.builds(
        Conditions,
        segment_bytes=st.sampled_from((65_536, 60)),
        short_writes=st.sampled_from((0.0, 0.5)),
        send_buffer_bytes=sizes,
        receive_buffer_bytes=sizes,
    )


def fragments() -> st.SearchStrategy[tuple[bytes, ...]]:
    piece = st.sampled_from((b"", b"a", b"b" * 130, b"c" * 300))
    return st.lists(piece, min_size=1, max_size=3).map(tuple)


def hold_talk(talk: Talk, network: Any, seed: int) -> None:
    async def scenario(world: World) -> None:
        await _talk(world, talk)

    simulate(scenario, seed, conditions=network, max_seconds=2_000, max_steps=100_000)


async def _talk(world: World, talk: Talk) -> None:
    refs: list[Ref] = []

    async def own(worker: Worker) -> None:
        async with worker.create_channel(talk.buffer_size) as channel:
            refs.extend((channel.writer_ref, channel.reader_ref))
            await trio.sleep(1_000)

    await world.start_worker("owner", own)
    await trio.sleep(10)
    writer = await _attach(world, "writer", refs[0])
    reader = await _attach(world, "reader", refs[1]) if talk.reader_first else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_write, world, writer, talk)
        await trio.sleep(30)
        reader = reader or await _attach(world, "reader", refs[1])
        if reader.status == 101:
            with trio.fail_after(100):
                _judge(talk, await reader.watch())
        else:
            assert not talk.whole, f"the reader of a whole stream was refused with {reader.status}"
        await trio.sleep(10)
        rows = [row for row in world.engine.channels() if row.id == refs[0].channel_id]
        assert not rows, f"the channel is still there: {rows}"
        nursery.cancel_scope.cancel()
    ended = [one for one in world.ended if one.id == refs[0].channel_id]
    assert len(ended) == 1, f"the channel has ended {len(ended)} times"
    assert (ended[0].outcome == "completed") == talk.whole, f"the outcome is {ended[0].outcome} ({ended[0].reason})"
    for peer in (writer, reader):
        await peer.drop()


async def _attach(world: World, name: str, ref: Ref) -> Peer:
    return await Peer.over(await world.network.dial(world, name), "sim", attach_target(ref))


async def _write(world: World, writer: Peer, talk: Talk) -> None:
    said = [
        frame(kind if n == 0 else CONTINUATION, piece, fin=n == len(pieces) - 1, mask=MASK)
        for kind, pieces in talk.messages
        for n, piece in enumerate(pieces)
    ]
    if talk.at_once and not isinstance(talk.ending, str):
        said.append(frame(CLOSE, b"" if talk.ending is None else close_payload(talk.ending), mask=MASK))
    try:
        for data in [b"".join(said)] if talk.at_once else said:
            await writer.send_raw(data)
            if not talk.at_once:
                await writer.say(PING, b"?")
        if not talk.at_once or isinstance(talk.ending, str):  # its Close was not sent yet
            await trio.sleep(10)  # for everything to arrive
            _check_bound(world, talk)
        match talk.ending:
            case "fin":
                await writer.fin()
            case "reset":
                writer.stream.reset()  # type: ignore[attr-defined]
            case "within":
                await writer.say(TEXT, b"begun", fin=False)
                await writer.close()
            case _ if not talk.at_once:
                await writer.close(talk.ending)  # type: ignore[arg-type]
        await writer.watch()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


def _check_bound(world: World, talk: Talk) -> None:
    """Clauses C1.4 and C1.6. Look before the writer's Close, behind which its read-ahead goes into the pipe, too."""
    for row in world.engine.channels():
        assert row.items_waiting <= talk.buffer_size, f"into a pipe of {talk.buffer_size} went {row.items_waiting}"


def _judge(talk: Talk, seen: Seen) -> None:
    written = [as_message(kind, b"".join(pieces)) for kind, pieces in talk.messages]
    assert list(seen.messages) == written[: len(seen.messages)], f"what came is not a prefix: {seen.messages}"
    if talk.whole:
        assert len(seen.messages) == len(written), f"of a whole stream only {len(seen.messages)} messages came"
        assert seen.code == 1000, f"of a whole stream the reader saw {seen}"
    else:
        assert not seen.looks_complete, f"of a stream that was cut the reader saw {seen}"


LOOK_FOR: Final[dict[str, Callable[..., object]]] = {
    "frames": hold_talk,
    "scripts": play_script,
    "conversations": hold_conversation,
}


async def check_clauses() -> None:
    """What no stream shows by itself: who is told of what happens to others, and when. Over real sockets."""
    async with open_engine(EngineConfig()) as engine:
        (url,) = await engine.listen(Listener(port=0))
        for clause in ("C2.3", "C4.4", "C4.5"):
            report = await run_conformance(url, only=clause)
            if report.broken:
                tell([f"{finding.title}: {finding.saw}" for finding in report.broken])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    if sys.argv[1] == "clauses":
        trio.run(check_clauses)
    else:
        search(LOOK_FOR[sys.argv[1]], sys.argv[1])
