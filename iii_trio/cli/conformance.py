"""`iii-trio conformance`: whether an engine keeps its promises."""

from __future__ import annotations

from typing import Annotated

import trio
from cyclopts import Parameter

from . import output
from .exits import Exit, Failure, UsageError
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
    from ..conformance import CHECKS, run_conformance
    from ..conformance.bench import Broken, NotAnEngine, NotObservable
    from ..conformance.run import UNSEEN, clause_of, is_of

    address = engine_address(url)
    clauses = {clause_of(check) for check in CHECKS} | UNSEEN.keys()
    # A misspelt clause would otherwise report a success of no checks.
    if only and not any(is_of(clause, only) for clause in clauses):
        raise UsageError(f"--only is {only!r}, which no clause is named; give for example C2 or C2.1")
    try:
        report = await run_conformance(address, only=only)
    # A peer that fails before any check is not an engine to judge.
    except (OSError, NotAnEngine, Broken, NotObservable, trio.TooSlowError) as error:
        raise Failure(Exit.UNREACHABLE, f"no engine at {address}: {error or 'it says nothing'}") from error
    output.say(output.to_json(report.to_json(), 2) if json else "\n".join(map(output.visible, report.lines())))
    return Exit.FAILED if report.broken else Exit.DONE
