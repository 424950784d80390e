"""Background work that survives: named queues, and topics that remember their subscribers.

What is named here is loaded when it is first used. The command line reads the queue's declaration, and not the queue.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .memory_store import MemoryStore
    from .module import Queue, open_queue
    from .store import (
        BadChange,
        Change,
        Damaged,
        Forget,
        ForgetLane,
        Loaded,
        Payload,
        Put,
        Remember,
        Remove,
        SaveLane,
        SetAside,
        StorageError,
        StorageFull,
        Store,
        Update,
    )

__all__ = [
    "BadChange", "Change", "Damaged", "Forget", "ForgetLane", "Loaded", "MemoryStore", "Payload", "Put", "Queue",
    "Remember", "Remove", "SaveLane", "SetAside", "StorageError", "StorageFull", "Store", "Update", "open_queue",
]  # fmt: skip
_HOMES = {"MemoryStore": "memory_store", "Queue": "module", "open_queue": "module"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES.get(name, 'store')}", __name__), name)
    globals()[name] = value
    return value
