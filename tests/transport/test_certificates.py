"""The TLS context of a listener: what cannot be used is named, with its place."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from iii_trio.config import Tls
from iii_trio.errors import ConfigError
from iii_trio.transport.certificates import client_context, server_context


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    made = trustme.CA().issue_cert("here")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made.cert_chain_pems[0].write_to_path(str(certificate))
    made.private_key_pem.write_to_path(str(key))
    return certificate, key


def test_a_context_serves_and_gives_no_tickets(files: tuple[Path, Path]) -> None:
    certificate, key = files
    context = server_context(Tls(str(certificate), str(key)))
    # A client that never reads its tickets would turn its own close into a reset.
    assert context.num_tickets == 0 and context.protocol is ssl.PROTOCOL_TLS_SERVER
    assert context.verify_mode is ssl.CERT_NONE


def test_a_key_may_be_in_the_file_of_the_certificate(files: tuple[Path, Path]) -> None:
    certificate, key = files
    certificate.write_bytes(key.read_bytes() + certificate.read_bytes())
    server_context(Tls(str(certificate)))


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_is_not_there_is_named(files: tuple[Path, Path], missing: int) -> None:
    files[missing].unlink()
    certificate, key = map(str, files)
    with pytest.raises(ConfigError) as refused:
        server_context(Tls(certificate, key))
    assert str(refused.value) == f"`tls` names {files[missing]}, which is not there, or cannot be read"
    with pytest.raises(ConfigError) as refused:
        server_context(Tls(certificate, key, where="listeners[2]"))
    assert str(refused.value).startswith("listeners[2]: `tls` names ")


def test_files_that_do_not_belong_together_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = files
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("there").private_key_pem.write_to_path(str(other))
    for second in (other, certificate):
        with pytest.raises(ConfigError, match=f"`tls` names {certificate} and {second}, which cannot be used: "):
            server_context(Tls(str(certificate), str(second)))
    with pytest.raises(ConfigError, match=f"at 3: `tls` names {key}, which cannot be used: "):
        server_context(Tls(str(key), where="at 3"))


def test_clients_are_asked_for_certificates_of_an_authority(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = map(str, files)
    authority = tmp_path / "authority.pem"
    with pytest.raises(ConfigError, match=f"`tls` names {authority}, which is not there"):
        server_context(Tls(certificate, key, clients=str(authority)))
    # A key is not a certificate, and an empty list of authorities would admit nobody.
    for content in (files[1].read_bytes(), b""):
        authority.write_bytes(content)
        with pytest.raises(ConfigError, match=f"at 3: `tls` names {authority}, which cannot be used: "):
            server_context(Tls(certificate, key, clients=str(authority), where="at 3"))
    trustme.CA().cert_pem.write_to_path(str(authority))
    context = server_context(Tls(certificate, key, clients=str(authority)))
    # The authorities of the system are none of these.
    assert context.verify_mode is ssl.CERT_REQUIRED and len(context.get_ca_certs()) == 1


def test_what_a_node_shows_is_named_if_it_cannot_be_used(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = map(str, files)
    with pytest.raises(ConfigError, match=r"'authority' names /nowhere\.pem, which cannot be used: No such file"):
        client_context("/nowhere.pem", None, None)
    with pytest.raises(ConfigError, match=f"'certificate' names {key}, which cannot be used: "):
        client_context(None, key, None)
    with pytest.raises(ConfigError, match=rf"'certificate' names {certificate}, and 'key' /nowhere\.pem, which cannot"):
        client_context(None, certificate, "/nowhere.pem")
    assert client_context(None, certificate, key).verify_mode is ssl.CERT_REQUIRED


def test_an_encrypted_key_is_refused_with_a_reason_and_asks_nobody(files: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = files
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="the key is encrypted; store it in the clear"):
        server_context(Tls(str(certificate), str(encrypted)))
