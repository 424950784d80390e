"""The entry of the queue in iii's YAML: its words, and ours beside them.

    - name: iii-queue                       # or `queue`
      config:
        adapter: { name: builtin, config: { store_method: file_based, file_path: ./data/queue } }
        queue_configs:
          ledger: { type: fifo, message_group_field: account, max_retries: 5 }
      iii-trio:                             # ours, which win over the same said above
        enabled: true
        data: /var/lib/iii-trio             # a directory, `memory`, or `mesh`
        synchronous: full
        queues:
          ledger: { max_lost_deliveries: 5, visibility_timeout_seconds: 60 }

`max_retries: N` are max(1, N) calls in all, as in iii's engine: the same as our `max_attempts`, but for 0.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from ...config.data import MEMORY, directory_of
from ...config.section import OURS, Entry, ModuleEntry, Section, kind_of, shown
from .settings import IN_MESH, QueueConfig, QueueSettings

_ADAPTER: Final = ("store_method", "file_path", "save_interval_ms")
_FILE_PATH: Final = "kv_store_data.db"  # iii's default
_WITHOUT_EFFECT: Final = {
    "poll_interval_ms": "nothing is polled here",
    "max_priority": "`enqueue` gives each job its priority",
    "priority_field": "`enqueue` gives each job its priority",
}
_WIRE: Final = ("max_retries", "concurrency", "type", "message_group_field", "backoff_ms", *_WITHOUT_EFFECT)
_WHOLE_QUEUE: Final = tuple(
    name for name in attrs.fields_dict(QueueConfig) if name not in ("queues", "directory", "in_mesh")
)


def read_queue(entry: Entry) -> ModuleEntry:
    """Read the entry. Raises ConfigError."""
    wire, ours = entry.section("config"), entry.section(OURS)
    wire.only(("adapter", "queue_configs"), f"in `config` of {entry.name}")
    ours.only(("enabled", "data", *_WHOLE_QUEUE, "queues"), f"in `{OURS}` of {entry.name}")
    place = ours.text("data", "a directory, `memory`, or `mesh`") or _place_of_adapter(wire.section("adapter"))
    queues = _queues(wire.section("queue_configs"), ours.section("queues"))
    in_mesh = place == IN_MESH
    directory = None if in_mesh else directory_of(place)
    config = QueueConfig(
        **ours.settings(QueueConfig, _WHOLE_QUEUE), queues=queues, directory=directory, in_mesh=in_mesh
    )
    return ModuleEntry(config if _enabled(ours) else None, None if in_mesh else place)


def _enabled(ours: Section) -> bool:
    enabled = ours.get("enabled", True)
    if not isinstance(enabled, bool):
        ours.fail("enabled", f"`enabled` is {shown(enabled)}; give true or false")
    return enabled


def _place_of_adapter(adapter: Section) -> str | None:
    """Return where iii's adapter would keep jobs. Ours are in the same directory, in a file of their own."""
    adapter.only(("name", "config"), "in `adapter`")
    name = adapter.text("name", "`builtin`")
    if name not in (None, "builtin"):
        adapter.fail(
            "name",
            f"the queue's adapter `{name}` is not part of this engine; make it `builtin`, or leave `adapter` out",
        )
    config = adapter.section("config")
    config.only(_ADAPTER, "in `adapter.config`")
    if config.get("save_interval_ms") is not None:
        config.warn(
            "save_interval_ms",
            "`save_interval_ms` has no effect: each job is saved before it is acknowledged; remove it",
        )
    method = config.get("store_method")
    path = config.text("file_path", "a directory")
    if method not in (None, "in_memory", "file_based"):
        config.fail("store_method", f"`store_method` is {shown(method)}; give `file_based` or `in_memory`")
    if path is not None and method != "file_based":
        config.warn("file_path", "`file_path` has no effect without `store_method: file_based`; set it, too")
    return {None: None, "in_memory": MEMORY, "file_based": path or _FILE_PATH}[method]


def _queues(wire: Section, ours: Section) -> dict[str, QueueSettings]:
    queues = {}
    for name in {**wire.values, **ours.values}:
        home = ours if name in ours else wire
        if not isinstance(name, str) or not name.strip():
            home.fail(name, f"a queue's name is {kind_of(name)}; give a string (in quotes, if it looks otherwise)")
        own = _in_our_words(ours.section(name), name)
        settings = _in_wire_words(wire.section(name), name) | own
        if "group_by" in settings and "group_by" not in own and not settings.get("fifo"):
            del settings["group_by"]
            wire.section(name).warn(
                "message_group_field",
                f"`message_group_field` of queue '{name}' has no effect without `type: fifo`; set the type, or remove it",
            )
        try:
            queues[name] = QueueSettings(**settings)
        except ValueError as error:
            home.fail(name, f"queue '{name}': {error}")
        if queues[name].fifo and queues[name].group_by is None:
            home.fail(
                name,
                f"FIFO queue '{name}' requires 'message_group_field' to be configured; name the member of its jobs' data "
                f"that says their group (`group_by` under `{OURS}`)",
            )
    return queues


def _in_our_words(ours: Section, name: str) -> dict[str, Any]:
    ours.only(attrs.fields_dict(QueueSettings), f"of queue '{name}'")
    return ours.settings(QueueSettings)


def _in_wire_words(wire: Section, name: str) -> dict[str, Any]:
    wire.only(_WIRE, f"of queue '{name}'")
    settings: dict[str, Any] = {}
    for key in wire:
        value = wire.get(key)
        if value is None:
            continue
        match key:
            case "max_retries":
                settings["max_attempts"] = max(1, wire.count(key, 0))
            case "concurrency":
                if value in (0, "0") and value is not False:
                    wire.fail(key, f"Queue '{name}' has 'concurrency' 0; it must be at least 1")
                settings["concurrency"] = wire.count(key, 1)
            case "type":
                if value not in ("standard", "fifo"):
                    wire.fail(key, f"`type` is {shown(value)}; give `standard` or `fifo`")
                settings["fifo"] = value == "fifo"
            case "message_group_field":
                settings["group_by"] = wire.text(key, "the name of a member of its jobs' data")
            case "backoff_ms":
                settings["backoff_seconds"] = wire.milliseconds(key)
            case _:
                wire.warn(key, f"`{key}` of queue '{name}' has no effect: {_WITHOUT_EFFECT[key]}; remove it")
    return settings
