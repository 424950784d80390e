"""Settings of the cluster module."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from attrs import validators

from ...errors import MisuseError
from ...records import settings
from ...transport.engine_url import EngineUrl, parse_url

_NODE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MESH: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_positive: Any = validators.and_(validators.gt(0), validators.le(86_400))


@settings
class StoreUrl:
    """A checked address of a store: `valkey://user:password@host:port/mesh`, or `valkeys://` for TLS."""

    host: str
    port: int
    mesh: str
    secure: bool = False
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Read an address. Raises ValueError, which never shows a password."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        mesh = parts.path.strip("/") if host else ""
        if not host or parts.scheme not in ("valkey", "valkeys") or not _MESH.fullmatch(mesh):
            raise ValueError("'store' is not an address of a store: write it as valkey://host:port/NAME_OF_THE_MESH")
        return cls(host, port or 6379, mesh, parts.scheme == "valkeys", parts.username, parts.password)

    def __str__(self) -> str:
        return f"{'valkeys' if self.secure else 'valkey'}://{self.host}:{self.port}/{self.mesh}"


@settings
class ClusterConfig:
    """One node of a mesh."""

    store: str = attrs.field(repr=False)
    """Where the nodes meet: `valkey://host:port/NAME`. The nodes of one mesh give the same."""
    advertise: str
    """The address by which the other nodes reach this engine's listener for workers: `ws://10.0.0.5:49134`."""
    node: str | None = attrs.field(
        default=None, validator=validators.optional(validators.matches_re(_NODE, func=re.fullmatch))
    )
    """The name of this node, of letters, digits, `-` and `_`. None: the first part of the engine's id, new at each start."""
    token: str | None = attrs.field(default=None, repr=False, metadata={"secret": True, "give": "a string"})
    """What this node shows to the listeners of the others, as a bearer token. Unless all nodes are on one machine, this or a
    `certificate` is needed."""
    authority: str | None = None
    """A file with the certificates that `wss://` addresses of the others are checked with. None: those of the system."""
    certificate: str | None = None
    """A file with the certificate, in PEM, that this node shows to `wss://` listeners of the others that ask for one."""
    key: str | None = None
    """A file with its private key. None: it is in the certificate's file."""
    lease_seconds: float = attrs.field(default=10.0, validator=_positive)
    """How long a node that is not heard of counts as there. All nodes should give the same."""

    def __attrs_post_init__(self) -> None:
        StoreUrl.parse(self.store)
        advertised = self.advertised
        if self.key is not None and self.certificate is None:
            raise ValueError("'key' is the key of a 'certificate', and there is none")
        # Every program that reaches a listener which asks for neither could call every function of the mesh.
        if self.token is None and not is_loopback_host(advertised.host):
            if self.certificate is None:
                raise ValueError(
                    f"'advertise' names {advertised.host}, which other machines can reach, and there is no 'token' and no "
                    "'certificate': give what the listeners of all nodes ask for"
                )
            if not advertised.secure:
                raise ValueError(
                    f"'advertise' is {self.advertise}, where no certificate is shown, and there is no 'token': "
                    "advertise a wss:// address, or give the token that the listeners of all nodes ask for"
                )

    @property
    def advertised(self) -> EngineUrl:
        """The advertised address, in parts. Raises ValueError if it cannot be dialled from another machine."""
        try:
            url = parse_url(self.advertise)
        except MisuseError as error:
            raise ValueError(f"'advertise' cannot be used: {error}") from None
        # The other nodes take the text as it is, so it has to be whole.
        if url.unix is not None or "://" not in self.advertise:
            raise ValueError(
                "'advertise' is not an address of an engine: write it as ws://host:port or wss://host:port"
            )
        return url

    @property
    def url(self) -> StoreUrl:
        """The address of the store, in parts."""
        return StoreUrl.parse(self.store)


def is_loopback_host(host: str) -> bool:
    """Return whether only programs of this machine reach a host."""
    # Another name of this machine may have addresses that others reach.
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
