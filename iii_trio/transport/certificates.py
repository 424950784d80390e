"""The certificates of listeners."""

from __future__ import annotations

import os
import ssl

from ..config import Tls
from ..errors import ConfigError


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the TLS context of a listener. It reads files. Raises ConfigError, which names what cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.num_tickets = 0  # a client that never reads its tickets would turn its own close into a reset
    where = f"{tls.where}: " if tls.where else ""
    files = (tls.certificate, tls.key)
    for file in (*files, tls.clients):
        # No file has a NUL in its name, and Python refuses to ask for one.
        if file is not None and ("\0" in file or not os.access(file, os.R_OK)):
            raise ConfigError(f"{where}`tls` names {file}, which is not there, or cannot be read")
    try:
        context.load_cert_chain(*files, password=_no_password)
    except (ssl.SSLError, OSError, _Encrypted) as error:
        named = " and ".join(file for file in files if file is not None)
        raise ConfigError(f"{where}`tls` names {named}, which cannot be used: {error}") from None
    if tls.clients is not None:
        try:
            context.load_verify_locations(tls.clients)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"{where}`tls` names {tls.clients}, which cannot be used: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(authority: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Return the TLS context of a node that dials others. It reads files. Raises ConfigError, which names the field.

    `authority` is what the others' certificates are checked with (None: the system's certificates). `certificate` and
    `key` are what this node shows to those that ask for it.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"'authority' names {authority}, which cannot be used: {_cause(error)}") from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, OSError, _Encrypted) as error:
            named = certificate if key is None else f"{certificate}, and 'key' {key}"
            raise ConfigError(f"'certificate' names {named}, which cannot be used: {_cause(error)}") from None
    return context


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class _Encrypted(Exception):
    """The private key is encrypted, and there is no password for it."""


def _no_password() -> str:
    raise _Encrypted("the key is encrypted; store it in the clear, readable for the engine only")
