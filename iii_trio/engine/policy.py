"""The policy of one listener: TLS, origins, tokens, limits, time for a handshake."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol, final, runtime_checkable

from ..config import Auth, Limits, Listener, ListenerLimits
from ..core.access import Access
from ..errors import ConfigError
from ..transport.http1 import BadRequest, Head

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/?#@:\[\],]+)(:[0-9]+)?")


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
        access: Access | None = None,
    ) -> None:
        self.limits = limits or ListenerLimits()
        self.access = access
        """The access rules of its sessions. None: they may do everything."""
        self.counts = ConnectionCounts()
        self.shows_metrics = shows_metrics
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
            ssl_context=_ssl_context(listener),
            tokens=None if auth is None else [*auth.tokens, *_tokens_in(auth)],
            channels_need_token=auth is not None and auth.channels == "key_and_token",
            origins=listener.origins,
            shows_metrics=_is_local(listener) if listener.metrics is None else listener.metrics,
            access=_access(listener),
        )

    def handshake_seconds(self, engine: Limits) -> float:
        """The time limit of a handshake at this listener."""
        return self.limits.handshake_seconds or engine.handshake_seconds

    def message_bytes(self, engine: Limits) -> int:
        """The size limit of a message at this listener."""
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
        shown = ascii(origin[:200])[1:-1]
        raise BadRequest(403, f"web pages of {shown} may not connect here: add it to `origins` of this listener")

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


def _is_loopback(origin: str) -> bool:
    """Return whether a page of this machine has this origin (localhost, *.localhost, 127.0.0.0/8 or [::1])."""
    match = _ORIGIN.fullmatch(origin)
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
    """The bearer token that a request shows."""
    scheme, _, token = head.headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


@runtime_checkable
class AuthenticatedPeer(Protocol):
    """A worker's socket that was admitted by a listener's policy."""

    policy: ListenerPolicy
    token: str | None


def _access(listener: Listener) -> Access | None:
    if listener.rbac is None and listener.middleware_function_id is None:
        return None
    return Access(listener.rbac, listener.middleware_function_id)


def _ssl_context(listener: Listener) -> ssl.SSLContext | None:
    if listener.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.num_tickets = 0  # a client that never reads its tickets would turn its own close into a reset
    where = f"{listener.tls.where}: " if listener.tls.where else ""
    files = (listener.tls.certificate, listener.tls.key)
    for file in files:
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigError(f"{where}`tls` names {file}, which is not there, or cannot be read")
    try:
        context.load_cert_chain(*files, password=_no_password)
    except (ssl.SSLError, OSError, _Encrypted) as error:
        named = " and ".join(file for file in files if file is not None)
        raise ConfigError(f"{where}`tls` names {named}, which cannot be used: {error}") from None
    return context


class _Encrypted(Exception):
    """The private key is encrypted, and there is no password for it."""


def _no_password() -> str:
    raise _Encrypted("the key is encrypted; store it in the clear, readable for the engine only")


def _tokens_in(auth: Auth) -> list[str]:
    file = auth.token_file
    if file is None:
        return []
    where = f"{auth.where}: " if auth.where else ""
    try:
        lines = [line.strip() for line in Path(file).read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{where}`auth` names the token file {file}, which cannot be read: {cause}") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise ConfigError(f"{where}`auth` names the token file {file}, in which there is no token")
    return tokens
