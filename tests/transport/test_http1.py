"""Heads of connections: read whole or refused in words, also when they come byte by byte."""

from __future__ import annotations

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.errors import PeerError
from iii_trio.transport import http1
from iii_trio.transport.http1 import BadRequest, Head, answer, plain_acceptance, read_head, read_refusal

HEAD = (
    b"GET /ws/channels/c?key=k&dir=read HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Odd: \xff\r\n\r\n"
)


async def read(*pieces: bytes, limit: int = 16_384) -> Head | None:
    near, far = trio.testing.memory_stream_one_way_pair()
    head: list[Head | None] = []

    async def send() -> None:
        for piece in pieces:
            await near.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await near.aclose()

    problem = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            head.append(await read_head(far, limit))
        except BadRequest as error:
            problem = error
    if problem is not None:
        raise problem
    return head[0]


@given(st.lists(st.integers(0, len(HEAD) + 4), max_size=4).map(sorted))
def test_a_head_is_the_same_in_whatever_pieces_it_comes(cuts: list[int]) -> None:
    whole = HEAD + b"rest"
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]
    head = trio.run(lambda: read(*pieces))
    assert head is not None
    head.check_upgrade()
    assert (head.method, head.path, head.query) == ("GET", "/ws/channels/c", "key=k&dir=read")
    assert head.headers["x-odd"] == "\xff" and b"rest".startswith(head.rest)


async def test_nothing_is_no_request() -> None:
    assert await read() is None


async def test_what_other_libraries_see_of_an_upgrade_is_plain() -> None:
    head = await read(HEAD)
    assert head is not None and b"X-Odd" not in head.plain_upgrade()
    again = await read(head.plain_upgrade())
    assert again is not None
    again.check_upgrade()


@pytest.mark.parametrize(
    ("said", "status", "text"),
    [
        (b"GET / HTTP/1.1\r\nHost: x", 400, "ended within its head"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 200 + b"\r\n\r\n", 431, "longer than 100 bytes"),
        (b"y" * 200, 431, "longer than 100 bytes"),
        (b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", 505, "only HTTP/1.1"),
        (b"\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "Host"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "illegal"),
    ],
)
async def test_what_is_no_request_is_refused_in_words(said: bytes, status: int, text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        await read(said, limit=100)
    assert refused.value.status == status and text in refused.value.text


@given(st.binary(max_size=120))
def test_no_bytes_lead_to_anything_but_a_refusal(said: bytes) -> None:
    async def one() -> None:
        head = await read(said + b"\r\n\r\n")
        assert head is not None
        head.check_upgrade()

    with pytest.raises(BadRequest) as refused:  # random bytes never make an upgrade, which needs five fitting lines
        trio.run(one)
    problem = refused.value
    assert problem.status in (400, 403, 405, 414, 426, 431, 501, 505)
    assert problem.text
    # A refusal is a whole HTTP answer, as a client's parser reads it, with the text as its body.
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "engine")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer(problem.status, problem.text.encode(), problem.headers))
    response, body = client.next_event(), client.next_event()
    assert isinstance(response, h11.Response) and response.status_code == problem.status
    assert isinstance(body, h11.Data) and bytes(body.data) == problem.text.encode()
    assert isinstance(client.next_event(), h11.EndOfMessage)


def test_an_answer_says_its_length_and_ends_its_connection() -> None:
    said = answer(200, b"ok", (("Allow", "GET"),))
    head, _, body = said.partition(b"\r\n\r\n")
    assert body == b"ok" and head.startswith(b"HTTP/1.1 200 OK\r\n")
    for line in (b"Content-Length: 2", b"Connection: close", b"Allow: GET", b"Content-Type: text/plain; charset=utf-8"):
        assert line in head


async def refusal(*pieces: bytes) -> tuple[int, bytes]:
    near, far = trio.testing.memory_stream_one_way_pair()
    for piece in pieces[1:]:
        await near.send_all(piece)
    await near.aclose()
    got = await read_refusal(far, pieces[0])
    return got.status, got.body


async def test_a_refusal_is_read_to_its_end_however_it_says_where_that_is() -> None:
    assert await refusal(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nno", b"pe and more") == (404, b"nope")
    assert await refusal(b"HTTP/1.1 404 Not Found\r\n\r\nno", b"pe") == (404, b"nope")
    chunked = b"HTTP/1.1 502 Bad\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nnope\r\n"
    assert await refusal(chunked, b"0\r\n\r\n") == (502, b"nope")
    assert await refusal(b"HTTP/1.1 404 Not Found\r\nContent-Length: 40\r\n\r\nno") == (404, b"no")


async def test_an_endless_refusal_is_read_so_far() -> None:
    status, body = await refusal(b"HTTP/1.1 404 Not Found\r\n\r\n", *[bytes(60_000)] * 10)
    assert status == 404 and len(body) < 200_000


async def test_what_is_no_http_answer_is_the_peers_fault() -> None:
    with pytest.raises(PeerError, match="no HTTP answer"):
        await refusal(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_an_acceptance_is_the_one_of_the_rfc() -> None:
    said = (
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    )
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in plain_acceptance(HEAD, said)
    with pytest.raises(PeerError, match="does not fit"):
        plain_acceptance(HEAD, said.replace(b"s3p", b"s4p"))


NAMES = st.sampled_from(["Host", "host", "Upgrade", "X-A", "X-a", "Content-Length", "Expect", "X_b", "Connection"])
VALUES = st.text('a1 ,;=\t"\x7f\xe9:', max_size=5) | st.sampled_from(["websocket", "x", "0"])


@given(
    st.sampled_from(["/", "/ws/channels/c?key=k", "*", "/a b", "/\xe9"]),
    st.lists(st.tuples(NAMES, st.sampled_from([": ", ":", ":  ", " : "]), VALUES), max_size=4),
    st.sampled_from(["\r\n", "\n"]),
)
def test_the_quick_way_to_read_a_head_is_h11s(target: str, fields: list[tuple[str, str, str]], eol: str) -> None:
    head = f"GET {target} HTTP/1.1" + "".join(eol + "".join(field) for field in fields) + "\r\n\r\n"
    raw = head.encode("latin-1")
    quick = http1._plain_head(raw, b"rest")
    if quick is not None:
        assert quick == http1._any_head(raw, b"rest", 16_384)


def test_usual_heads_are_read_in_the_quick_way() -> None:
    usual = HEAD.replace(b"X-Odd: \xff\r\n", b"User-Agent: Python/3.11 websockets/15.0\r\n")
    assert http1._plain_head(usual, b"") is not None
    assert http1._plain_head(HEAD, b"") is None
