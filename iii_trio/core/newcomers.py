"""Workers that ask for a name whose holder may be about to leave: they wait a moment for it to do so.

A worker that leaves and one of its name that comes at once may be heard in the wrong order: what the first had still to say,
its Close last, may not have been read yet. Refusing the second would be for good, as SDKs do not try again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import attrs

from ..errors import CallError
from .effects import Effects
from .later import Later
from .registry import Asked, Builtin
from .session import Session

if TYPE_CHECKING:
    from .hub import Hub

WAIT_SECONDS: Final = 2.0
"""How long the holder has to leave. Whoever has nothing waiting to be read is not waited for at all."""


@attrs.frozen
class _Newcomer:
    asked: Asked
    holder: Session
    until: float
    answer: Later


@final
class Newcomers:
    """Who waits for a name. `register` is what is asked again once the holder has gone, or the moment is over."""

    def __init__(self, hub: Hub, register: Builtin) -> None:
        self._hub = hub
        self._register = register
        self._waiting: list[_Newcomer] = []

    def wait(self, asked: Asked, holder: Session) -> Later | None:
        """The answer to this register call, later; None if there is no use in waiting."""
        if asked.last_word or not self._hub.may_be_leaving(holder):
            return None
        newcomer = _Newcomer(asked, holder, asked.now + WAIT_SECONDS, Later(also_as_it_ends=True))
        self._waiting.append(newcomer)
        return newcomer.answer

    def gone(self, session: Session, now: float) -> Effects:
        """A session is gone: who waited for its name has it, the first one first."""
        return self._ask_again([each for each in self._waiting if each.holder is session], now)

    def expire(self, now: float) -> Effects:
        """Whose holder has not left by now is refused."""
        return self._ask_again([each for each in self._waiting if each.until <= now], now)

    def next_due(self) -> float | None:
        """When `expire` has something to do; None if never."""
        return self._waiting[0].until if self._waiting else None

    def _ask_again(self, newcomers: list[_Newcomer], now: float) -> Effects:
        effects: Effects = []
        for newcomer in newcomers:
            self._waiting.remove(newcomer)
        for newcomer in newcomers:
            if newcomer.asked.session.state.is_final:
                continue
            asked = attrs.evolve(newcomer.asked, now=now, last_word=now >= newcomer.until)
            with self._hub.step() as led_to:
                try:
                    result = self._register(self._hub, asked)
                except CallError as error:
                    led_to += newcomer.answer.fail(error)
                else:
                    if isinstance(result, Later):  # another one has the name now, and may be leaving, too
                        result.promise(newcomer.answer.settle, newcomer.answer.fail)
                    else:
                        led_to += newcomer.answer.settle(result)
            effects += led_to
        return effects
