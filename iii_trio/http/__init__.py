"""Serve files, uploads and events in handlers of `Worker.http` (docs/http.md)."""

from ..worker import HttpError, HttpRequest, HttpResponse, HttpResult
from .events import EventStream, open_events
from .files import content_disposition, serve_file
from .uploads import Part, Parts, parts

__all__ = [
    "EventStream",
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
