"""The sources of chance that a simulation replaces."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from . import ids


@attrs.frozen
class Environment:
    """What a worker takes from outside of Trio. The defaults are right for every real program."""

    new_id: Callable[[], str] = ids.new_id
    """Makes ids (UUID v4 texts) that cannot be guessed."""
    rng: random.Random = attrs.field(factory=random.Random)
    """Draws the jitter of pauses."""
