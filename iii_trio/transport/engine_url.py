"""Addresses of engines as text: `ws://host:port/path`, `wss://…`, `unix:/path`. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

import attrs

from ..errors import MisuseError
from ..wire import DEFAULT_PORT

_TARGET: Final = re.compile(r"[\x21-\x7e]*")


@attrs.frozen
class EngineUrl:
    """The parts of an engine's address."""

    host: str
    """A name in its ASCII form (IDNA), or an IP address without brackets."""
    port: int
    target: str
    """The path and query that every request begins with."""
    secure: bool
    unix: str | None
    """The path of a unix socket."""

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __str__(self) -> str:
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"{'wss' if self.secure else 'ws'}://{self.authority}"


def parse_url(text: str) -> EngineUrl:
    """Read the address of an engine. Raises MisuseError, which never shows a password."""
    path = unix_path(text)
    if path is not None:
        if not path or "\0" in path:
            raise MisuseError(f"{text!r} is no address of an engine: write it as unix:/path")
        return EngineUrl("localhost", DEFAULT_PORT, "/", secure=False, unix=path)
    try:
        parts = urlsplit(text if "://" in text else f"ws://{text}")
        has_credentials = parts.username is not None or parts.password is not None
    except ValueError as error:
        raise MisuseError(f"{text!r} is no address of an engine: {error}") from None
    if has_credentials:
        raise MisuseError(
            "the address of an engine holds a user or a password, which no engine reads: give "
            'headers={"Authorization": "Bearer …"}, or set III_TOKEN'
        )
    try:
        port = parts.port
    except ValueError as error:
        raise MisuseError(f"{text!r} is no address of an engine: {error}") from None
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise MisuseError(f"{text!r} is no address of an engine: write it as ws://host:port or wss://host:port")
    if port == 0:
        raise MisuseError(f"{text!r} is no address of an engine: nothing listens at port 0")
    if parts.fragment:
        raise MisuseError(f"{text!r} is no address of an engine: a WebSocket address has no '#' part (RFC 6455, 3)")
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    if not _TARGET.fullmatch(target):
        raise MisuseError(f"{text!r} is no address of an engine: percent-encode the characters of its path")
    secure = parts.scheme == "wss"
    return EngineUrl(_ascii_host(parts.hostname, text), port or (443 if secure else DEFAULT_PORT), target, secure, None)


def unix_path(address: str) -> str | None:
    """Return the path in `unix:/path` (or `unix:///path`), or None for any other address."""
    if not address.startswith("unix:"):
        return None
    path = address.removeprefix("unix:")
    return path.removeprefix("//") if path.startswith("///") else path


def _ascii_host(host: str, text: str) -> str:
    if ":" in host:
        return host  # an IPv6 address, which urlsplit has checked
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise MisuseError(f"{text!r} is no address of an engine: {host!r} is no host name: {error}") from None
