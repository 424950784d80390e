"""Heads of connections: read whole or refused in words, also when they come byte by byte."""

from __future__ import annotations

import h11
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.errors import PeerError
from iii_trio.transport.http1 import BadRequest, Head, HeadParser, answer, read_head
from iii_trio.transport.upgrade import Acceptance, Refusal, read_answer

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
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "only HTTP/1.1"),
        (b"\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "Host"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "illegal"),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400, "ends with LF alone"),
        (b"GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400, "ends with LF alone"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: y\r\n z\r\n\r\n", 400, "begins with white space"),
        (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400, "begins with white space"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\tX: y\r\n\r\n", 400, "begins with white space"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "request line: it is empty"),
        (b"GET http:///healthz HTTP/1.1\r\n\r\n", 400, "Host header is missing"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            400,
            "different Content-Length",
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "only Transfer-Encoding: chunked"),
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


@pytest.mark.parametrize(
    "begun",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS ClientHello
        b"GET / HTTP/1.1\n",
        b"\r\n\x00",
    ],
)
def test_bytes_that_begin_no_request_are_refused_without_waiting_for_more(begun: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        HeadParser(1000).feed(begun)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("said", "target", "host"),
    [
        (b"\r\nGET /healthz?a=b HTTP/1.1\r\nHost: x\r\n\r\n", "/healthz?a=b", "x"),
        (b"GET http://h:1/healthz?a=b HTTP/1.1\r\nHost: x\r\n\r\n", "/healthz?a=b", "h:1"),
        (b"GET ws://h HTTP/1.1\r\nHost: x\r\n\r\n", "/?", "h"),
        (b"GET http://h?a=http://b HTTP/1.1\r\nHost: x\r\n\r\n", "/?a=http://b", "h"),
        (b"GET /http://h HTTP/1.1\r\nHost: x\r\n\r\n", "/http://h?", "x"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", "/healthz?", None),
    ],
)
async def test_every_form_of_a_request_of_rfc_9112_is_understood(said: bytes, target: str, host: str | None) -> None:
    head = await read(said)
    assert head is not None and head.headers.get("host") == host
    assert f"{head.path}?{head.query}" in (target, target + "?")


async def test_the_lines_of_a_field_are_one_list() -> None:
    head = await read(
        HEAD.replace(b"keep-alive, Upgrade", b"Upgrade\r\nConnection: keep-alive").replace(
            b"WebSocket\r", b"websocket, h2c\r"
        )
    )
    assert head is not None
    head.check_upgrade()
    assert head.headers["connection"] == "Upgrade, keep-alive"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"Sec-WebSocket-Key: c2Vjb25kIHNhbXBsZSBub25jZQ==", "more than once"),
        (b"Content-Length: 5", "an upgrade has no body"),
        (b"Transfer-Encoding: chunked", "an upgrade has no body"),
    ],
)
async def test_an_upgrade_whose_bytes_two_readers_could_read_differently_is_refused(line: bytes, text: str) -> None:
    head = await read(HEAD.replace(b"X-Odd: \xff", line))
    assert head is not None
    with pytest.raises(BadRequest, match=text) as refused:
        head.check_upgrade()
    assert refused.value.status == 400


async def test_an_empty_body_is_none() -> None:
    head = await read(HEAD.replace(b"X-Odd: \xff", b"Content-Length: 00"))
    assert head is not None
    head.check_upgrade()


@pytest.mark.parametrize("line", [b"Authorization Bearer s3cret", b"Author ization: Bearer s3cret", b"X: s3cret\x00"])
async def test_a_refusal_names_the_rule_and_not_the_line(line: bytes) -> None:
    with pytest.raises(BadRequest, match="a header line is not `name: value`") as refused:
        await read(b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
    assert "s3cret" not in str(refused.value) and "s3cret" not in refused.value.text


async def answered(*pieces: bytes) -> Acceptance | Refusal:
    near, far = trio.testing.memory_stream_one_way_pair()

    async def send() -> None:
        for piece in pieces:
            await near.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        await near.aclose()

    got: list[Acceptance | Refusal] = []
    problem: PeerError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            got.append(await read_answer(far, HEAD))
        except PeerError as error:
            problem = error
    if problem is not None:
        raise problem
    return got[0]


async def refusal(*pieces: bytes) -> tuple[int, bytes]:
    got = await answered(*pieces)
    assert isinstance(got, Refusal)
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


ACCEPTANCE = (
    b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def test_an_acceptance_is_the_one_of_the_rfc() -> None:
    got = await answered(ACCEPTANCE + b"\x81\x00")
    assert isinstance(got, Acceptance) and got.rest == b"\x81\x00"
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in got.head
    with pytest.raises(PeerError, match="does not fit"):
        await answered(ACCEPTANCE.replace(b"s3p", b"s4p"))


@pytest.mark.parametrize(
    "said",
    [
        ACCEPTANCE.replace(b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection: keep-alive"),
        ACCEPTANCE.replace(b"Upgrade: websocket", b"Upgrade: h2c\r\nUpgrade: WebSocket"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTANCE,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + ACCEPTANCE,
    ],
)
async def test_an_acceptance_may_have_field_lines_to_join_and_interim_answers_before_it(said: bytes) -> None:
    for pieces in ([said], [said[i : i + 1] for i in range(len(said))]):
        assert isinstance(await answered(*pieces), Acceptance)


async def test_a_connection_field_that_merely_contains_the_word_grants_nothing() -> None:
    with pytest.raises(PeerError, match="something else"):
        await answered(ACCEPTANCE.replace(b"Connection: Upgrade", b"Connection: upgrade-insecure"))


async def test_an_answer_in_tls_says_which_scheme_to_write() -> None:
    with pytest.raises(PeerError, match="write wss:// instead of ws://"):
        await answered(b"\x15\x03\x01\x00\x02\x02\x46")


async def test_an_end_before_an_answer_is_said() -> None:
    with pytest.raises(PeerError, match="ended before an answer"):
        await answered()
