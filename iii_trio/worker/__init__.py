"""Functions, calls, triggers and channels from a Trio program."""

from .channels import Channel
from .context import CallInfo, current_call
from .ends import ChannelReader, ChannelResult, ChannelWriter
from .external import ApiKeyAuth, BearerAuth, ExternalCall, HmacAuth
from .function_spec import Registered
from .http_response import HttpError, HttpRequest, HttpResponse, HttpResult
from .jobs import Enqueue, Receipt, enqueue
from .open_worker import open_worker
from .queues import Queues
from .stream_pairs import Duplex, duplex
from .streams import ReaderStream, WriterStream
from .trigger_binding import TriggerBinding
from .trigger_types import BoundTrigger, TriggerType
from .worker import Worker

__all__ = [
    "ApiKeyAuth",
    "BearerAuth",
    "BoundTrigger",
    "CallInfo",
    "Channel",
    "ChannelReader",
    "ChannelResult",
    "ChannelWriter",
    "Duplex",
    "Enqueue",
    "ExternalCall",
    "HmacAuth",
    "HttpError",
    "HttpRequest",
    "HttpResponse",
    "HttpResult",
    "Queues",
    "ReaderStream",
    "Receipt",
    "Registered",
    "TriggerBinding",
    "TriggerType",
    "Worker",
    "WriterStream",
    "current_call",
    "duplex",
    "enqueue",
    "open_worker",
]
