"""What a worker says of itself."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from typing import Any

from ..version import installed_version
from ..wire import FEATURE, LARGE_MESSAGES


def introduction(
    name: str, namespace: str | None, description: str | None, features: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the payload of `engine::workers::register`."""
    said: dict[str, Any] = {
        "runtime": "python",
        "version": installed_version() or "unknown",
        "name": name,
        "os": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "pid": os.getpid(),
        "isolation": os.environ.get("III_ISOLATION"),
        "namespace": namespace,
        "telemetry": {"language": "python", "framework": "iii-trio"},
        "features": [FEATURE, LARGE_MESSAGES, *features],
    }
    if description is not None:
        said["description"] = description
    return said
