"""The W3C `baggage` header of a job: what is put in for its function, and what does not go on to it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_FUNCTION: Final = "iii.function.id"
_NOT_PASSED_ON: Final = frozenset({_FUNCTION, "iii.tag.kind", "iii.tag.display_name", "iii.tag.hidden"})


def for_job(baggage: str | None, function_id: str) -> str:
    """The baggage of whoever enqueued, as its job carries it: the function is the job's, the tags of the call are gone."""
    members = [member.strip() for member in (baggage or "").split(",") if member.strip()]
    kept = [member for member in members if member.partition("=")[0].strip() not in _NOT_PASSED_ON]
    return ",".join([*kept, f"{_FUNCTION}={quote(function_id, safe=':')}"])
