"""Settings of the page."""

from __future__ import annotations

import attrs
from attrs import validators

from ...records import settings


@settings
class PageConfig:
    """The page for browsers. `Listener.page` says where it is served."""

    every_seconds: float = attrs.field(default=1.0, validator=[validators.instance_of(int | float), validators.ge(0.1)])
    """The pause between two looks at the engine, while somebody has the page open."""
    rows: int = attrs.field(default=500, validator=[validators.instance_of(int), validators.ge(1)])
    """The largest number of rows of a table. The page says how many there are in all."""
    viewers: int = attrs.field(default=100, validator=[validators.instance_of(int), validators.ge(1)])
    """The number of browsers that may watch at one time. One more is answered with 503."""
