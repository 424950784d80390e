"""The policy of one listener: TLS, origins, tokens, limits, time for a handshake."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import re
import ssl
from collections.abc import Iterable
from typing import Final, Protocol, final, runtime_checkable

from ..config import Auth, Limits, Listener, ListenerLimits
from ..config.text_file import read_text_file, why_unreadable
from ..core.access import Access
from ..errors import ConfigError
from ..transport.certificates import server_context
from ..transport.http1 import BadRequest, Head

_ORIGIN: Final = r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\],]+)(:[0-9]+)?"
_NAMED_ORIGIN: Final = r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?)(:[0-9]{1,5})?"
"""As above, with the characters that names of hosts are made of."""


@final
class ConnectionCounts:
    """The connections and sessions of one listener. They outlive its policies."""

    def __init__(self) -> None:
        self.connections = 0
        self.sessions = 0


@final
class ListenerPolicy:
    """The rules of one listener. The default has no TLS, no tokens, and admits web pages of this machine only."""

    def __init__(
        self,
        *,
        limits: ListenerLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        tokens: Iterable[str] | None = None,
        channels_need_token: bool = False,
        origins: Iterable[str] = (),
        shows_metrics: bool = True,
        shows_page: bool = True,
        host: str | None = None,
        access: Access | None = None,
    ) -> None:
        self.limits = limits or ListenerLimits()
        self.access = access
        """The access rules of its sessions. None: they may do everything."""
        self.counts = ConnectionCounts()
        self.shows_metrics = shows_metrics
        self.shows_page = shows_page and access is None
        """Whether browsers get the page. It shows and calls everything, so a listener with access rules never has it."""
        self._host = host
        self.ssl_context = ssl_context
        self._tokens = None if tokens is None else [token.encode() for token in tokens]
        self._channels_need_token = channels_need_token
        self._origins = frozenset(origin.lower() for origin in origins)

    @classmethod
    def from_config(cls, listener: Listener) -> ListenerPolicy:
        """Make the policy of a configured listener. Reads its files, so it blocks. Raises ConfigError."""
        auth = listener.auth
        return cls(
            limits=listener.limits,
            ssl_context=None if listener.tls is None else server_context(listener.tls),
            tokens=None if auth is None else [*auth.tokens, *_tokens_in(auth)],
            channels_need_token=auth is not None and auth.channels == "key_and_token",
            origins=listener.origins,
            shows_metrics=_is_local(listener) if listener.metrics is None else listener.metrics,
            shows_page=_is_local(listener) if listener.page is None else listener.page,
            host=listener.host,
            access=_access(listener),
        )

    def handshake_seconds(self, engine: Limits) -> float:
        """Return the time limit of a handshake at this listener."""
        return self.limits.handshake_seconds or engine.handshake_seconds

    def message_bytes(self, engine: Limits) -> int:
        """Return the size limit of a message at this listener."""
        return self.limits.message_bytes or engine.message_bytes

    def check_connections(self) -> None:
        """Raise BadRequest (503) if this listener has more connections than allowed."""
        limit = self.limits.connections
        if limit is not None and self.counts.connections > limit:
            raise BadRequest(503, f"this listener has as many connections as it may ({limit})")

    def check_sessions(self) -> None:
        """Raise BadRequest (503) if this listener has as many sessions as allowed."""
        limit = self.limits.sessions
        if limit is not None and self.counts.sessions >= limit:
            raise BadRequest(503, f"this listener has as many sessions as it may ({limit})")

    def check_origin(self, head: Head) -> None:
        """Raise BadRequest (403) for a request of a web page with an origin that is not allowed here.

        A browser names the page's origin in every WebSocket handshake (RFC 6455 section 4.1), and a page cannot forge
        it. Programs name none. The page's own host is no proof, because a name that its owner points at this machine (DNS
        rebinding) stands in Origin and Host alike. Loopback origins are pages of this machine.
        """
        origin = head.headers.get("origin")
        if origin is None or "*" in self._origins or origin.lower() in self._origins or _is_loopback(origin.lower()):
            return
        # Only an origin that the setting takes is advised, and nothing else of a request is repeated.
        if origin != "null" and not _can_be_named(origin):
            raise BadRequest(
                403, "web pages may not connect here whose Origin is not scheme://host or scheme://host:port"
            )
        raise BadRequest(403, f"web pages of {origin} may not connect here: add it to `origins` of this listener")

    def check(self, head: Head) -> str | None:
        """Return the token by which this request may come in, or None where it needs none. Raises BadRequest (401).

        Worker sockets need one. Telemetry and channel ends need one only where channels do, because most SDKs send no
        header there.
        """
        if self._tokens is None or (head.path != "/" and not self._channels_need_token):
            return None
        return self.check_token(head)

    def check_token(self, head: Head) -> str | None:
        """Return the token that a request shows, or None where the listener has no tokens. Raises BadRequest (401)."""
        if self._tokens is None:
            return None
        token = _shown(head)
        if not self.knows(token):
            raise BadRequest(
                401, "a token is needed here: send Authorization: Bearer …", (("WWW-Authenticate", "Bearer"),)
            )
        return token

    def check_page(self, head: Head) -> None:
        """Check a request of the engine's page: its origin, the name that it was reached by, and its token.

        A browser sends no Origin with a plain GET, so the name in Host has to tell a page whose owner points its name at
        this machine. Browsers ask their user for the token: it is the password of HTTP's Basic scheme (RFC 7617).
        Raises BadRequest (401, 403).
        """
        self.check_origin(head)
        self._check_host(head)
        if self._tokens is None or self.knows(_shown(head)) or self.knows(_password(head)):
            return
        schemes = (("WWW-Authenticate", 'Basic realm="iii-trio", charset="UTF-8"'), ("WWW-Authenticate", "Bearer"))
        raise BadRequest(401, "a token is needed here: give it as the password, with any name", schemes)

    def _check_host(self, head: Head) -> None:
        host = head.headers.get("host", "").lower()
        # A request of HTTP/1.0 may lack it, and then nothing tells the name.
        if not host:
            raise BadRequest(400, "the Host header is missing")
        name = re.fullmatch(_ORIGIN, f"http://{host}")
        if name is not None and (_is_address(name[1]) or name[1] == self._host or _is_loopback(f"http://{host}")):
            return
        # A listener that serves pages of a name is itself known by it.
        if "*" in self._origins or any(origin.partition("://")[2] == host for origin in self._origins):
            return
        if not _can_be_named(f"http://{host}"):
            raise BadRequest(403, "this engine is not known by the name in Host, which is not host or host:port")
        raise BadRequest(403, f"this engine is not known as {host}: add http://{host} to `origins` of this listener")

    def trusts(self, head: Head) -> bool:
        """Return whether telemetry of this connection is taken, by a known token or because none is needed here.

        Where an auth function admits sessions, telemetry comes by the sessions only.
        """
        if self.access is not None and self.access.auth_function is not None:
            return False
        return self.knows(_shown(head))

    def knows(self, token: str | None) -> bool:
        """Return whether this token is good here. All tokens are compared, each in constant time."""
        if self._tokens is None:
            return True
        if token is None:
            return False
        shown = token.encode("utf-8", "replace")
        return sum([hmac.compare_digest(shown, known) for known in self._tokens]) > 0


def _is_local(listener: Listener) -> bool:
    """Return whether only this machine can reach a listener."""
    if listener.unix is not None or listener.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(listener.host).is_loopback
    except ValueError:
        return False


def _can_be_named(origin: str) -> bool:
    """Return whether an origin is well-formed, so that it can be advised as a value of `origins`."""
    return len(origin) <= 300 and re.fullmatch(_NAMED_ORIGIN, origin.lower()) is not None


def _is_loopback(origin: str) -> bool:
    """Return whether a page of this machine has this origin (localhost, *.localhost, 127.0.0.0/8 or [::1])."""
    match = re.fullmatch(_ORIGIN, origin)
    if match is None:
        return False
    host = match[1].removesuffix(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _shown(head: Head) -> str | None:
    """Return the bearer token that a request shows."""
    scheme, _, token = head.headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _password(head: Head) -> str | None:
    """Return the password that a request shows by HTTP's Basic scheme (RFC 7617)."""
    scheme, _, encoded = head.headers.get("authorization", "").strip().partition(" ")
    # Other schemes carry no password.
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    """Return whether a host is an IP address, which no other site can have as its name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


@runtime_checkable
class AuthenticatedPeer(Protocol):
    """A worker's socket that was admitted by a listener's policy."""

    policy: ListenerPolicy
    token: str | None


def _access(listener: Listener) -> Access | None:
    if listener.rbac is None and listener.middleware_function_id is None:
        return None
    return Access(listener.rbac, listener.middleware_function_id)


def _tokens_in(auth: Auth) -> list[str]:
    file = auth.token_file
    if file is None:
        return []
    where = f"{auth.where}: " if auth.where else ""
    try:
        lines = [line.strip() for line in read_text_file(file).splitlines()]
    except (OSError, ValueError) as error:
        cause = why_unreadable(error)
        raise ConfigError(f"{where}`auth` names the token file {file}, which cannot be read: {cause}") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise ConfigError(f"{where}`auth` names the token file {file}, in which there is no token")
    return tokens
