"""The directory, or the memory, in which a module keeps its data."""

from __future__ import annotations

import os
from typing import Final

MEMORY: Final = "memory"
"""The word that stands in the place of a directory. The data then lives as long as the engine."""


def directory_of(place: str | None) -> str | None:
    """Return the directory that a command line or a file names, and None for `memory` or for no place at all."""
    return None if place is None or place == MEMORY else os.path.expanduser(place)
