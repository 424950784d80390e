"""Arguments and options that several commands take."""

from __future__ import annotations

import math
import os
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from cyclopts import Parameter

from .exits import UsageError

DEFAULT_ADDRESS = "ws://127.0.0.1:49134"

Function: TypeAlias = Annotated[str, Parameter(help="The function's id, for example files::count_lines.")]
Pairs: TypeAlias = Annotated[
    str,
    Parameter(name="KEY=VALUE", help="Keys of the payload. A value is JSON if it can be read as JSON, else text."),
]
Json: TypeAlias = Annotated[
    str | None, Parameter(name="--json", help="The payload as JSON; KEY=VALUE arguments override its keys.")
]
Namespace: TypeAlias = Annotated[
    str | None, Parameter(name=["--namespace", "-n"], help="The function's namespace; `default` if not said.")
]
Timeout: TypeAlias = Annotated[
    float | None, Parameter(name="--timeout", help="Seconds to wait for the call's answer; for ever if not said.")
]
Address: TypeAlias = Annotated[
    str | None,
    Parameter(name="--address", help=f"Where the engine listens. Else the variable III_URL, else {DEFAULT_ADDRESS}."),
]


def engine_address(given: str | None) -> str:
    """Return the engine's URL, from `given`, else III_URL, else the default. Raises UsageError for a wrong one."""
    for value, source in ((given, "--address"), (os.environ.get("III_URL"), "environment variable III_URL")):
        # An empty variable counts as unset, as in most shell scripts.
        if value:
            return _checked(value, source)
    return DEFAULT_ADDRESS


def check_function(function: str) -> None:
    """Check that a function is named. Raises UsageError for an empty id, as of a shell's variable that is not set."""
    if not function.strip():
        raise UsageError("the function's id is empty; give one, for example files::count_lines")


def check_timeout(seconds: float | None) -> None:
    """Check that a time can be waited. Raises UsageError otherwise."""
    # Written so that NaN is refused too.
    if seconds is not None and not seconds > 0:
        raise UsageError(f"--timeout is {seconds:g}; give a number of seconds above 0")


def check_seconds(name: str, seconds: float | None) -> None:
    """Check that a length of time is one. Raises UsageError, which names the option, otherwise."""
    # Written so that NaN is refused too.
    if seconds is not None and not 0 <= seconds < math.inf:
        raise UsageError(f"{name} is {seconds:g}; give a number, 0 or more")


def check_limit(limit: int | None) -> None:
    """Check that a number of rows makes sense. Raises UsageError otherwise."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit is {limit}; give at least 1")


def check_page(after: int) -> None:
    """Check that the number after which a page begins can be one. Raises UsageError otherwise."""
    if after < 0:
        raise UsageError(f"--after is {after}; give the number that stands below the page before")


def _checked(value: str, source: str) -> str:
    # Socket paths have no host or port to check.
    if value.startswith("unix:"):
        if value == "unix:":
            raise UsageError(f"{source} is {value!r}; give the path of the socket, as in unix:/run/engine.sock")
        return value
    url = value if "://" in value else f"ws://{value}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    # `urlsplit` raises for ports and brackets that it cannot read.
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{source} is {value!r}, which is not an engine's address; write for example {DEFAULT_ADDRESS}"
        )
    return url
