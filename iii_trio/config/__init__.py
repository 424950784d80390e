"""Settings of an engine, and the reading of iii's YAML configuration.

    settings.py   frozen classes with a default for every field; nothing is read here
    rbac.py       the access rules of a guarded listener, and `rbac_entry.py` their reading
    document.py   a YAML text becomes plain dicts, and the line of every key
    section.py    some keys of that document become settings; errors name file, line and key
    default.py    the settings of an engine without such a file
    file.py       a whole configuration file becomes an `EngineConfig`
    data.py       the words for a directory, or for memory

Importing this package loads the settings only. It loads no YAML reader.
"""

from .rbac import FunctionFilter, RbacConfig
from .settings import (
    Auth,
    ChannelDefaults,
    EngineConfig,
    Limits,
    Listener,
    ListenerLimits,
    RecorderSettings,
    Timeouts,
    Tls,
)

__all__ = [
    "Auth", "ChannelDefaults", "EngineConfig", "FunctionFilter", "Limits", "Listener", "ListenerLimits", "RbacConfig",
    "RecorderSettings", "Timeouts", "Tls",
]  # fmt: skip
