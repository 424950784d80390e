"""The entry of external functions in iii's YAML, with its words and ours beside them."""

from __future__ import annotations

from typing import Any, Final

from ...config.section import OURS, Entry, ModuleEntry
from .settings import ExternalConfig

# - name: iii-http-functions              # or `http-functions`
#   config:
#     security:
#       url_allowlist: ["*.example"]      # empty: all hosts
#       block_private_ips: true
#       require_https: true
#   iii-trio:
#     secrets: ["TIDES_*"]                # the environment variables that `auth` may name
#     response_bytes: 1048576
#     connections: 100

_SECURITY: Final = ("url_allowlist", "block_private_ips", "require_https")
_OURS: Final = ("secrets", "response_bytes", "connections")


def read_external(entry: Entry) -> ModuleEntry:
    """Read the entry. Raises ConfigError."""
    wire, ours = entry.section("config"), entry.section(OURS)
    wire.only(("security",), f"in `config` of {entry.name}")
    security = wire.section("security")
    security.only(_SECURITY, "in `security`")
    ours.only(_OURS, f"in `{OURS}` of {entry.name}")
    settings: dict[str, Any] = security.settings(ExternalConfig, _SECURITY)
    settings |= ours.settings(ExternalConfig, _OURS)
    return ModuleEntry(ExternalConfig(**settings))
