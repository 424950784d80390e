"""Where an engine listens, and whom it lets in: TLS, unix sockets, tokens, sockets handed over, time for a handshake."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

import iii_trio
from iii_trio import Listener, ListenerLimits
from iii_trio.config import Auth, EngineConfig, Limits, Tls
from iii_trio.errors import ConfigError, ConnectionFailed, MisuseError
from tests.helpers.bare import Bare, within

SECONDS = 20
TOKENS = Auth(tokens=("correct horse", "battery staple"))


@pytest.fixture(autouse=True)
def no_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("III_TOKEN", raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> Tls:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return Tls(str(certificate), str(key))


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@asynccontextmanager
async def listening(
    *listeners: Listener, limits: Limits | None = None
) -> AsyncIterator[tuple[iii_trio.Engine, list[str]]]:
    """An engine that listens there, and must hold nothing at the end."""
    async with iii_trio.open_engine(EngineConfig(listeners=listeners, limits=limits or Limits())) as engine:
        yield engine, await engine.listen()


@asynccontextmanager
async def dialled(url: str) -> AsyncIterator[Bare]:
    stream: trio.SocketStream
    if url.startswith("unix:"):
        stream = await trio.open_unix_socket(url.removeprefix("unix:"))
    else:
        stream = await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))
    async with stream:
        yield Bare(stream)


async def use(address: str, **options: object) -> None:
    """A call and a stream between two workers of the engine there."""
    async with (
        iii_trio.open_worker(address, name="files", **options) as files,  # type: ignore[arg-type]
        iii_trio.open_worker(address, name="app", **options) as app,  # type: ignore[arg-type]
    ):

        @files.function("files::size")
        async def size(reader: iii_trio.ChannelReader) -> int:
            return sum([len(chunk) async for chunk in reader.chunks()])

        await files.trigger("engine::workers::list", {})
        async with app.create_channel() as channel, trio.open_nursery() as nursery:

            async def write() -> None:
                async with channel.writer:
                    for _ in range(20):
                        await channel.writer.send(bytes(50_000))

            nursery.start_soon(write)
            assert await app.trigger("files::size", {"reader": channel.reader_ref}) == 1_000_000


# --- TLS


@within(SECONDS)
async def test_calls_and_streams_over_tls_and_parting_takes_no_time(tls: Tls, trusting: ssl.SSLContext) -> None:
    async with listening(Listener(port=0, tls=tls)) as (engine, (url,)):
        assert url.startswith("wss://127.0.0.1:")
        begun = trio.current_time()
        await use(url, ssl_context=trusting)
        assert trio.current_time() - begun < 1.9, (
            "each goodbye was waited for in vain"
        )  # as leaving is shielded for 2 s
        with trio.fail_after(5):
            while any((engine.statistics().connections, engine.statistics().sessions)):  # noqa: ASYNC110
                await trio.sleep(0.005)


@within(SECONDS)
async def test_a_certificate_that_is_not_trusted_is_said_in_one_sentence(tls: Tls) -> None:
    async with listening(Listener(port=0, tls=tls)) as (_, (url,)):
        with pytest.raises(ConnectionFailed, match="its certificate is not trusted: "):
            async with iii_trio.open_worker(url):
                pass


@within(SECONDS)
async def test_who_speaks_no_tls_at_a_tls_listener_harms_nobody(tls: Tls, trusting: ssl.SSLContext) -> None:
    async with listening(Listener(port=0, tls=tls)) as (engine, (url,)):
        async with dialled(url) as bare:
            assert await bare.get("/healthz") == 400 and "this listener speaks TLS: use wss://" in bare.said
        with pytest.raises(ConnectionFailed, match="this listener speaks TLS: use wss://"):
            await use(url.replace("wss:", "ws:"))
        await use(url, ssl_context=trusting)
        assert engine.statistics().sessions <= 2


@within(SECONDS)
async def test_tls_at_a_plain_listener_is_refused_at_once() -> None:
    async with listening(Listener(port=0)) as (_, (url,)):
        begun = trio.current_time()
        with pytest.raises(ConnectionFailed, match="it speaks no TLS there; write ws://"):
            await use(url.replace("ws:", "wss:"))
        assert trio.current_time() - begun < 3, "the time for a handshake is 10 s"


@within(SECONDS)
async def test_a_tls_handshake_that_is_never_finished_ends_with_the_listeners_own_time(tls: Tls) -> None:
    quick, slow = Listener(port=0, tls=tls, limits=ListenerLimits(handshake_seconds=0.05)), Listener(port=0)
    async with listening(quick, slow) as (_, (url, other)):
        async with dialled(url) as bare, dialled(other) as patient:
            await bare.stream.send_all(b"\x16")
            assert await bare.stream.receive_some() == b""
            await patient.stream.send_all(b"GET / HTTP/1.1\r\n")
            with trio.move_on_after(0.2) as patience:
                await patient.stream.receive_some()
            assert patience.cancelled_caught  # the engine's own limit is 10 s


@pytest.mark.parametrize("broken", ["absent", "not PEM", "encrypted"])
@within(SECONDS)
async def test_files_that_cannot_be_used_are_named_and_nothing_is_bound(tls: Tls, tmp_path: Path, broken: str) -> None:
    assert tls.key is not None
    key = tmp_path / "broken.pem"
    if broken == "not PEM":
        key.write_text("secret")
    elif broken == "encrypted":
        key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n")
    async with iii_trio.open_engine() as engine:
        with pytest.raises(ConfigError, match=r"broken\.pem"):
            await engine.listen(Listener(port=0), Listener(port=0, tls=Tls(tls.certificate, str(key))))
        assert engine.statistics().connections == 0


# --- unix sockets


@within(SECONDS)
async def test_calls_and_streams_over_a_unix_socket_which_is_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    async with listening(Listener(unix=str(path))) as (_, addresses):
        assert addresses == [f"unix:{path}"]
        await use(addresses[0])
        await use(f"unix://{path}")
        async with dialled(addresses[0]) as bare:
            assert await bare.get("/healthz") == 200
    assert not path.exists()


@within(SECONDS)
async def test_a_socket_of_a_dead_engine_is_replaced_and_a_live_ones_is_not(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with listening(Listener(unix=str(path))):
        async with iii_trio.open_engine() as second:
            with pytest.raises(ConnectionFailed, match="another server listens there"):
                await second.listen(Listener(unix=str(path)))
        assert stat.S_ISSOCK(os.stat(path).st_mode)


@within(SECONDS)
async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    async with iii_trio.open_engine() as engine:
        with pytest.raises(ConnectionFailed, match="another kind of file"):
            await engine.listen(Listener(unix=str(path)))
    assert path.read_text() == "data"


@within(SECONDS)
async def test_a_socket_that_took_the_place_of_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    async with listening(Listener(unix=str(path))):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    with other:
        assert path.exists()


# --- tokens


@within(SECONDS)
async def test_without_a_token_or_with_a_wrong_one_the_answer_is_401_before_the_upgrade() -> None:
    async with listening(Listener(port=0, auth=TOKENS)) as (engine, (url,)):
        for shown in (
            None,
            "Bearer correct",
            "Bearer correct horses",
            "correct horse",
            "Basic correct horse",
            "Bearer \xff",
        ):
            async with dialled(url) as bare:
                headers = {} if shown is None else {"Authorization": shown}
                assert await bare.ask("/", **headers) == 401, shown
                assert "WWW-Authenticate: Bearer" in bare.said
        assert engine.statistics().sessions == 0
        async with dialled(url) as bare:
            assert await bare.ask("/", Authorization="bearer  battery staple") == 101
        async with dialled(url) as bare:
            assert await bare.get("/healthz") == 200


@within(SECONDS)
async def test_our_workers_show_a_token_that_they_are_given_or_find_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening(Listener(port=0, auth=TOKENS)) as (_, (url,)):
        with pytest.raises(ConnectionFailed, match="HTTP 401: a token is needed here"):
            async with iii_trio.open_worker(url):
                pass
        await use(url, headers={"authorization": "Bearer correct horse"})
        monkeypatch.setenv("III_TOKEN", " battery staple\n")
        await use(url)
        with pytest.raises(ConnectionFailed, match="401"):
            async with iii_trio.open_worker(url, headers={"AUTHORIZATION": "Bearer wrong"}):
                pass


@within(SECONDS)
async def test_headers_that_cannot_be_sent_are_refused_at_once() -> None:
    for headers in ({"X": "a\r\nY: b"}, {"X Y": "a"}, {"": "a"}):
        with pytest.raises(MisuseError, match="cannot be sent"):
            iii_trio.open_worker("ws://127.0.0.1:1", headers=headers)


@pytest.mark.parametrize(("channels", "bare_answer"), [("key", 101), ("key_and_token", 401)])
@within(SECONDS)
async def test_a_channels_end_shows_its_key_and_where_it_is_so_configured_the_token(
    channels: str, bare_answer: int
) -> None:
    auth = Auth(tokens=("t",), channels=channels)  # type: ignore[arg-type]
    async with listening(Listener(port=0, auth=auth)) as (engine, (url,)):
        async with engine.open_worker("owner") as owner, owner.create_channel() as channel:
            ref = channel.reader_ref
            target = f"/ws/channels/{ref.channel_id}?key={ref.access_key}&dir=read"
            for path in (target, "/otel"):
                async with dialled(url) as bare:
                    assert await bare.ask(path) == bare_answer
            if bare_answer == 401:
                async with dialled(url) as bare:
                    assert await bare.ask(target, Authorization="Bearer t") == 101
        await use(url, headers={"Authorization": "Bearer t"})  # our ends show it, too


@within(SECONDS)
async def test_a_token_file_has_one_token_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# for the workers of team A\n\n  team-a  \nteam-b\n")
    async with listening(Listener(port=0, auth=Auth(token_file=str(file)))) as (_, (url,)):
        for token, status in (("team-a", 101), ("team-b", 101), ("#", 401), ("", 401)):
            async with dialled(url) as bare:
                assert await bare.ask("/", Authorization=f"Bearer {token}") == status, token


@within(SECONDS)
async def test_a_token_file_without_tokens_lets_nobody_in_by_mistake(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# none yet\n")
    async with iii_trio.open_engine() as engine:
        with pytest.raises(ConfigError, match="in which there is no token"):
            await engine.listen(Listener(port=0, auth=Auth(token_file=str(file))))
        with pytest.raises(ConfigError, match="cannot be read"):
            await engine.listen(Listener(port=0, auth=Auth(token_file=str(tmp_path / "absent"))))
    with pytest.raises(ValueError, match="nobody could come in"):
        Auth()


def test_tokens_are_not_shown_by_a_repr() -> None:
    assert "horse" not in repr(EngineConfig(listeners=(Listener(auth=TOKENS),)))


# --- sockets handed over


@within(SECONDS)
async def test_a_socket_that_is_open_already_is_listened_at_as_the_listener_says(
    tls: Tls, trusting: ssl.SSLContext
) -> None:
    handed = socket.create_server(("127.0.0.1", 0))
    port = handed.getsockname()[1]
    async with iii_trio.open_engine() as engine:
        addresses = await engine.listen_at([handed.detach()], Listener(tls=tls))
        assert addresses == [f"wss://127.0.0.1:{port}"]
        await use(addresses[0], ssl_context=trusting)


@within(SECONDS)
async def test_what_is_no_listening_socket_is_refused() -> None:
    near, far = socket.socketpair()
    with near, far:
        async with iii_trio.open_engine() as engine:
            with pytest.raises(ConnectionFailed, match="not a listening stream socket"):
                await engine.listen_at([near.fileno()])
            with pytest.raises(ConfigError, match="one for all of them, or one for each"):
                await engine.listen_at([near.fileno()], Listener(), Listener(port=1))


@within(SECONDS)
async def test_a_reload_changes_origins_and_the_mode_of_a_socket_that_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    strict = Listener(unix=str(path))
    lenient = Listener(unix=str(path), mode=0o666, origins=("https://app.example",))

    async def status() -> int:
        async with dialled(f"unix:{path}") as bare:
            return await bare.ask("/", Origin="https://app.example")

    async with listening(strict) as (engine, _):
        for listener, answered, mode in ((strict, 403, 0o600), (lenient, 101, 0o666), (strict, 403, 0o600)):
            await engine.reload(EngineConfig(listeners=(listener,)))
            assert (await status(), stat.S_IMODE(path.stat().st_mode)) == (answered, mode)
