"""Running all checks against one engine, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from ..errors import FrameError
from . import allocation, attaching, ending, foreign, transfer
from .bench import Broken, Check, NotObservable, open_bench
from .peer import NotAnEngine
from .report import Finding, Report, Verdict

CHECKS: Final[tuple[Check, ...]] = (
    *allocation.CHECKS,
    *attaching.CHECKS,
    *transfer.CHECKS,
    *ending.CHECKS,
    *foreign.CHECKS,
)
MAX_SECONDS: Final = 15.0
"""What one check may take."""
_HELLO_SECONDS: Final = 10.0

UNSEEN: Final = {
    "C1.5": "it would take as many channels as the engine allows",
    "C4.6": "it depends on how the engine is configured, which nobody tells",
    "C5.1": "it is for a worker's library to keep",
    "C5.2": "it is for a worker's library to keep",
    "C5.3": "it is for a worker's library to keep",
    "C5.4": "it is for a worker's library to keep",
    "C6.1": "it takes the SDKs themselves",
    "C7.3": "traces go elsewhere",
}
"""Clauses that cannot be seen from outside, and why."""


async def run_conformance(
    url: str,
    *,
    checks: Sequence[Check] = CHECKS,
    only: str = "",
    max_seconds: float = MAX_SECONDS,
    progress: Callable[[Finding], None] | None = None,
) -> Report:
    """Check every clause that can be seen from outside at the engine at `url`; with `only`, those that begin so.

    Uses only the wire that all SDKs use. A clause about our extensions is `not observable` where the engine does not
    announce them. A check that takes more than `max_seconds`, or crashes, is `broken`, and the run goes on.
    `progress` is called with each finding. Raises OSError or NotAnEngine if no engine is there.

    If cancelled: all connections are closed.
    """
    engine = await _introduce(url)
    findings: list[Finding] = []
    for check in checks:
        if is_of(clause_of(check), only):
            findings.append(await run_check(check, url, max_seconds=max_seconds))
            if progress is not None:
                progress(findings[-1])
    # A reader of the report should see that these clauses were not forgotten.
    for clause, why in UNSEEN.items():
        if is_of(clause, only):
            findings.append(Finding(clause, "", Verdict.NOT_OBSERVABLE, why))
    return Report(url, engine, tuple(findings))


async def run_check(check: Check, url: str, *, max_seconds: float = MAX_SECONDS) -> Finding:
    """Run one check, at the engine at `url`, and leave nothing behind there."""
    clause, title = clause_of(check), check.__name__.split("_", 2)[2].replace("_", " ")
    try:
        with trio.fail_after(max_seconds):
            async with open_bench(url) as bench:
                await check(bench)
    # A clause that cannot be seen is not a fault of the engine.
    except NotObservable as error:
        return Finding(clause, title, Verdict.NOT_OBSERVABLE, str(error))
    except (Broken, NotAnEngine, FrameError) as error:
        return Finding(clause, title, Verdict.BROKEN, str(error))
    # A check that hangs waits for something the engine should have done.
    except trio.TooSlowError:
        return Finding(clause, title, Verdict.BROKEN, f"the check was not over after {max_seconds:g} s")
    except Exception as error:  # the engine did what the check was not written for
        return Finding(clause, title, Verdict.BROKEN, f"{type(error).__name__}: {error}")
    return Finding(clause, title, Verdict.KEPT)


def clause_of(check: Check) -> str:
    """Return the clause of a check, for example C1.2 for `C1_2_a_key_opens`."""
    return ".".join(check.__name__.split("_")[:2])


def is_of(clause: str, only: str) -> bool:
    """Return whether a clause is the one, or in the chapter, that `only` names. Every clause is, where it is empty."""
    return clause == only or clause.startswith(only.removesuffix(".") + ".") or not only


async def _introduce(url: str) -> str:
    """Return the name of the engine, as far as it tells."""
    with trio.fail_after(_HELLO_SECONDS):
        async with open_bench(url) as bench:
            session = await bench.session()
            return f"features: {', '.join(session.hello.get('features') or ()) or 'none'}"
    raise AssertionError
