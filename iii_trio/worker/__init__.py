"""The worker: functions, calls and channels from a Trio program."""

from .channels import Channel
from .context import CallInfo, current_call
from .ends import ChannelReader, ChannelWriter, Ended
from .opening import open_worker
from .streams import Duplex, ReaderStream, WriterStream, duplex
from .worker import Registered, Worker

__all__ = [
    "CallInfo",
    "Channel",
    "ChannelReader",
    "ChannelWriter",
    "Duplex",
    "Ended",
    "ReaderStream",
    "Registered",
    "Worker",
    "WriterStream",
    "current_call",
    "duplex",
    "open_worker",
]
