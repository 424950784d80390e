"""The span of a request, and the trace headers of the calls that serve it.

The span has the route and not the path, and no header, because paths, queries and headers may hold secrets.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import final

from ...lowlevel import within_trace
from ...tracing import OK, SERVER, Span, Tracing
from .routes import Route


@final
class RequestTrace:
    """The trace of one request. Calls and channels that are made in its block belong to the span, if there is one."""

    def __init__(self, tracing: Tracing | None, method: str, route: Route, headers: dict[str, str]) -> None:
        self._tracing = tracing
        self._span: Span | None = None
        self._block: AbstractContextManager[None] | None = None
        self.traceparent = headers.get("traceparent")
        """The header for the handler."""
        if tracing is None or tracing.sink is None:
            return
        path = f"/{route.template.lstrip('/')}"
        span = tracing.begin(
            f"{method} {path}", self.traceparent, kind=SERVER, operation=route.function_id, service="iii-http"
        )
        # The trace was not chosen, so the headers of the client pass as they are.
        if span is None:
            return
        self._span, self.traceparent = span, span.traceparent
        self._block = within_trace(span.traceparent, headers.get("baggage"))
        span.attributes |= {"http.request.method": method, "http.route": path, "function_id": route.function_id}
        length = headers.get("content-length", "")
        # A body that comes in chunks has no length beforehand.
        if length.isascii() and length.isdigit() and len(length) < 19:
            span.attributes["http.request.body.size"] = int(length)

    @property
    def is_recorded(self) -> bool:
        """Whether the request has a span."""
        return self._span is not None

    def __enter__(self) -> None:
        if self._block is not None:
            self._block.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._block is not None:
            self._block.__exit__(kind, error, traceback)

    def end(self, status: int, *, truncated: bool, abandoned: bool) -> None:
        """End the span at the end of the response. A status of 0 means that none was sent."""
        span = self._span
        if span is None or self._tracing is None:
            return
        if status:
            span.attributes["http.response.status_code"] = status
        # A response that was cut has the status of a success, so its end counts first.
        if truncated or abandoned:
            span.attributes["error.type"] = "truncated" if truncated else "client_left"
            span.fail("truncated" if truncated else "client_left")
        elif status >= 400:
            span.attributes["error.type"] = str(status)
            span.fail(str(status))
        else:
            span.status = OK
        self._tracing.finish(span)
