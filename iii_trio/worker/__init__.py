"""Functions, calls, triggers and channels from a Trio program.

What describes external functions and HTTP responses is loaded when it is first used. A worker registers such a function,
or a route, before the first call, so that no call needs a descriptor for an import.
"""

from typing import TYPE_CHECKING

from ..lazy import loader
from .channels import Channel
from .context import CallInfo, current_call
from .ends import ChannelReader, ChannelResult, ChannelWriter
from .function_spec import Registered
from .jobs import Enqueue, Receipt, enqueue
from .open_worker import open_worker
from .queues import Queues
from .stream_pairs import Duplex, duplex
from .streams import ReaderStream, WriterStream
from .trigger_binding import TriggerBinding
from .trigger_types import BoundTrigger, TriggerType
from .worker import Worker

if TYPE_CHECKING:
    from .external import ApiKeyAuth, BearerAuth, ExternalCall, HmacAuth
    from .http_response import HttpError, HttpRequest, HttpResponse, HttpResult

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
_HOMES = {
    "external": ("ApiKeyAuth", "BearerAuth", "ExternalCall", "HmacAuth"),
    "http_response": ("HttpError", "HttpRequest", "HttpResponse", "HttpResult"),
}
__getattr__ = loader(__name__, {name: home for home, names in _HOMES.items() for name in names})
