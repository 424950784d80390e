"""`iii-trio send` and `iii-trio receive`: a file through a channel, beside the call that takes the other end.

The call and the transfer run side by side. The call's error or timeout ends the transfer. When the transfer is cut, the
command still waits for the call's answer, because it may say why. The command has succeeded only when the stream was read
to its end *and* the call succeeded. Only then is there a file.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Annotated, Any, Final

import trio
from cyclopts import Parameter

import iii_trio

from ..errors import ChannelBroken
from .calling import Deadline, connect
from .ending import STANDARD_STREAM
from .exits import Exit
from .files import Sink, Source
from .hints import call_named
from .options import Address, Function, Json, Namespace, Pairs, Timeout, check_function, check_timeout, engine_address
from .output import complain, say_result
from .payload import make_payload, with_ref
from .progress import Meter, size

_SETTLE_SECONDS: Final = 5.0


async def send(
    file: Annotated[str, Parameter(help="The file to send; `-` is standard input.")],
    function: Function,
    /,
    *pairs: Pairs,
    as_: Annotated[str, Parameter(name="--as", help="The key of the payload where the function finds its reader.")] = (
        "reader"
    ),
    json: Json = None,
    timeout: Timeout = None,
    namespace: Namespace = None,
    address: Address = None,
) -> Exit:
    """Stream a file into a function.

    The function is called with the reading end of a channel under the key `reader`, and its result is printed.
    For example: iii-trio send big.log files::count_lines
    """
    check_function(function)
    check_timeout(timeout)
    payload = make_payload(json, pairs)
    with_ref(payload, as_, None)  # is there room for the ref?
    with closing(await Source.open(file)) as source:
        deadline = Deadline(timeout)
        async with connect(engine_address(address), "send", deadline) as worker, worker.create_channel() as channel:

            async def transfer() -> None:
                with Meter(f"sending {source.name}", source.size) as meter:
                    while chunk := await source.read():
                        await channel.writer.send(chunk)
                        meter.add(len(chunk))
                    await channel.writer.aclose()
                await _wait_read(worker, channel, deadline)

            async def answer() -> Any:
                asked = with_ref(payload, as_, channel.reader_ref)
                return await call_named(worker, function, asked, pairs, namespace=namespace, deadline=deadline)

            result, cut = await _side_by_side(answer, transfer)
            say_result(result)
            if cut is not None:
                raise cut  # inside the channel's block, which then does not end the stream cleanly
    return Exit.DONE


async def receive(
    function: Function,
    /,
    *pairs: Pairs,
    as_: Annotated[str, Parameter(name="--as", help="The key of the payload where the function finds its writer.")] = (
        "writer"
    ),
    output: Annotated[
        str,
        Parameter(
            name=["--output", "-o"],
            help="The file to write, which is there only once it is whole; standard output if not said, or `-`.",
            show_default=False,
        ),
    ] = STANDARD_STREAM,
    json: Json = None,
    timeout: Timeout = None,
    namespace: Namespace = None,
    address: Address = None,
) -> Exit:
    """Stream what a function writes into a file.

    The function is called with the writing end of a channel under the key `writer`. Its result is printed; on stderr,
    when the data goes to stdout. For example: iii-trio receive files::download name=big.log -o big.log
    """
    check_function(function)
    check_timeout(timeout)
    payload = make_payload(json, pairs)
    with_ref(payload, as_, None)
    with closing(await Sink.open(output)) as sink:
        deadline = Deadline(timeout)
        async with connect(engine_address(address), "receive", deadline) as worker, worker.create_channel() as channel:
            meter = Meter(f"receiving {sink.name}", shown=not sink.is_terminal)

            async def transfer() -> None:
                with meter:
                    async for item in channel.reader:
                        data = item.encode() if isinstance(item, str) else item
                        await sink.write(data)
                        meter.add(len(data))

            async def answer() -> Any:
                asked = with_ref(payload, as_, channel.writer_ref)
                return await call_named(worker, function, asked, pairs, namespace=namespace, deadline=deadline)

            result, cut = await _side_by_side(answer, transfer)
            say_result(result, sys.stderr if output == STANDARD_STREAM else None)
            if cut is not None:
                complain(f"received {size(meter.done)} of unknown length")
                raise cut
            await settle(worker, channel)
        await sink.keep()
    return Exit.DONE


async def settle(worker: iii_trio.Worker, channel: iii_trio.Channel) -> None:
    """Wait until the engine has noted the end of a stream that was read whole, for a moment at most.

    The worker's goodbye could overtake the reader's last word otherwise, and the engine would list the stream as cut.
    """
    # Another engine does not tell how a channel ended.
    if await worker.supports_extensions():
        with trio.move_on_after(_SETTLE_SECONDS):
            await channel.wait_outcome()


async def _wait_read(worker: iii_trio.Worker, channel: iii_trio.Channel, deadline: Deadline) -> None:
    """Wait until the reader has taken the whole stream. Raises ChannelBroken if it did not, and Failure when it is late."""
    # Another engine does not tell how a channel ended.
    if not await worker.supports_extensions():
        return
    with trio.CancelScope(deadline=deadline.at):
        result = await channel.wait_outcome()
        if result.outcome != "completed":
            raise ChannelBroken(result.outcome, result.reason)
        return
    raise deadline.passed("the stream was not read to its end")


async def _side_by_side(
    answer: Callable[[], Awaitable[Any]], transfer: Callable[[], Awaitable[None]]
) -> tuple[Any, ChannelBroken | None]:
    """Return the call's result, and how the stream was cut, if it was.

    Raises what the call or the transfer raises otherwise, and ends the other one then.
    """
    failures: list[Exception] = []
    cuts: list[ChannelBroken] = []
    result: Any = None
    async with trio.open_nursery() as nursery:

        async def carry() -> None:
            try:
                await transfer()
            # The call goes on, because its answer may say why the stream was cut.
            except ChannelBroken as cut:
                cuts.append(cut)
            except Exception as error:  # as a value: a nursery would make a group of it
                failures.append(error)
                nursery.cancel_scope.cancel()

        nursery.start_soon(carry)
        try:
            result = await answer()
        except Exception as error:
            failures.append(error)
            nursery.cancel_scope.cancel()
    # The first failure cancelled the rest, so it is the cause.
    if failures:
        raise failures[0]
    return result, cuts[0] if cuts else None
