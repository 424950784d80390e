"""The HTTP module: routes to functions, with bodies and responses as channels."""

from __future__ import annotations

from .cors import Cors
from .module import Http, open_http, open_http_server
from .server import HttpServer
from .settings import HttpConfig, HttpLimits, Middleware

__all__ = ["Cors", "Http", "HttpConfig", "HttpLimits", "HttpServer", "Middleware", "open_http", "open_http_server"]
