"""The methods of HTTP that a route can be for."""

from __future__ import annotations

from typing import Any, Final

from ..errors import MisuseError

METHODS: Final = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


def check_method(method: str) -> str:
    """Return the method in capitals. Raises MisuseError for one that no engine serves."""
    found = method.upper()
    if found not in METHODS:
        raise MisuseError(f"{method!r} is not a method that a route can be for: write one of {', '.join(METHODS)}")
    return found


def check_binding(trigger_type: str, config: Any) -> None:
    """Raise MisuseError for a route whose method no engine serves: engines accept it, and never call its function."""
    if trigger_type == "http" and isinstance(config, dict) and isinstance(config.get("http_method"), str):
        check_method(config["http_method"])
