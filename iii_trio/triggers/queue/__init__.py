"""Background work that survives: named queues, and topics that remember their subscribers.

Its names are loaded when they are first used. The command line reads the queue's declaration, and not the queue.
"""

from typing import TYPE_CHECKING

from ...lazy import loader

if TYPE_CHECKING:
    from .backup import check_backup
    from .memory_store import MemoryStore
    from .module import Queue, open_queue
    from .store import (
        Backlog,
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
    "Backlog", "BadChange", "Change", "Damaged", "Forget", "ForgetLane", "Loaded", "MemoryStore", "Payload", "Put",
    "Queue", "Remember", "Remove", "SaveLane", "SetAside", "StorageError", "StorageFull", "Store", "Update",
    "check_backup", "open_queue",
]  # fmt: skip
_HOMES = {"check_backup": "backup", "MemoryStore": "memory_store", "Queue": "module", "open_queue": "module"}
__getattr__ = loader(__name__, {name: _HOMES.get(name, "store") for name in __all__})
