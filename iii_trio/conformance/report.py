"""The findings, clause by clause, as values, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import groupby

from ..records import frozen
from ..wire import JsonValue


class Verdict(StrEnum):
    """The verdict on a clause."""

    KEPT = "kept"
    BROKEN = "broken"
    NOT_OBSERVABLE = "not observable"


@frozen
class Finding:
    """The finding of one check."""

    clause: str
    title: str
    verdict: Verdict
    saw: str = ""
    """What was seen, if the clause is broken; why nothing could be, if it is not observable."""


@frozen
class Report:
    """The findings of all checks."""

    url: str
    engine: str
    findings: tuple[Finding, ...]

    def of(self, clause: str) -> Verdict:
        """Return the verdict on a clause: broken if any check found that, kept if any check could observe it."""
        verdicts = {finding.verdict for finding in self.findings if finding.clause == clause}
        # One broken check outweighs all others of its clause, so it is looked for first.
        for verdict in (Verdict.BROKEN, Verdict.KEPT):
            if verdict in verdicts:
                return verdict
        return Verdict.NOT_OBSERVABLE

    @property
    def clauses(self) -> list[str]:
        """Return all clauses that were checked, in order."""
        return sorted({finding.clause for finding in self.findings}, key=_place)

    @property
    def broken(self) -> list[Finding]:
        """Return the findings of broken clauses."""
        return [finding for finding in self.findings if finding.verdict is Verdict.BROKEN]

    def lines(self) -> Iterator[str]:
        """Return the lines of the table and its summary."""
        yield f"{self.url} ({self.engine})"
        yield ""
        ordered = sorted(self.findings, key=lambda finding: _place(finding.clause))
        for clause, group in groupby(ordered, key=lambda finding: finding.clause):
            verdict = self.of(clause)
            told = [finding for finding in group if finding.verdict is verdict]
            # The reasons of unobservable checks are mostly the same, so one of them is enough.
            if verdict is not Verdict.BROKEN:
                told = told[:1] if verdict is Verdict.NOT_OBSERVABLE else told
            for n, finding in enumerate(told):
                head = f"{clause:<6} {verdict:<15}" if n == 0 else " " * 22
                yield f"{head} {': '.join(filter(None, (finding.title, finding.saw)))}"
        counts = {verdict: sum(self.of(clause) is verdict for clause in self.clauses) for verdict in Verdict}
        yield ""
        yield "clauses: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())

    def to_json(self) -> dict[str, JsonValue]:
        """Return the report as JSON."""
        return {
            "url": self.url,
            "engine": self.engine,
            "clauses": {clause: str(self.of(clause)) for clause in self.clauses},
            "findings": [
                {"clause": f.clause, "title": f.title, "verdict": str(f.verdict), "saw": f.saw} for f in self.findings
            ],
        }


def _place(clause: str) -> tuple[int, int]:
    chapter, _, number = clause.removeprefix("C").partition(".")
    return int(chapter), int(number)
