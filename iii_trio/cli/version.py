"""Which iii-trio this is."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed version; `unknown` where the source runs without being installed."""
    try:
        return metadata.version("iii-trio")
    except metadata.PackageNotFoundError:
        return "unknown"
