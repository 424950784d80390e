"""An answer of the engine itself that is not there yet."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CallError
from .effects import Effects


class Later:
    """What a function of the engine returns when its answer takes more than one step.

    Whoever made it keeps it, and settles it once. Settling it again, or after the caller has gone, does nothing.
    """

    def __init__(self, *, also_as_it_ends: bool = False) -> None:
        self.also_as_it_ends = also_as_it_ends
        """Whether the answer may be what ends its caller: it is sent then all the same."""
        self._answer: Callable[[object], Effects] | None = None
        self._refuse: Callable[[CallError], Effects] | None = None

    def promise(self, answer: Callable[[object], Effects], refuse: Callable[[CallError], Effects]) -> None:
        """Say how the caller is told."""
        self._answer, self._refuse = answer, refuse

    def settle(self, result: object) -> Effects:
        """Here is the result."""
        answer, self._answer, self._refuse = self._answer, None, None
        return answer(result) if answer is not None else []

    def fail(self, error: CallError) -> Effects:
        """There will be no result."""
        refuse, self._answer, self._refuse = self._refuse, None, None
        return refuse(error) if refuse is not None else []
