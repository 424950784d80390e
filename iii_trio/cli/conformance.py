"""`iii-trio conformance`: whether an engine keeps its promises."""

from __future__ import annotations

import json as to_text
from typing import Annotated

import trio
from cyclopts import Parameter

from .exits import Exit, Failure
from .options import engine_address


async def conformance(
    url: Annotated[str | None, Parameter(help="The engine's address, for example ws://127.0.0.1:49134.")] = None,
    /,
    *,
    only: Annotated[str, Parameter(help="Only this chapter or clause, for example C2 or C2.1.")] = "",
    json: Annotated[bool, Parameter(help="Print the findings as JSON.", negative="")] = False,
) -> Exit:
    """Check at an engine, ours or another, every promise about channels that can be seen from outside.

    Prints them clause by clause: kept, broken (with what was seen), or not observable (with why). Takes some seconds.
    """
    from ..conformance import run_conformance
    from ..conformance.bench import Broken, NotAnEngine, NotObservable

    address = engine_address(url)
    try:
        report = await run_conformance(address, only=only)
    except (OSError, NotAnEngine, Broken, NotObservable, trio.TooSlowError) as error:
        raise Failure(Exit.UNREACHABLE, f"no engine at {address}: {error or 'it says nothing'}") from error
    print(to_text.dumps(report.to_json(), indent=2) if json else "\n".join(report.lines()))
    return Exit.FAILED if report.broken else Exit.DONE
