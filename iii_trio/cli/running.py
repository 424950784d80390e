"""Runs a command on Trio until it is done or a signal ends it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import trio

from .exits import Exit

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def until_signalled(command: Callable[[], Awaitable[Exit]]) -> Exit:
    """Run `command`, and cancel it at SIGINT or SIGTERM. Its exceptions leave as they are.

    A command that handles signals itself opens its own receiver, which then comes first.
    """
    code: Exit | None = None
    failure: Exception | None = None
    received: list[int] = []
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_signalled, signals, received, nursery.cancel_scope)
            try:
                code = await command()
            except Exception as error:  # as a value: a nursery would make a group of it
                failure = error
            nursery.cancel_scope.cancel()
    # A command that finished counts as done, even if a signal came at the last moment.
    if code is not None:
        return code
    # Shells expect 128 and the number of the signal.
    if failure is None or received:
        return Exit(128 + received[0])
    raise failure


async def _cancel_when_signalled(signals: AsyncIterator[int], received: list[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        received.append(number)
        scope.cancel()
