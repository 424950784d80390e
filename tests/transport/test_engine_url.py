"""Addresses of engines: each fault is told when the address is given."""

from __future__ import annotations

import pytest

import iii_trio
from iii_trio.errors import MisuseError
from iii_trio.transport.engine_url import parse_url


@pytest.mark.parametrize(
    ("text", "shown", "authority", "target"),
    [
        ("ws://127.0.0.1:1234", "ws://127.0.0.1:1234", "127.0.0.1:1234", "/"),
        ("127.0.0.1", "ws://127.0.0.1:49134", "127.0.0.1:49134", "/"),
        ("wss://h/p?a=b%20c", "wss://h:443", "h:443", "/p?a=b%20c"),
        ("ws://[::1]:1", "ws://[::1]:1", "[::1]:1", "/"),
        ("ws://bücher.example", "ws://xn--bcher-kva.example:49134", "xn--bcher-kva.example:49134", "/"),
        ("unix:/run/e", "unix:/run/e", "localhost:49134", "/"),
        ("unix:///run/e", "unix:/run/e", "localhost:49134", "/"),
    ],
)
def test_an_address_is_read(text: str, shown: str, authority: str, target: str) -> None:
    url = parse_url(text)
    assert (str(url), url.authority, url.target) == (shown, authority, target)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ws://127.0.0.1:0", "port 0"),
        ("ws://127.0.0.1:99999", "Port out of range"),
        ("ws://127.0.0.1:x", "Port could not be cast"),
        ("ws://user:secret@h:1", "Authorization"),
        ("ws://user@h:1", "Authorization"),
        ("user:secret@h:1", "Authorization"),
        ("ws://h:1/é", "percent-encode"),
        ("ws://h:1/a b", "percent-encode"),
        ("ws://h:1/?q=\udcff", "percent-encode"),
        (f"ws://{'a' * 64}:1", "not a host name"),
        ("ws://a..b:1", "not a host name"),
        ("ws://[::1:1", "not an address"),
        ("ws://h:1/#here", "'#'"),
        ("http://h:1", "ws://host:port"),
        ("ws://", "ws://host:port"),
        ("", "ws://host:port"),
        ("ws://h\t:1", "a space or a control character"),
        ("ws://h:1\n", "a space or a control character"),
        ("ws://h\x7f:1", "a space or a control character"),
        ("unix:", "unix:/path"),
        ("unix:/a\0b", "unix:/path"),
    ],
)
def test_an_address_that_is_none_is_refused(text: str, problem: str) -> None:
    with pytest.raises(MisuseError) as caught:
        iii_trio.open_worker(text)
    assert problem in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["Host", "connection", "UPGRADE", "Sec-WebSocket-Key", "Content-Length", "Transfer-Encoding", "Iii-Session"]
)
def test_a_header_of_the_handshake_is_refused(name: str) -> None:
    with pytest.raises(MisuseError, match="handshake"):
        iii_trio.open_worker("ws://h:1", headers={name: "x"})
