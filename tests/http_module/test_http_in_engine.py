"""The HTTP module as an engine's configuration starts it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization

import iii_trio
from iii_trio.config import Tls
from iii_trio.errors import ConfigError
from iii_trio.triggers.http import Http, HttpConfig, open_http


async def test_an_engine_whose_configuration_names_it_serves_http() -> None:
    config = iii_trio.EngineConfig(modules={"http": HttpConfig(port=0)})
    async with iii_trio.open_engine(config) as engine:
        http = engine.modules["http"]
        assert isinstance(http, Http)
        host, port = http.urls[0].removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")


async def test_an_encrypted_key_is_refused_with_a_sentence_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    issued = trustme.CA().issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(certificate)
    private = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"sesame")
    kind, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(kind, form, encryption))
    http = HttpConfig(port=0, tls=Tls(str(certificate), str(key)))
    with pytest.raises(ConfigError, match="the key is encrypted"):
        async with iii_trio.open_engine(iii_trio.EngineConfig(modules={"http": http})):
            pass


async def test_a_socket_that_was_handed_over_outlives_a_restart_of_the_module() -> None:
    handed = socket.create_server(("127.0.0.1", 0))
    with handed:
        config = HttpConfig(port=1, descriptors=(handed.fileno(),))
        async with iii_trio.open_engine() as engine:
            for _ in range(2):
                async with open_http(engine.address, config) as http:
                    assert http.urls == [f"http://127.0.0.1:{handed.getsockname()[1]}"]
                    async with await trio.open_tcp_stream("127.0.0.1", handed.getsockname()[1]) as stream:
                        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                        assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 404")
            with pytest.raises(iii_trio.ConnectionFailed, match="cannot listen at file descriptor 9999"):
                async with open_http(engine.address, HttpConfig(descriptors=(9999,))):
                    pass
