"""A Trio-based structured-concurrency runtime for a worker mesh.

`open_engine`, `serve_engine`   an engine in your program
`open_worker`                   a worker of any engine: functions, calls, channels
`ChannelReader`, `ChannelWriter`  the two ends of a channel, in handlers and out of `Worker.create_channel`

From bottom to top: `wire` (text ⇄ messages) · `core` (decisions, pure) and `transport` (sockets) · `engine` and `worker`
(tasks) · `embed` and `cli`. docs/architecture.md has the map.

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING

from .lazy import loader

if TYPE_CHECKING:
    from .config import ChannelDefaults, EngineConfig, Limits, Listener, ListenerLimits, Timeouts
    from .embed import Engine, EngineStatistics, open_engine, open_worker, serve_engine
    from .errors import (
        AttachRefused,
        CallError,
        ChannelBroken,
        ConfigError,
        ConnectionFailed,
        IIIError,
        ListenFailed,
        MisuseError,
        ModuleFailed,
        PeerError,
        Rejected,
        StorageError,
    )
    from .structure import register_type
    from .triggers.queue.settings import QueueConfig, QueueSettings
    from .wire import Outcome, Ref, find_refs
    from .worker import (
        BoundTrigger,
        CallInfo,
        Channel,
        ChannelReader,
        ChannelResult,
        ChannelWriter,
        Queues,
        Receipt,
        TriggerBinding,
        TriggerType,
        Worker,
        current_call,
        duplex,
        enqueue,
    )

__all__ = [
    "AttachRefused",
    "BoundTrigger",
    "CallError",
    "CallInfo",
    "Channel",
    "ChannelBroken",
    "ChannelDefaults",
    "ChannelReader",
    "ChannelResult",
    "ChannelWriter",
    "ConfigError",
    "ConnectionFailed",
    "Engine",
    "EngineConfig",
    "EngineStatistics",
    "IIIError",
    "Limits",
    "ListenFailed",
    "Listener",
    "ListenerLimits",
    "MisuseError",
    "ModuleFailed",
    "Outcome",
    "PeerError",
    "QueueConfig",
    "QueueSettings",
    "Queues",
    "Receipt",
    "Ref",
    "Rejected",
    "StorageError",
    "Timeouts",
    "TriggerBinding",
    "TriggerType",
    "Worker",
    "current_call",
    "duplex",
    "enqueue",
    "find_refs",
    "open_engine",
    "open_worker",
    "register_type",
    "serve_engine",
]

_LOADED_FROM = {
    "config": ("ChannelDefaults", "EngineConfig", "Limits", "Listener", "ListenerLimits", "Timeouts"),
    "triggers.queue.settings": ("QueueConfig", "QueueSettings"),
    "embed": ("Engine", "EngineStatistics", "open_engine", "open_worker", "serve_engine"),
    "errors": (
        "AttachRefused", "CallError", "ChannelBroken", "ConfigError", "ConnectionFailed", "IIIError",
        "ListenFailed", "MisuseError", "ModuleFailed", "PeerError", "Rejected", "StorageError",
    ),
    "structure": ("register_type",),
    "wire": ("Outcome", "Ref", "find_refs"),
    "worker": (
        "TriggerBinding", "BoundTrigger", "CallInfo", "Channel", "ChannelReader", "ChannelWriter", "ChannelResult",
        "Queues", "Receipt", "TriggerType", "Worker", "current_call", "duplex", "enqueue",
    ),
}  # fmt: skip
_HOMES = {name: home for home, names in _LOADED_FROM.items() for name in names}

__getattr__ = loader(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
