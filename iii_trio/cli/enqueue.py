"""`iii-trio enqueue`: one job."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import trio
from cyclopts import Parameter

import iii_trio

from .calling import Deadline, connect
from .exits import Exit, Failure, UsageError
from .hints import tell_if_missing
from .jobs import check_done, wait_for
from .options import Address, Function, Json, Namespace, Pairs, check_function, check_timeout, engine_address
from .output import say, to_json, visible
from .payload import make_payload
from .queues import check_queue

_RECEIPT_SECONDS: Final = 30.0
_RESULT_SECONDS: Final = 60.0  # long enough for a command that waits


async def enqueue(
    queue: Annotated[str, Parameter(help="The queue's name; `default` is always there.")],
    function: Function,
    /,
    *pairs: Pairs,
    json: Json = None,
    delay: Annotated[float | None, Parameter(help="Seconds before the first call.")] = None,
    at: Annotated[
        datetime | None, Parameter(help="The time of the first call, such as 2026-12-24T18:00:00+01:00.")
    ] = None,
    priority: Annotated[int | None, Parameter(help="From 0 to 3: jobs of a higher one start first. Usually 1.")] = None,
    unique_key: Annotated[str | None, Parameter(help="Take no second job of this key while one waits or runs.")] = None,
    unique_seconds: Annotated[
        float | None, Parameter(help="Take no second job of the key for so long, even if the first is done.")
    ] = None,
    replace: Annotated[bool, Parameter(negative="", help="Take the place of a waiting job of the same key.")] = False,
    keep_result: Annotated[
        float | None, Parameter(help="Seconds for which `iii-trio job ID` shows the result, once there is one.")
    ] = None,
    wait: Annotated[
        bool,
        Parameter(
            negative="", help="Wait until the job is done, and print its result. Only then, 0 means that it is done."
        ),
    ] = False,
    timeout: Annotated[
        float | None,
        Parameter(help="Seconds to wait for the receipt (30 if not said), and with --wait for the end, too."),
    ] = None,
    namespace: Namespace = None,
    address: Address = None,
) -> Exit:
    """Have a function called later, by a queue, and print the job's receipt: its id.

    The function need not be there yet. For example: iii-trio enqueue mail mail::send to=ada@example.org
    """
    check_function(function)
    check_timeout(timeout)
    if at is not None and at.tzinfo is None:
        raise UsageError(f"--at {at} has no time zone; write for example {at.isoformat()}+01:00, or Z for UTC")
    payload = make_payload(json, pairs)
    deadline = Deadline(_RECEIPT_SECONDS if timeout is None else timeout)
    if wait and keep_result is None:
        keep_result = _RESULT_SECONDS
    async with connect(engine_address(address), "enqueue", deadline) as worker:
        receipt = None
        with trio.CancelScope(deadline=deadline.at):
            await check_queue(worker, queue, "queue")
            action = iii_trio.enqueue(
                queue, delay_seconds=delay, at=at, priority=priority, unique_key=unique_key,
                unique_seconds=unique_seconds, replace=replace, keep_result_seconds=keep_result,
            )  # fmt: skip
            receipt = await worker.trigger(function, payload, namespace=namespace, action=action)
        # The request may have arrived, so the user must not simply repeat it.
        if receipt is None:
            sentence = f"no receipt within {deadline.seconds:g} s: the job may be kept all the same; see --timeout"
            raise Failure(Exit.TIMED_OUT, sentence)
        say(visible(receipt.id))  # before the end, because the command may be interrupted
        await tell_if_missing(worker, function, namespace)
        if wait:
            row = await wait_for(worker, receipt.id, Deadline() if timeout is None else deadline)
            check_done(row, pairs)
            say(to_json(row.get("result")))
    return Exit.DONE
