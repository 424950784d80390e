"""Which iii-trio this is."""

from __future__ import annotations

from ..version import installed_version


def version() -> str:
    """Return the installed version; `unknown` where the source runs without being installed."""
    return installed_version() or "unknown"
