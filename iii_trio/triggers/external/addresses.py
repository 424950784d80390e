"""Hosts, URLs and network addresses that calls may go to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import quote, urlsplit

import attrs

from ...records import frozen

_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
"""What no URL holds. Some readers of URLs drop these characters, and so see another host."""
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}


class BadUrl(ValueError):
    """A text is not a URL that could be called."""


@frozen
class Target:
    """The parts of a URL, which is read once only. So the host that is checked is the host that is called."""

    scheme: str
    host: str
    """In lower case, and without the brackets of an IPv6 address."""
    port: int
    path: str = attrs.field(repr=False)
    """The path and the query, which can hold secrets."""

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read a URL. Raises BadUrl, whose text does not repeat the URL."""
        if _FORBIDDEN.search(url):
            raise BadUrl("it holds a space, a control character or a backslash")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise BadUrl("its host or port cannot be read") from None
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            raise BadUrl("write it as https://host/path")
        if "@" in parts.netloc:
            raise BadUrl("it holds a user name; use `auth`, or `headers`")
        host = _ascii(parts.hostname or "")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{_query(parts.query)}" if parts.query else "")
        return cls(scheme, host, port if port is not None else _PORTS[scheme], path)

    @property
    def authority(self) -> str:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def _query(query: str) -> str:
    return quote(query, safe="/%:@!$&'()*+,;=~-._?")


def _ascii(host: str) -> str:
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            raise BadUrl("its host is not a name") from None
    if _HOST.fullmatch(host) is None:
        raise BadUrl("its host is not a name")
    return host.lower()


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name fits one of the patterns, in which `*` stands for any text. Letter case does not count."""
    return any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.IGNORECASE | re.DOTALL)
        for pattern in patterns
    )


def allows_host(host: str, patterns: tuple[str, ...]) -> bool:
    """Return whether an allow list allows a host. An empty list allows all."""
    return not patterns or matches(host.removesuffix("."), [pattern.removesuffix(".") for pattern in patterns])


def is_public(address: str) -> bool:
    """Return whether an address belongs to a machine on the public internet.

    An IPv6 address that stands for an IPv4 address is judged as the latter.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast
    inner = _inner(ip)
    if inner is not None:
        return inner.is_global and not inner.is_multicast
    return ip in _GLOBAL_UNICAST and ip.is_global


def _inner(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that the network makes of an IPv6 address, or None."""
    if ip.ipv4_mapped is not None or ip.sixtofour is not None:
        return ip.ipv4_mapped or ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    # Gateways translate these (RFC 6052), and `::a.b.c.d` is an old form of the mapped address.
    if ip in _NAT64 or int(ip) >> 32 == 0:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None
