"""Running all checks against one engine, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from . import allocation, attaching, ending, foreign, transfer
from .bench import Bench, Broken, Check, NotObservable, open_bench
from .peer import PeerError
from .report import Finding, Report, Verdict

CHECKS: Final[tuple[Check, ...]] = (
    *allocation.CHECKS,
    *attaching.CHECKS,
    *transfer.CHECKS,
    *ending.CHECKS,
    *foreign.CHECKS,
)
MOST_SECONDS: Final = 15.0
"""What one check may take."""

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
    url: str, *, checks: tuple[Check, ...] = CHECKS, progress: Callable[[Finding], None] | None = None
) -> Report:
    """Check every clause that can be seen from outside at the engine at `url`; takes about a minute at most.

    Needs no more of the engine than the wire that all SDKs use; what is ours only is `not observable` where the engine
    does not announce it. `progress` is called with each finding. Raises OSError or PeerError if no engine is there.

    If cancelled: all connections are closed.
    """
    engine = await _introduce(url)
    findings: list[Finding] = []
    for check in checks:
        findings.append(await _run(check, url))
        if progress is not None:
            progress(findings[-1])
    findings += [Finding(clause, "", Verdict.NOT_OBSERVABLE, why) for clause, why in UNSEEN.items()]
    return Report(url, engine, tuple(findings))


async def _introduce(url: str) -> str:
    """Who is there, as far as it says."""
    engine = ""

    async def ask(bench: Bench) -> None:
        nonlocal engine
        session = await bench.session()
        features = ", ".join(session.hello.get("features") or ()) or "none"
        engine = f"features: {features}"

    async with open_bench(url) as bench:
        with trio.fail_after(10):
            await ask(bench)
    return engine


async def _run(check: Check, url: str) -> Finding:
    clause, title = _named(check)
    try:
        with trio.fail_after(MOST_SECONDS):
            async with open_bench(url) as bench:
                await check(bench)
    except BaseExceptionGroup as group:
        return _judge(clause, title, _first(group))
    except Exception as error:
        return _judge(clause, title, error)
    return Finding(clause, title, Verdict.KEPT)


def _judge(clause: str, title: str, error: BaseException) -> Finding:
    match error:
        case NotObservable():
            return Finding(clause, title, Verdict.NOT_OBSERVABLE, str(error))
        case Broken() | PeerError():
            return Finding(clause, title, Verdict.BROKEN, str(error))
        case trio.TooSlowError():
            return Finding(clause, title, Verdict.BROKEN, f"the check was not over after {MOST_SECONDS:g} s")
        case Exception():
            return Finding(clause, title, Verdict.BROKEN, f"{type(error).__name__}: {error}")
        case _:
            raise error


def _first(group: BaseException) -> BaseException:
    """What was the matter, of what several tasks of a check raised."""
    if not isinstance(group, BaseExceptionGroup):
        return group
    found = [_first(inner) for inner in group.exceptions]
    for kind in (BaseException,) if any(not isinstance(one, Exception) for one in found) else (Broken, NotObservable):
        for one in found:
            if isinstance(one, kind) and (kind is not BaseException or not isinstance(one, Exception)):
                return one
    return found[0]


def _named(check: Check) -> tuple[str, str]:
    """`C1_2_a_key_opens` is of clause C1.2, and called `a key opens`."""
    chapter, number, *words = check.__name__.split("_")
    return f"{chapter}.{number}", " ".join(words)
