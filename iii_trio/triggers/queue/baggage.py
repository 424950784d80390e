"""The W3C `baggage` header of a job: what is put in for its function, and what does not go on to it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import quote

_FUNCTION: Final = "iii.function.id"
_NOT_PASSED_ON: Final = frozenset({_FUNCTION, "iii.tag.kind", "iii.tag.display_name", "iii.tag.hidden"})


def for_job(baggage: str | None, function_id: str) -> str:
    """The baggage of whoever enqueued, as its job carries it: the function is the job's, the tags of the call are gone."""
    if not baggage:
        return _member(function_id)
    members = [member.strip() for member in baggage.split(",") if member.strip()]
    kept = [member for member in members if member.partition("=")[0].strip() not in _NOT_PASSED_ON]
    return ",".join([*kept, _member(function_id)])


@lru_cache
def _member(function_id: str) -> str:
    return f"{_FUNCTION}={quote(function_id, safe=':')}"
