"""The modules that every engine has. A new one is a folder beside this file, and a line here."""

from __future__ import annotations

from typing import Final

from .cluster.declaration import CLUSTER
from .external.declaration import EXTERNAL
from .http.declaration import HTTP
from .module import Module
from .observability.declaration import OBSERVABILITY
from .page.declaration import PAGE
from .queue.declaration import QUEUE

MODULES: Final[tuple[Module, ...]] = (QUEUE, HTTP, EXTERNAL, CLUSTER, OBSERVABILITY, PAGE)
