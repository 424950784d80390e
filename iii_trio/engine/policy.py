"""How connections come in at one listener: TLS, tokens, time for a handshake."""

from __future__ import annotations

import hmac
import os
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from ..config import Limits, Listener, ListenerLimits
from ..errors import ConfigError
from ..transport.http1 import BadRequest, Head


@final
class ConnectionCounts:
    """How many are in by one listener, by whichever of its policies they came."""

    def __init__(self) -> None:
        self.connections = 0
        self.sessions = 0


@final
class ListenerPolicy:
    """One listener's way in. Without arguments: in the clear, for everybody."""

    def __init__(
        self,
        *,
        limits: ListenerLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        tokens: Iterable[str] | None = None,
        channels_need_token: bool = False,
    ) -> None:
        self.limits = limits or ListenerLimits()
        self.counts = ConnectionCounts()
        self.ssl_context = ssl_context
        self._tokens = None if tokens is None else [token.encode() for token in tokens]
        self._channels_need_token = channels_need_token

    @classmethod
    def from_config(cls, listener: Listener) -> ListenerPolicy:
        """The policy that a listener describes. Reads its files, so it blocks. Raises ConfigError."""
        auth = listener.auth
        return cls(
            limits=listener.limits,
            ssl_context=_ssl_context(listener),
            tokens=None if auth is None else [*auth.tokens, *_tokens_in(auth.token_file)],
            channels_need_token=auth is not None and auth.channels == "key_and_token",
        )

    def handshake_seconds(self, engine: Limits) -> float:
        """How long a handshake may take here."""
        return self.limits.handshake_seconds or engine.handshake_seconds

    def message_bytes(self, engine: Limits) -> int:
        """How large a message may be here."""
        return self.limits.message_bytes or engine.message_bytes

    def check_connections(self) -> None:
        """Raise BadRequest (503) if more connections came in here than may."""
        most = self.limits.connections
        if most is not None and self.counts.connections > most:
            raise BadRequest(503, f"this listener has as many connections as it may ({most})")

    def check_sessions(self) -> None:
        """Raise BadRequest (503) if no more sessions may come in here."""
        most = self.limits.sessions
        if most is not None and self.counts.sessions >= most:
            raise BadRequest(503, f"this listener has as many sessions as it may ({most})")

    def check(self, head: Head) -> str | None:
        """The token by which this request may come in; None where it needs none. Raises BadRequest (401).

        Worker sockets need one; telemetry and channel ends only where channels do: most SDKs send no header there.
        """
        if self._tokens is None or (head.path != "/" and not self._channels_need_token):
            return None
        token = _shown(head)
        if not self.knows(token):
            raise BadRequest(
                401, "a token is needed here: send Authorization: Bearer …", (("WWW-Authenticate", "Bearer"),)
            )
        return token

    def trusts(self, head: Head) -> bool:
        """Whether what comes by this connection may be believed: it shows a token, or none is needed here."""
        return self.knows(_shown(head))

    def knows(self, token: str | None) -> bool:
        """Whether one may come in with this token; all are compared, each in constant time."""
        if self._tokens is None:
            return True
        if token is None:
            return False
        shown = token.encode("utf-8", "replace")
        return sum([hmac.compare_digest(shown, known) for known in self._tokens]) > 0


def _shown(head: Head) -> str | None:
    """The bearer token that a request shows."""
    scheme, _, token = head.headers.get("authorization", "").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


@runtime_checkable
class AuthenticatedPeer(Protocol):
    """A worker's socket, as far as it came in by a policy."""

    policy: ListenerPolicy
    token: str | None


def _ssl_context(listener: Listener) -> ssl.SSLContext | None:
    if listener.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = (listener.tls.certificate, listener.tls.key)
    for file in files:
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigError(f"`tls` names {file}, which is not there, or cannot be read")
    try:
        context.load_cert_chain(*files, password=_no_password)
    except (ssl.SSLError, OSError, _Encrypted) as error:
        named = " and ".join(file for file in files if file is not None)
        raise ConfigError(f"`tls` names {named}, which cannot be used: {error}") from None
    return context


class _Encrypted(Exception):
    """A key that asks for a password, which nobody is there to give."""


def _no_password() -> str:
    raise _Encrypted("the key is encrypted; store it in the clear, readable for the engine only")


def _tokens_in(file: str | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = [line.strip() for line in Path(file).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"`auth` names the token file {file}, which cannot be read: {cause}") from None
    tokens = [line for line in lines if line and not line.startswith("#")]
    if not tokens:
        raise ConfigError(f"`auth` names the token file {file}, in which there is no token")
    return tokens
