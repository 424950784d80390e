"""Background work that survives: named queues, and topics that remember their subscribers."""

from .memory_store import MemoryStore
from .module import Queue, open_queue
from .store import Change, Forget, Loaded, Put, Remember, Remove, StorageError, Store, Update

__all__ = [
    "Change", "Forget", "Loaded", "MemoryStore", "Put", "Queue", "Remember", "Remove", "StorageError", "Store", "Update",
    "open_queue",
]  # fmt: skip
