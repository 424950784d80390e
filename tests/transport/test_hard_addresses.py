"""Addresses of engines: what cannot be dialled is refused in a sentence, before anything is opened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import iii_trio
from iii_trio.errors import MisuseError
from iii_trio.transport.dial import SocketAddress
from iii_trio.transport.engine_url import encode_headers, parse_url


@pytest.mark.parametrize(
    ("text", "host", "port", "target", "shown"),
    [
        ("ws://h:1/x?y=z", "h", 1, "/x?y=z", "ws://h:1"),
        ("ws://h", "h", 49134, "/", "ws://h:49134"),
        ("wss://h", "h", 443, "/", "wss://h:443"),
        ("h:1", "h", 1, "/", "ws://h:1"),
        ("127.0.0.1:1", "127.0.0.1", 1, "/", "ws://127.0.0.1:1"),
        ("ws://[::1]:1", "::1", 1, "/", "ws://[::1]:1"),
        ("ws://[fe80::1%eth0]:1", "fe80::1%eth0", 1, "/", "ws://[fe80::1]:1"),
        ("ws://my_host.example.:1", "my_host.example.", 1, "/", "ws://my_host.example.:1"),
        ("ws://bücher.example:1", "xn--bcher-kva.example", 1, "/", "ws://xn--bcher-kva.example:1"),
        (f"ws://{'a' * 63}:1", "a" * 63, 1, "/", f"ws://{'a' * 63}:1"),
        ("ws://h:1/%C3%A9", "h", 1, "/%C3%A9", "ws://h:1"),
        ("ws://h:1?a=b", "h", 1, "/?a=b", "ws://h:1"),
    ],
)
def test_what_an_address_means(text: str, host: str, port: int, target: str, shown: str) -> None:
    address = parse_url(text)
    assert (address.host, address.port, address.target, str(address)) == (host, port, target, shown)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ws://127.0.0.1:0", "port 0"),
        ("ws://127.0.0.1:65536", "Port out of range"),
        ("ws://127.0.0.1:x", "Port could not be cast"),
        ("ws://user:s3cret@h:1", "user name or password"),
        ("user:s3cret@h:1", "user name or password"),
        ("ws://:s3cret@:x", "Port could not be cast"),
        ("ws://h:1/é", "percent-encode"),
        ("ws://h:1/?q=é", "percent-encode"),
        ("ws://h:1/a b", "percent-encode"),
        ("ws://h :1", "a space"),
        ("ws://h\n:1", "control character"),
        ("ws://h:1/#top", "'#' part"),
        (f"ws://{'a' * 64}:1", "more than 63 characters"),
        (f"ws://{'ü' * 64}:1", "not a host name"),
        ("ws://" + "a." * 127 + "example:1", "not a host name"),
        ("ws://a..b:1", "not a host name"),
        ("ws://-a:1", "not a host name"),
        ("ws://a%00b:1", "not a host name"),
        ("ws://[::1", "Invalid IPv6 URL"),
        ("ws://[::x]:1", "not an address of an engine"),
        ("http://h:1", "write it as ws://"),
        ("ws://", "write it as ws://"),
        ("", "write it as ws://"),
        ("unix:", "unix:/path"),
        ("unix:/a\0b", "unix:/path"),
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence(text: str, problem: str) -> None:
    with pytest.raises(MisuseError, match=problem) as refused:
        iii_trio.open_worker(text)
    assert "s3cret" not in str(refused.value)


@given(st.text(max_size=40) | st.text("ws:/@[]%#?.0a\\é ", max_size=20).map("ws://".__add__))
def test_any_text_is_an_address_or_a_misuse(text: str) -> None:
    try:
        address = parse_url(text)
    except MisuseError:
        return
    assert address.target.isascii() and address.authority.isascii() and (address.unix or 0 < address.port < 65536)


@pytest.mark.parametrize(
    "name", ["Host", "hOST", "Connection", "Upgrade", "Sec-WebSocket-Key", "Iii-Session", "Content-Length"]
)
def test_headers_of_the_connection_itself_cannot_be_given(name: str) -> None:
    with pytest.raises(MisuseError, match=f"'{name}' cannot be given"):
        SocketAddress("ws://h:1", headers={name: "x"})


@pytest.mark.parametrize(("name", "value"), [("a b", "x"), ("", "x"), ("a", "s3\ncret"), ("a", "s3cret\u20ac")])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(name: str, value: str) -> None:
    with pytest.raises(MisuseError, match="cannot be sent") as refused:
        encode_headers({name: value})
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_interval_of_pings_is_positive(seconds: float) -> None:
    with pytest.raises(MisuseError, match="channel_ping_seconds"):
        SocketAddress("ws://h:1", channel_ping_seconds=seconds)
