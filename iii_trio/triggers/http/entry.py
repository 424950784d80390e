"""The entry of the HTTP module in iii's YAML, with its words and ours beside them."""

from __future__ import annotations

from typing import Any, Final

from ...config import Tls
from ...config.section import OURS, Entry, ModuleEntry, Section, is_whole
from .cors import Cors
from .settings import HttpConfig, HttpLimits, Middleware

# - name: iii-http                        # or `http`
#   config:
#     port: 3111
#     host: 127.0.0.1
#     default_timeout: 30000              # milliseconds to the head of the response
#     concurrency_request_limit: 1024
#     cors: { allowed_origins: ["https://app.example"], allowed_methods: [GET, POST] }
#     middleware: [{ function_id: "gate::auth", priority: 0 }]
#   iii-trio:
#     tls: { certificate: /etc/iii-trio/cert.pem }
#     unix: /run/iii-trio/http.sock       # in place of host and port
#     mode: "0660"                        # of that socket; a proxy of another user needs it
#     limits: { json_bytes: 1048576 }

_WIRE: Final = ("port", "host", "default_timeout", "concurrency_request_limit", "cors", "middleware")
_OURS: Final = ("tls", "unix", "mode", "limits")


def read_http(entry: Entry) -> ModuleEntry:
    """Read the entry. Raises ConfigError."""
    wire, ours = entry.section("config"), entry.section(OURS)
    wire.only(_WIRE, f"in `config` of {entry.name}")
    ours.only(_OURS, f"in `{OURS}` of {entry.name}")
    settings: dict[str, Any] = wire.settings(HttpConfig, ("port", "host", "default_timeout"))
    if "concurrency_request_limit" in wire:
        settings["concurrency_request_limit"] = max(1, wire.count("concurrency_request_limit", 0))
    if "cors" in wire:
        settings["cors"] = wire.section("cors").structure(Cors, "in `cors`")
    if "middleware" in wire:
        settings["middleware"] = _middleware(wire)
    settings["unix"] = ours.socket_path("unix")
    mode = ours.file_mode("mode")
    if mode is not None:
        settings["mode"] = mode
    if "tls" in ours:
        settings["tls"] = ours.section("tls").structure(Tls)
    if "limits" in ours:
        settings["limits"] = ours.section("limits").structure(HttpLimits)
    return ModuleEntry(HttpConfig(**settings))


def _middleware(wire: Section) -> tuple[Middleware, ...]:
    given = wire.get("middleware") or []
    if not isinstance(given, list):
        wire.fail("middleware", "`middleware` is not a list; give a list of `{ function_id: …, priority: 0 }`")
    found = []
    for one in given:
        if not isinstance(one, dict) or not isinstance(one.get("function_id"), str):
            wire.fail(
                "middleware", "an item of `middleware` has no `function_id`; give `{ function_id: …, priority: 0 }`"
            )
        priority = one.get("priority", 0)
        if not is_whole(priority):
            wire.fail("middleware", f"the priority of `{one['function_id']}` is not a whole number")
        if one.get("phase", "preHandler") != "preHandler":
            wire.warn("middleware", f"`{one['function_id']}` is for another phase than preHandler, and has no effect")
            continue
        found.append(Middleware(one["function_id"], priority))
    return tuple(found)
