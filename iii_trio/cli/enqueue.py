"""`iii-trio enqueue`: one job."""

from __future__ import annotations

from typing import Annotated

import trio
from cyclopts import Parameter

import iii_trio

from .calling import Deadline, connect
from .exits import Exit, Failure
from .options import Address, Function, Json, Namespace, Pairs, check_timeout, engine_address
from .output import say, visible
from .payload import make_payload
from .queues import check_queue


async def enqueue(
    queue: Annotated[str, Parameter(help="The queue's name; `default` is always there.")],
    function: Function,
    /,
    *pairs: Pairs,
    json: Json = None,
    delay: Annotated[float | None, Parameter(help="Seconds before the first call.")] = None,
    priority: Annotated[int | None, Parameter(help="From 0 to 3: jobs of a higher one start first. Usually 1.")] = None,
    unique_key: Annotated[str | None, Parameter(help="Take no second job of this key while one waits or runs.")] = None,
    replace: Annotated[bool, Parameter(negative="", help="Take the place of a waiting job of the same key.")] = False,
    timeout: Annotated[float, Parameter(help="Seconds to wait for the receipt.")] = 30.0,
    namespace: Namespace = None,
    address: Address = None,
) -> Exit:
    """Have a function called later, by a queue, and print the job's receipt: its id.

    The function need not be there yet. For example: iii-trio enqueue mail mail::send to=ada@example.org
    """
    check_timeout(timeout)
    payload = make_payload(json, pairs)
    deadline = Deadline(timeout)
    async with connect(engine_address(address), "enqueue", deadline) as worker:
        receipt = None
        with trio.CancelScope(deadline=deadline.at):
            await check_queue(worker, queue)
            action = iii_trio.enqueue(
                queue, delay_seconds=delay, priority=priority, unique_key=unique_key, replace=replace
            )
            receipt = await worker.trigger(function, payload, namespace=namespace, action=action)
        # The request may have arrived, so the user must not simply repeat it.
        if receipt is None:
            sentence = f"no receipt within {timeout:g} s: the job may be kept all the same; see --timeout"
            raise Failure(Exit.TIMED_OUT, sentence)
    say(visible(receipt.id))
    return Exit.DONE
