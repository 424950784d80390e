"""The low-level interface of workers, for modules with many small calls.

A call or a handler usually has a task of its own. Here it has none. A callback is called when a call is settled, and a
handler answers when it can. The functions take the worker first, because `Worker` itself shows only the common interface.
"""

from .worker.calls import CallHandle
from .worker.inline import InlineCall, InlineHandler
from .worker.lowlevel import call_nowait, can_call, flush, new_id, register_inline_handler, wait_can_call

__all__ = [
    "CallHandle",
    "InlineCall",
    "InlineHandler",
    "call_nowait",
    "can_call",
    "flush",
    "new_id",
    "register_inline_handler",
    "wait_can_call",
]
