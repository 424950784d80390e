"""The HTTP module: routes to functions, with bodies and responses as channels.

Its names are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from ...lazy import loader

if TYPE_CHECKING:
    from .cors import Cors
    from .module import Http, open_http, open_http_server
    from .server import HttpServer
    from .settings import HttpConfig, HttpLimits, Middleware

__all__ = ["Cors", "Http", "HttpConfig", "HttpLimits", "HttpServer", "Middleware", "open_http", "open_http_server"]
_HOMES = {
    "cors": ("Cors",),
    "module": ("Http", "open_http", "open_http_server"),
    "server": ("HttpServer",),
    "settings": ("HttpConfig", "HttpLimits", "Middleware"),
}
__getattr__ = loader(__name__, {name: home for home, names in _HOMES.items() for name in names})
