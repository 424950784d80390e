"""The entry of the queue in iii's YAML: its words, and ours beside them.

    - name: iii-queue                       # or `queue`
      config:
        adapter: { name: builtin, config: { store_method: file_based, file_path: ./data/queue } }
        queue_configs:
          ledger: { type: fifo, message_group_field: account, max_retries: 5 }
      iii-trio:                             # ours, which win over the same said above
        enabled: true
        data: /var/lib/iii-trio             # a directory, or `memory`
        synchronous: full
        queues:
          ledger: { max_lost_deliveries: 5, visibility_timeout_seconds: 60 }

`max_retries: N` are max(1, N) calls in all, as in iii's engine: the same as our `max_attempts`, but for 0.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from ruamel.yaml.comments import CommentedMap

from .config_queue import MEMORY, QueueConfig, QueueSettings, directory_of
from .config_yaml import OURS, YamlReader, kind_of, line_of, shown

QUEUE: Final = frozenset({"iii-queue", "queue"})
"""The names of the entry."""

_ADAPTER: Final = ("store_method", "file_path", "save_interval_ms")
_FILE_PATH: Final = "kv_store_data.db"  # iii's default
_WITHOUT_EFFECT: Final = {
    "poll_interval_ms": "nothing is polled here",
    "max_priority": "jobs have no priorities here",
    "priority_field": "jobs have no priorities here",
}
_WIRE: Final = ("max_retries", "concurrency", "type", "message_group_field", "backoff_ms", *_WITHOUT_EFFECT)
_WHOLE_QUEUE: Final = ("synchronous", "jobs", "memory_bytes")


@attrs.frozen
class QueueEntry:
    """What the entry says."""

    config: QueueConfig | None
    """None: there is to be no queue."""
    place: str | None
    """Where jobs are to be kept: `memory`, or a directory; None: that is not said."""


def read_queue(reader: YamlReader, entry: CommentedMap) -> QueueEntry:
    """Read the entry. Raises ConfigError."""
    wire, ours = reader.mapping(entry, "config"), reader.mapping(entry, OURS)
    reader.only(wire, ("adapter", "queue_configs"), f"in `config` of {entry['name']}")
    reader.only(ours, ("enabled", "data", *_WHOLE_QUEUE, "queues"), f"in `{OURS}` of {entry['name']}")
    place = reader.text(ours, "data", "a directory, or `memory`") or _place_of_adapter(reader, wire)
    queues = _queues(reader, reader.mapping(wire, "queue_configs"), reader.mapping(ours, "queues"))
    settings = reader.values(ours, QueueConfig, wanted=_WHOLE_QUEUE)
    config = QueueConfig(**settings, queues=queues, directory=directory_of(place))
    return QueueEntry(config if _enabled(reader, ours) else None, place)


def _enabled(reader: YamlReader, ours: CommentedMap) -> bool:
    enabled = ours.get("enabled", True)
    if not isinstance(enabled, bool):
        reader.fail(line_of(ours, "enabled"), f"`enabled` is {shown(enabled)}; give true or false")
    return enabled


def _place_of_adapter(reader: YamlReader, wire: CommentedMap) -> str | None:
    """Where iii's adapter would keep jobs: ours are in the same directory, in a file of their own."""
    adapter = reader.mapping(wire, "adapter")
    reader.only(adapter, ("name", "config"), "in `adapter`")
    name = reader.text(adapter, "name", "`builtin`")
    if name not in (None, "builtin"):
        reader.fail(
            line_of(adapter, "name"),
            f"the queue's adapter `{name}` is not part of this engine; make it `builtin`, or leave `adapter` out",
        )
    config = reader.mapping(adapter, "config")
    reader.only(config, _ADAPTER, "in `adapter.config`")
    if config.get("save_interval_ms") is not None:
        reader.warn(
            line_of(config, "save_interval_ms"),
            "`save_interval_ms` has no effect: each job is saved before it is acknowledged; remove it",
        )
    method = config.get("store_method")
    path = reader.text(config, "file_path", "a directory")
    if method not in (None, "in_memory", "file_based"):
        reader.fail(
            line_of(config, "store_method"),
            f"`store_method` is {shown(method)}; give `file_based` or `in_memory`",
        )
    if path is not None and method != "file_based":
        reader.warn(
            line_of(config, "file_path"), "`file_path` has no effect without `store_method: file_based`; set it, too"
        )
    return {None: None, "in_memory": MEMORY, "file_based": path or _FILE_PATH}[method]


def _queues(reader: YamlReader, wire: CommentedMap, ours: CommentedMap) -> dict[str, QueueSettings]:
    queues = {}
    for name in {**wire, **ours}:
        line = line_of(ours if name in ours else wire, name)
        if not isinstance(name, str) or not name.strip():
            reader.fail(line, f"a queue's name is {kind_of(name)}; give a text (in quotes, if it looks otherwise)")
        own = _in_our_words(reader, ours, name)
        said = _in_wire_words(reader, wire, name) | own
        if "group_by" in said and "group_by" not in own and not said.get("fifo"):
            del said["group_by"]
            reader.warn(
                line_of(reader.mapping(wire, name), "message_group_field"),
                f"`message_group_field` of queue '{name}' has no effect without `type: fifo`; set the type, or remove it",
            )
        try:
            queues[name] = QueueSettings(**said)
        except ValueError as error:
            reader.fail(line, f"queue '{name}': {error}")
        if queues[name].fifo and queues[name].group_by is None:
            reader.fail(
                line,
                f"FIFO queue '{name}' requires 'message_group_field' to be configured; name the member of its jobs' data "
                f"that says their group (`group_by` under `{OURS}`)",
            )
    return queues


def _in_our_words(reader: YamlReader, ours: CommentedMap, name: str) -> dict[str, Any]:
    said = reader.mapping(ours, name)
    reader.only(said, attrs.fields_dict(QueueSettings), f"of queue '{name}'")
    return reader.values(said, QueueSettings, f"queues.{name}")


def _in_wire_words(reader: YamlReader, wire: CommentedMap, name: str) -> dict[str, Any]:
    said = reader.mapping(wire, name)
    reader.only(said, _WIRE, f"of queue '{name}'")
    settings: dict[str, Any] = {}
    for key, value in said.items():
        line = line_of(said, key)
        if value is None:
            continue
        match key:
            case "max_retries":
                settings["max_attempts"] = max(1, reader.count(line, key, value, 0))
            case "concurrency":
                if value in (0, "0") and value is not False:
                    reader.fail(line, f"Queue '{name}' has 'concurrency' 0; it must be at least 1")
                settings["concurrency"] = reader.count(line, key, value, 1)
            case "type":
                if value not in ("standard", "fifo"):
                    reader.fail(line, f"`type` is {shown(value)}; give `standard` or `fifo`")
                settings["fifo"] = value == "fifo"
            case "message_group_field":
                settings["group_by"] = reader.text(said, key, "the name of a member of its jobs' data")
            case "backoff_ms":
                settings["backoff_seconds"] = reader.milliseconds(line, key, value)
            case _:
                reader.warn(line, f"`{key}` of queue '{name}' has no effect: {_WITHOUT_EFFECT[key]}; remove it")
    return settings
