"""What a worker says of itself."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..wire import FEATURE, LARGE_MESSAGES


def introduction(name: str, namespace: str | None, description: str | None) -> dict[str, Any]:
    """The payload of `engine::workers::register`."""
    said: dict[str, Any] = {
        "runtime": "python",
        "version": _version(),
        "name": name,
        "os": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "pid": os.getpid(),
        "isolation": os.environ.get("III_ISOLATION"),
        "namespace": namespace,
        "telemetry": {"language": "python", "framework": "iii-trio"},
        "features": [FEATURE, LARGE_MESSAGES],
    }
    if description is not None:
        said["description"] = description
    return said


@cache  # reading it takes a millisecond, for each worker and each link
def _version() -> str:
    try:
        return version("iii-trio")
    except PackageNotFoundError:
        return "unknown"
