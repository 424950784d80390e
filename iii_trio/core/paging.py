"""Answer a list in pages, and refuse one that is too large before it is built whole.

A list is sorted by a key. A page is asked for by `limit` and by `after`, which is the key behind which it begins. Workers
may come and go between two pages, and no row that stays is left out or comes twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

from msgspec import Raw

from ..compat.sdk_limits import SMALL_MESSAGE
from ..errors import CallError
from ..structure import FunctionInput
from ..wire import ErrorCode, bad_input, to_json
from .request import Request

T = TypeVar("T")
Key: TypeAlias = tuple[str | int | float, ...]

_MAX_LIST_BYTES: Final = 4 * 1024 * 1024
"""The largest list that is answered as a whole. Building one keeps all other workers waiting."""
_MAX_PAGE_BYTES: Final = 512 * 1024
"""The size at which a page ends. A page has one row in any case."""
_ENVELOPE: Final = 4096


class Paged(FunctionInput, frozen=True):
    """The parameters of a list that can be asked for in pages. They are an extension."""

    limit: int | None = None
    """The largest number of rows. None: all."""
    after: list[str | int | float] | None = None
    """The `after` of the page before."""


def reply_with_list(
    request: Request,
    name: str,
    items: Iterable[T],
    key: Callable[[T], Key],
    row: Callable[[T], object],
    page: Paged,
) -> None:
    """Answer with the rows of the items, sorted by `key`. A page also has `after`, which is null at the end.

    Raises CallError for a page that cannot be meant, and for a whole list that is too large for the caller.
    """
    function_id = request.message.function_id
    if page.limit is not None and page.limit < 1:
        raise bad_input(function_id, f"limit: must be at least 1, got {page.limit}")
    ordered: Sequence[T] = sorted(items, key=key)
    if page.after is not None:
        ordered = _behind(function_id, ordered, key, tuple(page.after))
    is_paged = page.limit is not None or page.after is not None
    largest = _MAX_LIST_BYTES if request.session.takes_large_messages else SMALL_MESSAGE
    max_bytes = _MAX_PAGE_BYTES if is_paged else largest - _ENVELOPE
    rows: list[Raw] = []
    size = 0
    for item in ordered[: page.limit]:
        text = to_json(row(item))
        size += len(text) + 1
        if size > max_bytes and (rows or not is_paged):
            break
        rows.append(Raw(text))
    else:
        after = key(ordered[len(rows) - 1]) if len(rows) < len(ordered) else None
        request.reply({name: rows, "after": after} if is_paged else {name: rows})
        return
    if not is_paged:
        raise CallError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The list has {len(ordered)} rows; {request.session.label} takes at most {largest} bytes at once. Ask for it "
            "in pages: by `limit`, and by `after` as the page before says it.",
        )
    request.reply({name: rows, "after": key(ordered[len(rows) - 1])})


def _behind(function_id: str, ordered: Sequence[T], key: Callable[[T], Key], after: Key) -> Sequence[T]:
    try:
        return [item for item in ordered if key(item) > after]
    # Texts and numbers cannot be compared.
    except TypeError:
        raise bad_input(function_id, "after: it is not the `after` of a page of this list") from None
