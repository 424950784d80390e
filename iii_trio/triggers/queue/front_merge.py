"""Calls that all shards of the queues are asked, and how their answers become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, final

from ...errors import CallError
from ...lowlevel import InlineCall
from ...wire import ErrorCode, from_json, to_json
from .front_calls import PassedCall, ShardCalls

Answer: TypeAlias = bytes | CallError
Merge: TypeAlias = Callable[[str, Sequence[Answer | None]], Answer | None]
"""Makes one answer of those of the shards, as they come. None among them: not yet. It returns None to wait for more."""
_OF_A_JOB: Final = "job_"
_NOT_FOUND: Final = "job_not_found"
_FEWEST_SECONDS: Final = -1.0


@final
class AskedOfAll:
    """A call that was passed on to all shards. What `merge` makes of their answers ends it, and the calls that are left."""

    def __init__(
        self, function_id: str, call: InlineCall, payload: bytes, shards: Sequence[ShardCalls], merge: Merge
    ) -> None:
        self._function_id = function_id
        self._call = call
        self._merge = merge
        self._answers: list[Answer | None] = [None] * len(shards)
        self._is_over = False
        self._passed = [(shard, self._part(at, payload)) for at, shard in enumerate(shards)]
        call.when_cancelled(self._cancelled)
        for shard, passed in self._passed:
            # An answer may come at once, and may be enough.
            if not self._is_over:
                shard.take(passed)

    def _part(self, at: int, payload: bytes) -> PassedCall:
        def settle(answer: Answer) -> None:
            self._answers[at] = answer
            if not self._is_over:
                self._look()

        return PassedCall(self._function_id, self._call, payload, settle, settle)

    def _look(self) -> None:
        answer = self._merge(self._function_id, self._answers)
        if answer is None:
            return
        self._end("another shard of the queues has answered")
        if isinstance(answer, CallError):
            self._call.fail(answer)
        else:
            self._call.answer_raw(answer)

    def _cancelled(self, reason: str) -> None:
        if not self._is_over:
            self._end(reason)
            self._call.fail(CallError(ErrorCode.INVOCATION_CANCELLED, "the call was cancelled"))

    def _end(self, reason: str) -> None:
        self._is_over = True
        for shard, passed in self._passed:
            shard.give_up(passed, reason)


def the_one_found(function_id: str, answers: Sequence[Answer | None]) -> Answer | None:
    """Return the answer of the shard that has a job. Where none has it, return why it was not found."""
    trouble: Answer | None = None
    for answer in answers:
        if answer is None or (isinstance(answer, CallError) and answer.code == _NOT_FOUND):
            continue
        # A refusal of the job itself comes from the shard that has it. Other errors say that a shard could not be asked.
        if not isinstance(answer, CallError) or answer.code.startswith(_OF_A_JOB):
            return answer
        trouble = answer
    return None if None in answers else trouble or answers[0]


def merged(function_id: str, answers: Sequence[Answer | None]) -> Answer | None:
    """Return the lists of all shards as one. An error of one is an error of all, because a part would look whole."""
    lists: list[Any] = []
    for answer in answers:
        if isinstance(answer, CallError):
            return answer
        if answer is not None:
            lists.append(from_json(answer))
    return None if len(lists) < len(answers) else to_json(MERGES[function_id](lists))


def _merged_queues(lists: Sequence[Any]) -> Any:
    rows = sorted((row for one in lists for row in one["queues"]), key=lambda row: (row["kind"], row["name"]))
    commits = [one["commits"] for one in lists]
    slowest = max(
        commits, key=lambda each: _FEWEST_SECONDS if each["median_seconds"] is None else each["median_seconds"]
    )
    longest = [each["max_seconds"] for each in commits if each["max_seconds"] is not None]
    return {
        "queues": rows,
        "storage": lists[0]["storage"],
        "commits": {
            "count": sum(each["count"] for each in commits),
            "median_seconds": slowest["median_seconds"],
            "max_seconds": max(longest, default=None),
        },
    }


def _merged_rows(name: str) -> Callable[[Sequence[Any]], Any]:
    def merge(lists: Sequence[Any]) -> Any:
        # Queues come first, as in one engine.
        return sorted(
            (row for one in lists for row in one), key=lambda row: (row["broker_type"] == "builtin", row[name])
        )

    return merge


MERGES: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "engine::queue::list": _merged_queues,
    "engine::queue::list_topics": _merged_rows("name"),
    "engine::queue::dlq_topics": _merged_rows("topic"),
}
"""How the answers of all shards become one, by function."""
