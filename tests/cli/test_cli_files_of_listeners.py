"""Empty configurations, token files, TLS files, deadlines and functions without a writer."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import iii_trio
from iii_trio import EngineConfig, Listener
from iii_trio.cli import calling
from iii_trio.cli.calling import Deadline, connect
from iii_trio.cli.exits import Exit, Failure, explain
from iii_trio.cli.serve import Loader
from iii_trio.config import Auth, Tls
from iii_trio.config.file import read_config
from iii_trio.errors import ConfigError, ConnectionFailed, ListenFailed
from iii_trio.worker import open_worker
from tests.helpers.cli_processes import Site

TOKENS = "workers:\n  - name: iii-worker-manager\n    config: { port: 0 }\n    iii-trio: { auth: { tokens: [a] } }\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds nothing any more; write the configuration, then reload again"),
        ("# everything is commented out\n", "holds nothing any more; write the configuration, then reload again"),
        (
            "workers:\n  - name: iii-queue\n",
            "names no listener any more; give one, or start the engine anew without any",
        ),
    ],
)
def test_a_reload_of_a_file_that_lost_its_listeners_changes_nothing(tmp_path: Path, text: str, problem: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TOKENS)
    load = Loader(str(config))
    before = load()
    config.write_text(text)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            load()
        assert str(caught.value) == f"{config}: {problem}"
    config.write_text(TOKENS)
    assert load() == before


def test_a_start_with_an_empty_file_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("")
    load = Loader(str(config), port=0)
    load()
    assert caplog.messages == [
        f"{config}: holds nothing; the engine has its default settings, and a listener without tokens"
    ]
    load()  # as empty as before
    caplog.clear()
    assert Loader(None, port=0)() and not caplog.messages


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config("/dev/zero", {})
    assert str(caught.value) == "/dev/zero: cannot be read (it is larger than 16 MiB); name another file with --config"
    with pytest.raises(ConfigError, match=r"cannot be read \(embedded null byte\)"):
        read_config("/tmp/a\0b", {})


@pytest.mark.parametrize(
    ("listener", "problem"),
    [
        (Listener("é..x", 0), "cannot listen at é..x:0: no host can have this name; give another"),
        (Listener(unix="/tmp/a\0b"), "cannot listen at unix:/tmp/a\0b: no file can have this name; give another"),
        (Listener(port=0, tls=Tls("/tmp/a\0b")), "`tls` names /tmp/a\0b, which is not there, or cannot be read"),
        (
            Listener(port=0, auth=Auth(token_file="/tmp/a\0b")),
            "`auth` names the token file /tmp/a\0b, which cannot be read: embedded null byte",
        ),
    ],
)
async def test_names_that_nothing_can_have_are_one_sentence(listener: Listener, problem: str) -> None:
    async with iii_trio.open_engine() as engine:
        with pytest.raises((ConfigError, ListenFailed)) as caught:
            await engine.listen(listener)
    assert str(caught.value) == problem


async def test_a_token_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"\xef\xbb\xbfsecret\r\n")
    listener = Listener(port=0, auth=Auth(token_file=str(tmp_path / "tokens")))
    async with iii_trio.open_engine(EngineConfig(listeners=(listener,))) as engine:
        [address] = await engine.listen()
        async with iii_trio.open_worker(address, headers={"Authorization": "Bearer secret"}) as worker:
            await worker.trigger("engine::workers::list", {})


async def test_a_refused_token_names_the_variable(tmp_path: Path) -> None:
    listener = Listener(port=0, auth=Auth(tokens=("secret",)))
    async with iii_trio.open_engine(EngineConfig(listeners=(listener,))) as engine:
        [address] = await engine.listen()
        with pytest.raises(ConnectionFailed) as caught:
            async with iii_trio.open_worker(address):
                pass
    failure = explain(caught.value)
    assert failure is not None and failure.exit_code is Exit.UNREACHABLE
    assert "HTTP 401" in str(failure)
    assert str(failure).endswith("; put a token into the environment variable III_TOKEN")


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        ("{ tls: { certificate: /nowhere.pem } }", "`tls` names /nowhere.pem, which is not there, or cannot be read"),
        ("{ tls: { certificate: FILE } }", "`tls` names FILE, which cannot be used: "),
        ("{ auth: { token_file: /nowhere } }", "`auth` names the token file /nowhere, which cannot be read: "),
        (
            "{ auth: { token_file: /dev/zero } }",
            "`auth` names the token file /dev/zero, which cannot be read: it is larger than 16 MiB",
        ),
        ("{ auth: { token_file: FILE } }", "`auth` names the token file FILE, in which there is no token"),
    ],
)
async def test_a_file_of_a_listener_that_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, ours: str, problem: str
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# none\n")
    config = tmp_path / "config.yaml"
    config.write_text(
        "workers:\n  - name: iii-worker-manager\n    config: { port: 0 }\n    iii-trio: "
        + ours.replace("FILE", str(empty))
    )
    settings = read_config(config, {}).config
    async with iii_trio.open_engine(settings) as engine:
        with pytest.raises(ConfigError) as caught:
            await engine.listen()
    assert str(caught.value).startswith(f"{config}:4: {problem.replace('FILE', str(empty))}")


def test_the_line_is_no_setting_and_makes_no_difference() -> None:
    assert Tls("a", where="c.yaml:1") == Tls("a") and "c.yaml" not in repr(Tls("a", where="c.yaml:1"))
    assert Auth(tokens=("a",), where="c.yaml:1") == Auth(tokens=("a",))


async def test_the_timeout_bounds_connecting_too(autojump_clock: MockClock) -> None:
    async def never(*, task_status: trio.TaskStatus[object]) -> None:
        await trio.sleep_forever()

    class Silent:
        connect = staticmethod(never)

    deadline = Deadline(3.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calling.iii_trio, "open_worker", lambda _, name: open_worker(Silent(), name=name))
        with pytest.raises(Failure) as caught:
            async with connect("ws://silent", "trigger", deadline):
                pass
    assert caught.value.exit_code is Exit.TIMED_OUT
    assert str(caught.value) == "no engine answered at ws://silent within 3 s; see --timeout"
    assert trio.current_time() == pytest.approx(deadline.at)


async def test_a_function_that_takes_no_writer_leaves_no_file(site: Site, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    async with site.engine.open_worker("files") as worker:

        @worker.function("files::count")
        async def count() -> int:
            return 3

        ended = await site.run("receive", "files::count", "-o", str(tmp_path / "precious"))
    assert (ended.code, ended.out) == (4, "3\n")
    assert "aborted: files::count takes no `writer`" in ended.err
    assert (tmp_path / "precious").read_text() == "precious"
