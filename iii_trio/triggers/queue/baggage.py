"""The W3C `baggage` header of a job."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import quote

_FUNCTION: Final = "iii.function.id"
_NOT_PASSED_ON: Final = frozenset({_FUNCTION, "iii.tag.kind", "iii.tag.display_name", "iii.tag.hidden"})


def for_job(baggage: str | None, function_id: str) -> str:
    """Return the sender's baggage for its job: with the function of the job, and without the tags of the sender's call."""
    if not baggage:
        return _member(function_id)
    members = [member.strip() for member in baggage.split(",") if member.strip()]
    kept = [member for member in members if member.partition("=")[0].strip() not in _NOT_PASSED_ON]
    return ",".join([*kept, _member(function_id)])


@lru_cache
def _member(function_id: str) -> str:
    return f"{_FUNCTION}={quote(function_id, safe=':')}"
