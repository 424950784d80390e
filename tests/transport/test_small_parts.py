"""Small parts of the transports, each alone: causes in words, masks, abandoned sockets, headers of identities."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from iii_trio.errors import ConnectionFailed, PeerError
from iii_trio.transport.dial import SocketAddress, _explain, _identity_headers, _Masks
from iii_trio.transport.frames import CLOSE, PING, PONG, frame, split_controls
from iii_trio.transport.link import Identity
from iii_trio.transport.listen import ListeningSocket, _is_abandoned
from iii_trio.transport.socket import Socket
from iii_trio.transport.upgrade import read_answer
from iii_trio.wire import Ref


def caused(cause: BaseException, error: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def ssl_error(reason: str | None, text: str = "text") -> ssl.SSLError:
    error = ssl.SSLError(1, text)
    error.reason = reason  # type: ignore[assignment]
    return error


def certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "text")
    error.verify_message = "self-signed certificate"
    return error


REFUSED = OSError(errno.ECONNREFUSED, "refused")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (REFUSED, os.strerror(errno.ECONNREFUSED)),
        (OSError("words"), "words"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (certificate_error(), "its certificate is not trusted: self-signed certificate"),
        (ssl_error("WRONG_VERSION_NUMBER"), "it speaks no TLS there; write ws:// if that is meant"),
        (ssl_error("RECORD_LAYER_FAILURE"), "it speaks no TLS there; write ws:// if that is meant"),
        (ssl_error("TLSV1_ALERT"), "no TLS: TLSV1_ALERT"),
        (ssl_error(None), f"no TLS: {ssl_error(None)}"),
        (ExceptionGroup("all", [REFUSED, OSError("other")]), os.strerror(errno.ECONNREFUSED)),
        (caused(ExceptionGroup("all", [REFUSED]), OSError("all attempts failed")), os.strerror(errno.ECONNREFUSED)),
        (caused(REFUSED, trio.BrokenResourceError("broken")), os.strerror(errno.ECONNREFUSED)),
        (caused(ValueError("odd"), trio.BrokenResourceError("broken")), "broken"),
        (trio.BrokenResourceError("broken"), "broken"),
    ],
)
def test_the_cause_of_a_failure_in_words(error: BaseException, text: str) -> None:
    assert _explain(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (REFUSED, os.strerror(errno.ECONNREFUSED)),
        (trio.BrokenResourceError("broken"), "broken"),
        (caused(REFUSED, trio.BrokenResourceError("broken")), os.strerror(errno.ECONNREFUSED)),
        (None, "no connection within 3 s"),
    ],
)
async def test_a_dial_that_fails_names_the_engine_and_the_cause(
    error: Exception | None, text: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def dial() -> trio.abc.Stream:
        if error is None:
            await trio.sleep_forever()
        raise error  # type: ignore[misc]

    address = SocketAddress("ws://there:1", dial=dial, connect_seconds=3)
    with pytest.raises(ConnectionFailed) as failed:
        await address.open_end(Ref("c", "k", "write"), None, [])  # type: ignore[arg-type]
    assert str(failed.value) == f"no engine at ws://there:1: {text}"
    assert trio.current_time() == (3 if error is None else 0)


def test_masks_are_four_fresh_bytes_each() -> None:
    masks = _Masks()
    made = [masks() for _ in range(600)]
    assert {len(mask) for mask in made} == {4} and len(set(made)) > 590
    drawn: list[int] = []

    def random(n: int) -> bytes:
        drawn.append(n)
        return bytes(index % 256 for index in range(n))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", random)
        fresh = _Masks()
        assert [fresh() for _ in range(257)] == [bytes([4 * n % 256 + k for k in range(4)]) for n in [*range(256), 0]]
    assert drawn == [1024, 1024]


def test_an_identity_travels_in_headers() -> None:
    assert _identity_headers(None) == []
    assert _identity_headers(Identity("w", "s")) == [(b"Iii-Session", b"w s")]
    assert _identity_headers(Identity("w", "s", "i")) == [(b"Iii-Session", b"w s"), (b"Iii-Invocation", b"i")]


def test_only_a_unix_socket_without_a_listener_is_abandoned(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    assert not _is_abandoned(path)
    assert not _is_abandoned(str(tmp_path))
    (tmp_path / "file").write_text("x")
    assert not _is_abandoned(str(tmp_path / "file"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert not _is_abandoned(path)
    assert _is_abandoned(path)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        assert not _is_abandoned(path)


async def test_what_is_no_listening_stream_socket_is_not_adopted(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    packets = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    packets.bind(str(tmp_path / "packets"))
    packets.listen()
    for sock in (ours, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(), packets):
        with sock, pytest.raises(Exception, match="it is not a listening stream socket"):
            ListeningSocket.adopt(sock.fileno())
    with pytest.raises(Exception, match="cannot listen at file descriptor 9999: "):
        ListeningSocket.adopt(9999)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.set_inheritable(listener.fileno(), True)
        adopted = ListeningSocket.adopt(os.dup(listener.fileno()))
        assert adopted.port == listener.getsockname()[1] and not adopted._sock.get_inheritable()
        assert adopted.url() == f"ws://127.0.0.1:{adopted.port}"
        assert adopted.url(secure=True) == f"wss://127.0.0.1:{adopted.port}"
        adopted.set_mode(0o600)
        adopted.close()
        adopted.close()


@pytest.mark.parametrize("parts", [1, 2, 3, 512])
async def test_a_write_takes_all_parts_at_once(parts: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        stream = Socket(ours)
        assert stream.write_now([b"abc"] * parts) == 3 * parts
        assert theirs.recv(10_000) == b"abc" * parts
        stream.close()


@pytest.mark.parametrize("masked", [False, True])
def test_controls_are_split_one_by_one(masked: bool) -> None:
    mask = b"mask" if masked else None
    made = [frame(opcode, bytes(size), mask=mask) for opcode in (PING, PONG, CLOSE) for size in (0, 1, 2, 125)]
    assert split_controls(b"".join(made)) == made and split_controls(b"") == []


async def test_the_cause_of_a_missing_answer_is_cut() -> None:
    class Long(trio.abc.ReceiveStream):
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise self.error

        async def aclose(self) -> None:
            raise AssertionError

    cases: list[tuple[Any, str]] = [
        (trio.BrokenResourceError("x" * 201), "x" * 200),
        (trio.BrokenResourceError(), "the connection broke"),
        (caused(OSError("why"), trio.BrokenResourceError()), "why"),
    ]
    for error, text in cases:
        with pytest.raises(PeerError) as failed:
            await read_answer(Long(error), b"")
        assert str(failed.value) == f"no HTTP answer to the upgrade: {text}"
