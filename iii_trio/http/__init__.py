"""Files, uploads and events in handlers of `Worker.http` (docs/http.md), and external functions (docs/external.md)."""

from ..worker import ApiKeyAuth, BearerAuth, ExternalCall, HmacAuth, HttpError, HttpRequest, HttpResponse, HttpResult
from .events import EventStream, open_events
from .files import content_disposition, serve_file
from .uploads import Part, Parts, parts

__all__ = [
    "ApiKeyAuth",
    "BearerAuth",
    "EventStream",
    "ExternalCall",
    "HmacAuth",
    "HttpError",
    "HttpRequest",
    "HttpResponse",
    "HttpResult",
    "Part",
    "Parts",
    "content_disposition",
    "open_events",
    "parts",
    "serve_file",
]
