"""`iii-trio trigger`: one call."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from .calling import Deadline, connect
from .exits import Exit
from .hints import call_named
from .options import Address, Function, Json, Namespace, Pairs, check_function, check_timeout, engine_address
from .output import say_result
from .payload import make_payload


async def trigger(
    function: Function,
    /,
    *pairs: Pairs,
    json: Json = None,
    timeout: Annotated[float, Parameter(help="Seconds to wait for the answer.")] = 30.0,
    namespace: Namespace = None,
    address: Address = None,
) -> Exit:
    """Call a function and print its result as JSON.

    For example: iii-trio trigger math::add a=1 b=2
    """
    check_function(function)
    check_timeout(timeout)
    payload = make_payload(json, pairs)
    deadline = Deadline(timeout)
    async with connect(engine_address(address), "trigger", deadline) as worker:
        result = await call_named(worker, function, payload, pairs, namespace=namespace, deadline=deadline)
    say_result(result)
    return Exit.DONE
