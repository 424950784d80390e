"""The modules that every engine has. A new one is a folder beside this file, and a line here."""

from __future__ import annotations

from typing import Final

from .http.declaration import HTTP
from .module import Module
from .queue.declaration import QUEUE

MODULES: Final[tuple[Module, ...]] = (QUEUE, HTTP)
