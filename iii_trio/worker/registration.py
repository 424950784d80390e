"""The common interface of a worker's functions, trigger types and bindings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias


class Registration(Protocol):
    """Something that a worker registers with the engine, on this link and on every later one."""

    @property
    def id(self) -> str:
        """The id, unique among the worker's registrations of its kind."""

    def message(self) -> bytes:
        """Return the message that registers it."""

    def withdrawal(self) -> bytes:
        """Return the message that takes it back."""

    def renew(self) -> None:
        """Forget the outcome on the last link, because it is about to be registered on a new one."""


Withdraw: TypeAlias = Callable[[Registration], None]
"""Takes a registration back. A second time is harmless."""
