"""The version of the package that runs."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache  # reading it takes a millisecond
def installed_version() -> str | None:
    """Return the installed version, or None where the source runs without being installed."""
    try:
        return metadata.version("iii-trio")
    except metadata.PackageNotFoundError:
        return None
