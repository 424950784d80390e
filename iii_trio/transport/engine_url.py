"""The address of an engine, as users write it: `ws://host:port`, `wss://host:port`, `host:port` or `unix:/path`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import SplitResult, urlsplit

import msgspec

from ..errors import MisuseError
from ..wire import DEFAULT_PORT

_NAME: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_VALUE: Final = r"[\t\x20-\x7e\xa0-\xff]*"
_TARGET: Final = r"[!-~]*"
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_MAX_HOST: Final = 253  # RFC 1035 section 2.3.4, without the root's dot
_OURS: Final = frozenset(
    {"host", "connection", "upgrade", "content-length", "transfer-encoding", "expect", "iii-session", "iii-invocation"}
)


class EngineUrl(msgspec.Struct, frozen=True):
    """A checked address. `target` is the path and query of a worker's upgrade. `unix` is the path of a unix socket."""

    host: str
    port: int
    target: str
    secure: bool = False
    unix: str | None = None

    @property
    def authority(self) -> str:
        """Host and port, as in a URL or the Host header. An IPv6 zone means nothing to others, and is left out."""
        host = self.host.partition("%")[0]
        return f"{f'[{host}]' if ':' in host else host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.unix}" if self.unix is not None else f"{'wss' if self.secure else 'ws'}://{self.authority}"


def parse_url(text: str) -> EngineUrl:
    """Parse the address of an engine. Raises MisuseError, which names the fault and never shows a password."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or "\0" in path:
            _refuse(text, "write it as unix:/path/of/the/socket")
        return EngineUrl("localhost", DEFAULT_PORT, "/", unix=path)
    try:
        parts = urlsplit(text if "://" in text else f"ws://{text}")
        port, host = parts.port, parts.hostname
    except ValueError as error:
        _refuse(text, str(error))
    if parts.scheme not in ("ws", "wss") or not host:
        _refuse(text, "write it as ws://host:port or wss://host:port")
    if parts.username is not None or parts.password is not None:
        _refuse(
            text,
            "it has a user name or password, which are not sent: give headers={'Authorization': ...}, or set III_TOKEN",
        )
    if port == 0:
        _refuse(text, "nothing can be reached at port 0")
    if parts.fragment:
        _refuse(text, "it has a '#' part, which a WebSocket address cannot have (RFC 6455 section 3)")
    target = _target(text, parts)
    # urlsplit drops tabs and line ends without a word, so look at the text itself.
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
        _refuse(text, "it has a space or a control character")
    default = 443 if parts.scheme == "wss" else DEFAULT_PORT
    return EngineUrl(_host(text, host), port or default, target, parts.scheme == "wss")


def _refuse(text: str, problem: str) -> NoReturn:
    shown = re.sub(r"(://|^)[^/?#]*@", r"\1...@", text)
    raise MisuseError(f"{shown!a} is not an address of an engine: {problem}")


def _host(text: str, host: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            _refuse(text, str(error))
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        _refuse(text, "its host is not a host name")
    labels = name.removesuffix(".").split(".")
    wrong = [label for label in labels if not re.fullmatch(_LABEL, label)]
    if wrong and len(wrong[0]) > 63:
        _refuse(text, "its host is not a host name: a part has more than 63 characters")
    if wrong or len(name) > _MAX_HOST:
        _refuse(text, "its host is not a host name")
    return name


def _target(text: str, parts: SplitResult) -> str:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not re.fullmatch(_TARGET, target):
        _refuse(text, "percent-encode the characters of its path (urllib.parse.quote)")
    return target


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Encode a user's headers. Raises MisuseError for a name or value that cannot be sent, without showing the value."""
    lines = []
    for name, value in headers.items():
        if not re.fullmatch(_NAME, name) or not re.fullmatch(_VALUE, value):
            raise MisuseError(
                f"the header {name!r} cannot be sent: a name or value has characters that no header may have"
            )
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            raise MisuseError(
                f"the header {name!r} cannot be given: the handshake sets it itself (RFC 6455 section 4.1)"
            )
        lines.append((name.encode(), value.strip().encode("latin-1")))
    return lines
