"""Any URL is read in one way only, or refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import httpcore2
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.triggers.external.addresses import BadUrl, Target, allows_host, is_public, matches

PIECES = st.lists(
    st.sampled_from(
        ["http://", "https:", "//", "/", "\\", "@", ":", "a.example", "evil.example", "127.0.0.1", "[::1]", "%2f", "?", "#",
         "é", "．", " ", "\t", "\r\n", "\x00", "443", "0x7f.1", "..", ";", "user", "%", "[", "]"]
    ),
    max_size=9,
)  # fmt: skip


@given(st.one_of(PIECES.map("".join), st.text(max_size=40)).map(lambda rest: f"https://{rest}"))
def test_X3_what_is_checked_is_what_is_sent(url: str) -> None:
    try:
        target = Target.parse(url)
    except BadUrl as error:
        assert url[8:] not in str(error) or len(url) < 12
        return
    # Nothing in any part could end a line, or be read as another part.
    for part in (target.host, target.path, target.authority):
        assert part.isascii() and part.isprintable() and " " not in part
    assert not set(target.host) & set("/@?#%[]\\") and target.path.startswith("/") and "#" not in target.path
    assert 0 <= target.port <= 65535
    # Another reader of the same parts sees the same host.
    again = httpcore2.URL(f"{target.scheme}://{target.authority}{target.path}")
    assert again.host.decode().strip("[]") == target.host
    # The parts themselves are read alike a second time.
    assert Target.parse(f"{target.scheme}://{target.authority}{target.path}") == target


@given(st.integers(0, 2**32 - 1))
def test_X4_an_address_is_judged_alike_in_each_of_its_ipv6_forms(number: int) -> None:
    plain = IPv4Address(number)
    expected = is_public(str(plain))
    for form in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1):
        assert is_public(str(IPv6Address(form))) == expected, IPv6Address(form)
    # Never looser than the standard library.
    assert not expected or (plain.is_global and not plain.is_private and not plain.is_multicast)


@given(st.integers(0, 2**128 - 1))
def test_X4_no_local_ipv6_address_is_public(number: int) -> None:
    address = IPv6Address(number)
    if is_public(str(address)) and address.ipv4_mapped is None:
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)


def test_X3_patterns_stand_for_text_and_for_nothing_else() -> None:
    assert (
        matches("A.B", ["a.b"])
        and matches("x.b", ["*.b"])
        and not matches("b", ["*.b"])
        and not matches("axb", ["a.b"])
    )
    assert not matches("ab", ["a?"]) and not matches("ab", ["[a]b"]) and not matches("ab\n", ["ab"])
    assert allows_host("a.example.", ("a.example",)) and allows_host("any", ()) and not allows_host("a", ("b",))
