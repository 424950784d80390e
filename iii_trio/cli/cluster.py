"""The options of `iii-trio serve` that make an engine a node of a mesh."""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Sequence
from typing import Final

import attrs
import msgspec

from ..config import EngineConfig, Listener
from ..transport.engine_url import EngineUrl, parse_url
from .exits import UsageError

TOKEN: Final = "III_CLUSTER_TOKEN"
_logger = logging.getLogger("iii_trio.cli")


class ClusterOptions(msgspec.Struct, frozen=True):
    """The options that were given on the command line."""

    store: str | None = None
    advertise: str | None = None
    node: str | None = None


def with_cluster(settings: EngineConfig, options: ClusterOptions) -> EngineConfig:
    """Return the settings with what the options and the environment say of the cluster. Raises UsageError."""
    given = {name: value for name, value in msgspec.structs.asdict(options).items() if value is not None}
    before = settings.modules.get("cluster")
    if before is None and not given:
        return settings
    from ..triggers.cluster.settings import ClusterConfig  # here, so that an engine of its own does not load it

    # Without an address the others could not call here, and with a guessed one they would call elsewhere.
    if before is None and not ("store" in given and "advertise" in given):
        raise UsageError("a node of a mesh needs both --cluster (the store) and --advertise (its own address)")
    _check_store(options.store)
    _check_advertised(options.advertise)
    token = os.environ.get(TOKEN, "").strip()
    # A token in the file is for this engine, one in the environment may be for another program.
    if token and getattr(before, "token", None) is None:
        given["token"] = token
    try:
        cluster = attrs.evolve(before, **given) if before is not None else ClusterConfig(**given)
    except ValueError as error:
        raise UsageError(f"{error} (options --cluster and --advertise, environment variable {TOKEN})") from None
    return attrs.evolve(settings, modules={**settings.modules, "cluster": cluster})


def _check_store(store: str | None) -> None:
    if store is None:
        return
    from ..triggers.cluster.settings import StoreUrl

    try:
        StoreUrl.parse(store)
    except ValueError:
        shown = "" if "@" in store else f"{store!r}, which is "  # a password may be in it
        raise UsageError(
            f"--cluster is {shown}not an address of a store; write it as valkey://host:port/NAME_OF_THE_MESH"
        ) from None


def _check_advertised(address: str | None) -> None:
    # Whatever else may be wrong with it is told by the settings.
    if address is not None and not address.startswith(("ws://", "wss://")):
        raise UsageError(
            f"--advertise is {address!r}, which is not an address of an engine; write it as ws://host:port or wss://host:port"
        )


def warn_of_advertised(settings: EngineConfig, addresses: Sequence[str]) -> None:
    """Log a warning if no listener, of those bound at `addresses`, serves the address that the other nodes are given.

    Also if the one that does admits every program.
    """
    cluster = settings.modules.get("cluster")
    if cluster is None:
        return
    advertised = cluster.advertised
    # A socket that was passed on, or a unix socket, says nothing of a port.
    listeners = [each for each in settings.listeners if each.unix is None and each.port == advertised.port]
    if any(_admits_all(each) for each in listeners):
        _logger.warning(
            "the listener at port %d asks for neither a token (auth) nor a certificate (tls: clients): every program that "
            "reaches it can call every function of the mesh",
            advertised.port,
        )
    if not any(_serves(parse_url(each), advertised) for each in addresses):
        _logger.warning(
            "this engine listens at %s, which does not serve %s: the other nodes reach it only if something passes their "
            "connections on; otherwise correct --advertise, or the listener",
            ", ".join(addresses),
            cluster.advertise,
        )


def _admits_all(listener: Listener) -> bool:
    """Return whether other machines reach a listener, and need nothing to come in."""
    from ..triggers.cluster.settings import is_loopback_host

    # The auth function of a guarded listener decides.
    if is_loopback_host(listener.host) or listener.rbac is not None:
        return False
    return listener.auth is None and (listener.tls is None or listener.tls.clients is None)


def _serves(bound: EngineUrl, advertised: EngineUrl) -> bool:
    """Return whether connections to an address can arrive at a listener, as far as the two tell."""
    if bound.unix is not None or bound.port != advertised.port:
        return False
    here = ipaddress.ip_address(bound.host)
    try:
        return here.is_unspecified or here == ipaddress.ip_address(advertised.host)
    # A name may stand for any address that other machines reach.
    except ValueError:
        return here.is_loopback == (advertised.host == "localhost")
