"""Background work that survives: named queues, and topics that remember their subscribers."""

from .module import Queue, open_queue
from .store import Change, Forget, Loaded, Put, Remember, Remove, StorageError, Store, Update

__all__ = [
    "Change", "Forget", "Loaded", "Put", "Queue", "Remember", "Remove", "StorageError", "Store", "Update", "open_queue",
]  # fmt: skip
