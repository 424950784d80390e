"""The settings of an engine without a configuration file, which need no reader of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import attrs

from ..errors import ConfigError
from .settings import EngineConfig, Timeouts

GRACE_VARIABLE: Final = "III_NAMESPACE_GRACE_MS"


def default_config(environ: Mapping[str, str] | None = None) -> EngineConfig:
    """Return the settings of an engine without a file. It has one listener on 127.0.0.1:49134. Raises ConfigError."""
    timeouts = grace_from_environment(Timeouts(), os.environ if environ is None else environ)
    return EngineConfig(timeouts=timeouts)


def grace_from_environment(timeouts: Timeouts, environ: Mapping[str, str]) -> Timeouts:
    """Return the timeouts with what the environment says of them. Raises ConfigError."""
    value = environ.get(GRACE_VARIABLE, "").strip()
    # A variable that is set to nothing is often meant to be unset, as in compose files.
    if not value:
        return timeouts
    if not (value.isascii() and value.isdigit() and len(value) < 13):  # up to MAX_SECONDS
        raise ConfigError(f"environment variable {GRACE_VARIABLE} is {value!r}; set it to a number of milliseconds")
    return attrs.evolve(timeouts, registration_grace_seconds=int(value) / 1000)
