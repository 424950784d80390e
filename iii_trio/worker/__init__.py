"""The worker: functions, calls, triggers and channels from a Trio program."""

from .bindings import Binding
from .calls import Asked
from .channels import Channel
from .context import CallInfo, current_call
from .declare import Registered
from .ends import ChannelReader, ChannelWriter, Ended
from .open_call import InlineCall
from .opening import open_worker
from .providing import BoundTrigger, TriggerType
from .queueing import Enqueue, Receipt, enqueue
from .streams import Duplex, ReaderStream, WriterStream, duplex
from .worker import Worker

__all__ = [
    "Asked",
    "Binding",
    "BoundTrigger",
    "CallInfo",
    "Channel",
    "ChannelReader",
    "ChannelWriter",
    "Duplex",
    "Ended",
    "Enqueue",
    "InlineCall",
    "ReaderStream",
    "Receipt",
    "Registered",
    "TriggerType",
    "Worker",
    "WriterStream",
    "current_call",
    "duplex",
    "enqueue",
    "open_worker",
]
