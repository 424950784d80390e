"""The low-level interface of workers, for modules with many small calls.

A call or a handler usually has a task of its own. Here it has none. A callback is called when a call is settled, and a
handler answers when it can. The functions take the worker first, because `Worker` itself shows only the common interface.
"""

from .worker.calls import CallHandle, PendingCall, WorkerSession
from .worker.channels_nowait import end_nowait, open_channels
from .worker.context import within_trace
from .worker.inline import InlineCall, InlineHandler
from .worker.lowlevel import (
    begin_call,
    call_by,
    call_nowait,
    can_call,
    end_binding,
    flush,
    identity_of,
    new_id,
    receive_pieces,
    register_inline_handler,
    relay_channel_ends,
    relay_function,
    send_now,
    session_of,
    wait_can_call,
    wait_link_lost,
    watch_channel,
)

__all__ = [
    "CallHandle",
    "InlineCall",
    "InlineHandler",
    "PendingCall",
    "WorkerSession",
    "begin_call",
    "call_by",
    "call_nowait",
    "can_call",
    "end_binding",
    "end_nowait",
    "flush",
    "identity_of",
    "new_id",
    "open_channels",
    "receive_pieces",
    "register_inline_handler",
    "relay_channel_ends",
    "relay_function",
    "send_now",
    "session_of",
    "wait_can_call",
    "wait_link_lost",
    "watch_channel",
    "within_trace",
]
