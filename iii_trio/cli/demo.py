"""`iii-trio demo`: an engine and two workers as real processes. A stream that arrives whole, then one that is cut."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter
from rich.text import Text

from ..nursery import open_service_nursery
from ..records import frozen
from .demo_actors import Actor, Stage, unexpected
from .exits import Exit, Failure, UsageError
from .output import draw, markup, new_console
from .progress import Meter, size

MEBIBYTE: Final = 1024 * 1024
GENERATED_BYTES: Final = 256 * MEBIBYTE


async def demo(
    file: Annotated[str | None, Parameter(help="The file to stream; a generated one of 256 MiB if not said.")] = None,
    /,
) -> Exit:
    """See it work: an engine and two workers as real processes on this machine.

    Streams a file from one worker to the other and checks its SHA-256. Then does it again, kills the writing process
    half-way, and shows what the reader was told. Leaves no process and no file behind.
    """
    # The exception keeps its type for the exit code.
    async with open_service_nursery() as nursery:
        with ExitStack() as stack:
            film = await _choose_file(file, stack)
            await _play(Stage(nursery), film)
        nursery.cancel_scope.cancel()  # kills what is left
    return Exit.DONE


def say(text: str, style: str = "") -> None:
    """Print a line with rich's markup."""
    draw(Text.from_markup(text, style=style), new_console())


@frozen
class _Film:
    """The streamed file."""

    path: str
    bytes: int
    sha256: str


async def _choose_file(file: str | None, stack: ExitStack) -> _Film:
    """Choose the file to stream. A generated file goes with the stack, or with this process. Raises UsageError."""
    if file is None:
        path = _temporary(stack)
        say(f"Making a file of {size(GENERATED_BYTES)} …", style="dim")
        digest = await trio.to_thread.run_sync(_generate, path, GENERATED_BYTES)
        return _Film(str(path), GENERATED_BYTES, digest)
    # The demo reads the file twice, which a pipe does not allow.
    if not await trio.Path(file).is_file():
        raise UsageError(f"{file} is not a file; name one, or leave it out")
    try:
        digest, count = await trio.to_thread.run_sync(_hash, file)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    return _Film(file, count, digest)


async def _play(stage: Stage, film: _Film) -> None:
    engine = await stage.start("engine")
    address = await stage.expect(engine, "address")
    reader = await stage.start("reader", address)
    await stage.expect(reader, "ready")
    say("\n[bold]Three processes on this machine[/]")
    say(f"  engine  pid {engine.pid}, listening on {address}")
    say(f"  reader  pid {reader.pid}, a worker that offers the function demo::receive")
    say("  writer  a worker that makes a channel, passes its reading end in a call to demo::receive, and writes a file")

    say("\n[bold]1. A stream that arrives[/]")
    writer = await stage.start("writer", address, film.path)
    await _see_it_arrive(stage, reader, writer, film)

    say("\n[bold]2. The same stream, and its writer is killed half-way[/]")
    writer = await stage.start("writer", address, film.path, str(film.bytes // 2))
    await _see_it_cut(stage, reader, writer, film)

    say("\nOver a plain socket the second stream would have looked finished. Here a reader sees a clean end only if")
    say("the writer said so; whatever else happens to a process or a network is an error at the other end, at once.")
    say(
        "\nNext: `iii-trio` runs an engine, `iii-trio send FILE FUNCTION` streams into any worker, "
        "`iii-trio --help` tells the rest.",
        style="dim",
    )


async def _see_it_arrive(stage: Stage, reader: Actor, writer: Actor, film: _Film) -> None:
    """Show that the whole file arrives with the right hash. Raises Failure if not."""
    told: dict[str, Any] = {}
    over = False
    with Meter("  streaming", film.bytes, sys.stdout, plain=True) as meter:
        while not (over and "ended" in told):  # two processes say so, in either order
            who, event = await stage.hear()
            if who is reader and "received" in event:
                meter.reach(event["received"])
                told = event
            elif who is writer and event.get("gone") == 0:
                over = True
            elif not (who is writer and "result" in event):
                raise unexpected(who, event)
    # The first stream is not disturbed, so a cut is a defect of the demo's machine or code.
    if told["ended"] != "clean":
        raise Failure(Exit.STREAM_CUT, f"the stream was cut: {told['ended']}: {told['reason']}")
    # A clean end alone does not prove that the bytes are right.
    if told["sha256"] != film.sha256:
        raise Failure(Exit.FAILED, f"the reader's SHA-256 is {told['sha256']}, the file's is {film.sha256}")
    seconds = max(told["seconds"], 1e-6)
    say(f"  [green]✓[/] {film.bytes:,} bytes in {seconds:.2f} s, hashed on the way: {size(film.bytes / seconds)}/s")
    say(f"  [green]✓[/] the reader has the file's SHA-256: {film.sha256}")
    say("  [green]✓[/] the reader was told: the clean end")


async def _see_it_cut(stage: Stage, reader: Actor, writer: Actor, film: _Film) -> None:
    """Show that the reader is told when the writer dies half-way. Raises Failure if it is not."""
    told: dict[str, Any] = {}
    killed = 0.0
    with Meter("  streaming", film.bytes, sys.stdout, plain=True) as meter:
        while not told:
            who, event = await stage.hear()
            if who is reader and "ended" in event:
                told = event
                meter.reach(told["received"])
            elif who is reader and "received" in event:
                meter.reach(event["received"])
            # The writer waits half-way, so that the kill never comes too late.
            elif who is writer and "holding" in event:
                killed = time.monotonic()
                writer.kill()
            elif not (who is writer and "gone" in event and killed):
                raise unexpected(who, event)
        after = time.monotonic() - killed
    say(f"  [red]✗[/] kill -9 {writer.pid}, after it wrote {size(film.bytes // 2)} of {size(film.bytes)}")
    # The point of the demo is that a killed writer never looks finished.
    if told["ended"] == "clean":
        raise Failure(Exit.FAILED, f"the reader took {told['received']:,} of {film.bytes:,} bytes for the whole")
    say(
        f"  [green]✓[/] {after * 1000:.0f} ms later the reader was told: [bold]{told['ended']}[/]: {markup(told['reason'])}"
    )
    say(f"  [green]✓[/] it holds {size(told['received'])}, and does not take them for the whole")


def _temporary(stack: ExitStack) -> Path:
    """Make a file and return its path. Where the system can, it has no name, and goes with the last process that has it."""
    # A file without a name cannot be left behind, even by SIGKILL.
    if Path("/proc/self/fd").is_dir():
        nameless = tempfile.TemporaryFile(prefix="iii-trio-demo-")  # noqa: SIM115  (the stack closes it)
        stack.callback(nameless.close)
        return Path(f"/proc/{os.getpid()}/fd/{nameless.fileno()}")
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iii-trio-demo-")), "generated")


def _generate(path: Path, count: int) -> str:
    """Write a file in which no two blocks are alike; returns its SHA-256."""
    digest = hashlib.sha256()
    noise = os.urandom(MEBIBYTE - 8)
    with path.open("wb") as file:
        for index in range(count // MEBIBYTE):
            # Threads do not notice Ctrl-C by themselves.
            trio.from_thread.check_cancelled()
            block = index.to_bytes(8, "big") + noise
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def _hash(path: str) -> tuple[str, int]:
    digest, count = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(MEBIBYTE):
            trio.from_thread.check_cancelled()
            digest.update(block)
            count += len(block)
    return digest.hexdigest(), count
