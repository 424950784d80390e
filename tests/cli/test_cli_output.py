"""Every subcommand under everything that can be wrong with its output: hostile names, closed and full streams, closed
pipes, other encodings, narrow terminals. In this process, so that it is quick; real descriptors where they are the point."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
import trio

import iii_trio
from iii_trio import EngineConfig, Listener, QueueConfig, QueueSettings
from iii_trio.cli import app, main, output
from iii_trio.cli.app import COMMANDS
from iii_trio.config import RecorderSettings
from iii_trio.tracing import Sampling
from iii_trio.transport.link import Link
from iii_trio.triggers.cluster.memory_store import MemoryMesh
from iii_trio.triggers.cluster.settings import ClusterConfig
from iii_trio.triggers.observability.settings import ObservabilityConfig

ESC, CSI, RLO, ZWSP = "\x1b", "\x9b", "\u202e", "\u200b"
EVIL = f"evil{ESC}]52;c;aGk=\x07{CSI}31m{RLO}{ZWSP}\nforged line\r\x7f\u2028é"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069]")
STYLE = re.compile("\x1b\\[[0-9;]*m")
"""Colours of a terminal."""
DRAWN = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]|\r(?=receiving |sending |\x1b)")
"""Colours, and the drawing of a progress bar."""
WITHOUT_TABLES = (
    "trigger",
    "send",
    "receive",
    "enqueue",
    "conformance",
    "redrive",
    "discard",
    "job",
    "cancel",
    "pause",
    "resume",
    "purge",
    "unsubscribe",
    "completion",
    "logs",
    "backup",
    "record",
    "replay",
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """An engine in a thread of its own, in which everything has a hostile name."""
    found: list[str] = []
    ready = threading.Event()
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        with trio.CancelScope() as scope:
            token = trio.lowlevel.current_trio_token()
            ends.append(lambda: token.run_sync_soon(scope.cancel))
            queues = {"mail": QueueSettings(max_attempts=1), EVIL: QueueSettings()}
            cluster = ClusterConfig(store="valkey://store/mesh", advertise="ws://localhost:1", node="here")
            observed = ObservabilityConfig(sampling=Sampling(), exporter="memory")
            modules = {"queue": QueueConfig(queues=queues), "cluster": cluster, "observability": observed}
            recorder = RecorderSettings(enabled=True)
            config = EngineConfig(listeners=(Listener(port=0),), modules=modules, recorder=recorder)
            mesh = MemoryMesh()
            mesh.join(EVIL, EVIL, EVIL, 1_000)
            stores = {"cluster": mesh.way()}
            async with iii_trio.open_engine(config, stores=stores) as engine, trio.open_nursery() as nursery:
                await populate(engine, nursery)
                found.extend(await engine.listen())
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield str(found[0])
    ends[0]()
    thread.join(30)
    assert not thread.is_alive()


async def populate(engine: iii_trio.Engine, nursery: trio.Nursery) -> None:
    link: Link = await nursery.start(engine.address.connect)
    for message in (
        {
            "type": "invokefunction",
            "invocation_id": str(uuid.uuid4()),
            "function_id": "engine::workers::register",
            "data": {"name": EVIL, "runtime": EVIL, "version": EVIL, "os": EVIL},
        },
        {"type": "registerfunction", "id": f"f::{EVIL}", "description": EVIL},
        {"type": "registertriggertype", "id": EVIL, "description": EVIL},
    ):
        link.send(json.dumps(message).encode())
    worker = await nursery.start(run_worker, engine)
    await worker.trigger("mail::send", {}, action=iii_trio.enqueue("mail"))
    await worker.trigger("engine::log::error", {"message": EVIL, "service_name": EVIL, "data": {EVIL: EVIL}})
    with contextlib.suppress(iii_trio.CallError):
        await worker.trigger(f"no::{EVIL}", traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    with contextlib.suppress(Exception):
        async with worker.create_channel() as channel:
            channel.writer.abort(EVIL)


async def run_worker(engine: iii_trio.Engine, *, task_status: trio.TaskStatus[iii_trio.Worker]) -> None:
    async with engine.open_worker("post") as worker:

        @worker.function("mail::send")
        async def send() -> None:
            raise iii_trio.CallError(f"code{ESC}", EVIL)

        @worker.function("echo::say")
        async def say() -> str:
            return EVIL

        @worker.function("echo::take")
        async def take(reader: iii_trio.ChannelReader) -> dict[str, int]:
            return {EVIL: sum([len(item) async for item in reader])}

        @worker.function("echo::give")
        async def give(writer: iii_trio.ChannelWriter) -> str:
            await writer.send(b"data\n")
            await writer.aclose()
            return EVIL

        await worker.wait_registered()
        task_status.started(worker)
        await trio.sleep_forever()


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HTTP = 3
"""`http` at an engine that does not run the module."""

LINES: dict[str, tuple[list[str], int]] = {
    "functions": (["functions", "--all"], 0),
    "functions json": (["functions", "--json"], 0),
    "workers": (["workers", "--all"], 0),
    "channels": (["channels"], 0),
    "channels ended": (["channels", "--ended"], 0),
    "channels json": (["channels", "--ended", "--json"], 0),
    "triggers": (["triggers", "--all"], 0),
    "queues": (["queues"], 0),
    "dead-letters": (["dead-letters", "mail"], 0),
    "redrive": (["redrive", EVIL], 0),
    "discard": (["discard", EVIL, "--all"], 0),
    "jobs": (["jobs", EVIL], 0),
    "job": (["job", f"no{EVIL}"], 3),
    "cancel": (["cancel", f"no{EVIL}"], 3),
    "pause": (["pause", EVIL], 0),
    "resume": (["resume", EVIL], 0),
    "purge": (["purge", EVIL], 0),
    "unsubscribe": (["unsubscribe", EVIL, EVIL], 2),
    "backup": (["backup", "PLACE"], 3),
    "completion": (["completion", "bash"], 0),
    "enqueue": (["enqueue", "default", "nobody::home"], 0),
    "enqueue nowhere": (["enqueue", f"no{EVIL}", "f"], 2),
    "trigger": (["trigger", "echo::say"], 0),
    "trigger failing": (["trigger", "mail::send"], 3),
    "trigger nothing": (["trigger", f"no::{EVIL}"], 3),
    "send": (["send", "FILE", "echo::take"], 0),
    "receive": (["receive", "echo::give", "-o", "PLACE"], 0),
    "receive to stdout": (["receive", "echo::give", "-o", "/dev/null"], 0),
    "http": (["http"], HTTP),
    "nodes": (["nodes"], 0),
    "nodes json": (["nodes", "--json"], 0),
    "traces": (["traces"], 0),
    "traces json": (["traces", "--json"], 0),
    "one trace": (["traces", TRACE], 0),
    "no trace": (["traces", f"no{EVIL}"], 2),
    "logs": (["logs"], 0),
    "logs json": (["logs", "--json"], 0),
    "top": (["top", "--once"], 0),
    "top json": (["top", "--json"], 0),
    "conformance": (["conformance", "ADDRESS", "--only", "C5.1"], 0),
    "conformance json": (["conformance", "ADDRESS", "--only", "C5.1", "--json"], 0),
    "demo": (["demo", "/nowhere"], 2),
    "serve": (["serve", "--config", f"/nowhere{EVIL}"], 2),
    "record": (["record", "PLACE", "--overwrite"], 0),
    "record too little": (["record", "PLACE", "--last", f"no{EVIL}"], 2),
    "replay": (["replay", "RECORDING"], 0),
    "replay why": (["replay", "RECORDING", "--why"], 0),
    "replay json": (["replay", "RECORDING", "--json", "--to", "20"], 0),
    "replay nothing": (["replay", "FILE"], 2),
    "help": (["--help"], 0),
    "help of serve": (["serve", "--help"], 0),
    "version": (["--version"], 0),
    "no command": ([f"no{EVIL}"], 2),
}


def test_every_command_is_here() -> None:
    assert {name for name, _, _ in COMMANDS} | {"serve"} <= {line[0] for line, _ in LINES.values()}


@pytest.fixture(scope="module")
def recording(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of the engine."""
    place = tmp_path_factory.mktemp("recordings") / "engine.recording"
    assert main(["record", str(place), "--address", address]) == 0
    assert stat.S_IMODE(place.stat().st_mode) == 0o600  # promise F8
    return place


@pytest.fixture(params=LINES)
def line(request: pytest.FixtureRequest, address: str, recording: Path, tmp_path: Path) -> tuple[list[str], int]:
    """A command line, and its exit code where nothing is wrong with the output."""
    words, code = LINES[request.param]
    file, place = tmp_path / f"file{CSI}é", tmp_path / "place"
    file.write_bytes(b"content")
    places = {"FILE": str(file), "PLACE": str(place), "RECORDING": str(recording), "ADDRESS": address}
    words = [places.get(word, word) for word in words]
    alone = ("completion", "conformance", "demo", "replay", "serve", "--help", "--version", f"no{EVIL}")
    if words[0] not in alone:
        words += ["--address", address]
    return words, code


class Terminal(io.TextIOWrapper):
    """A stream that says that a person looks at it."""

    def isatty(self) -> bool:
        return True


def look(monkeypatch: pytest.MonkeyPatch, words: list[str], make: Callable[[], TextIO]) -> tuple[int, str, str]:
    """Run a command with streams made by `make`: its exit code, and what it wrote to both."""
    out, err = make(), make()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        code = main(words)
    texts = []
    for stream in (out, err):
        raw = stream.detach()  # type: ignore[attr-defined]
        texts.append(raw.getvalue().decode(stream.encoding) if isinstance(raw, io.BytesIO) else "")
    return code, texts[0], texts[1]


def test_no_control_character_of_a_peer_is_printed(
    line: tuple[list[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = line
    for cls in (io.TextIOWrapper, Terminal):
        monkeypatch.setenv("COLUMNS", "200")
        code, out, err = look(monkeypatch, words, lambda cls=cls: cls(io.BytesIO(), encoding="utf-8"))
        assert code == expected, err
        if cls is Terminal:
            out, err = DRAWN.sub("", out), DRAWN.sub("", err)
        assert not FORBIDDEN.search(out) and not FORBIDDEN.search(err)
        assert "forged line" not in [text.strip() for text in (out + err).splitlines()]
        assert "Traceback" not in err


def test_the_names_are_there_for_all_that(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*words: str) -> str:
        return look(monkeypatch, [*words, "--address", address], lambda: io.TextIOWrapper(io.BytesIO(), "utf-8"))[1]

    seen = r"evil\x1b]52;c;aGk=\x07\x9b31m\u202e\u200b\nforged line\r\x7f\u2028é"
    for words in (["functions"], ["workers", "--all"], ["triggers"], ["queues"], ["channels", "--ended"]):
        assert seen in shown(*words)
    assert seen in shown("dead-letters", "mail").replace(" forged", r"\nforged") or "evil" in shown(
        "dead-letters", "mail"
    )
    assert seen in shown("traces", TRACE) and seen in shown("traces")
    assert json.loads(shown("trigger", "echo::say")) == EVIL
    listed = json.loads(shown("functions", "--json"))["functions"]
    assert f"f::{EVIL}" in [row["function_id"] for row in listed]


def test_an_encoding_that_lacks_a_character_shows_its_escape(
    line: tuple[list[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = line
    code, out, err = look(monkeypatch, words, lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert code == expected
    assert out.isascii() and err.isascii()
    if words[0] == "functions" and "--json" not in words:
        assert r"\xe9" in out


def test_streams_that_are_missing_are_the_null_device(
    line: tuple[list[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = line
    with monkeypatch.context() as patched:
        for name in ("stdin", "stdout", "stderr"):
            patched.setattr(sys, name, None)
        assert main(words) == expected
        for name in ("stdin", "stdout", "stderr"):
            getattr(sys, name).close()


def test_a_reader_that_left_ends_the_command_in_silence(
    line: tuple[list[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = line

    def broken() -> TextIO:
        read, write = os.pipe()
        os.close(read)
        return open(write, "w", encoding="utf-8")

    with monkeypatch.context() as patched, broken() as out, io.StringIO() as err:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        code = main(words)
        says_nothing = expected in (2, 3)
        assert code == (expected if says_nothing else 1)
        assert ("Traceback" not in err.getvalue()) if says_nothing else (err.getvalue() == "")
    with monkeypatch.context() as patched, broken() as err2, io.StringIO() as out2:
        patched.setattr(sys, "stdout", out2)
        patched.setattr(sys, "stderr", err2)
        assert main(words) == expected
        with contextlib.suppress(BrokenPipeError):
            err2.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), err2.fileno())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_an_output_that_is_full_is_one_sentence(line: tuple[list[str], int], monkeypatch: pytest.MonkeyPatch) -> None:
    words, expected = line
    with monkeypatch.context() as patched, io.StringIO() as err:
        out = open("/dev/full", "w")  # noqa: SIM115
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        code = main(words)
        if expected == 0:
            assert code == 1
            assert err.getvalue() == "iii-trio: standard output cannot be written: No space left on device\n"
        with contextlib.suppress(OSError):
            out.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_drawing_on_a_process_own_output_that_is_full_is_one_sentence() -> None:
    # rich writes to descriptor 1 at the end of a capture, too.
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "iii_trio", "--help"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == b"iii-trio: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_a_narrow_terminal_gets_something(
    line: tuple[list[str], int], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = line
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = look(monkeypatch, words, lambda: Terminal(io.BytesIO(), encoding="utf-8"))
    assert code == expected
    widest = max((len(STYLE.sub("", row)) for row in out.splitlines()), default=0)
    if "--json" not in words and words[0] not in WITHOUT_TABLES:
        assert widest <= (20 if columns == "20" else 80)


# --- single functions


def test_visible_text_is_one_line_without_control_characters() -> None:
    assert output.visible("plain é 漢 🎉") == "plain é 漢 🎉"
    assert output.visible("a\nb\tc\r\x00\x1b\x9b\u202e\udcff\U000e0041") == (
        "a\\nb\\tc\\r\\x00\\x1b\\x9b\\u202e\\udcff\\U000e0041"
    )
    assert output.visible_lines("a\nb\x1b") == "a\nb\\x1b"
    for code in range(0x110000):
        character = chr(code)
        if FORBIDDEN.match(character) or 0xD800 <= code < 0xE000:
            assert output.visible(character).isascii(), hex(code)


@pytest.mark.parametrize("indent", [None, 2])
def test_json_keeps_its_meaning_and_hides_nothing(indent: int | None) -> None:
    value = {EVIL: ["\U000e0041", "\udcff", {"n": 1.5, "é": None}]}
    text = output.to_json(value, indent)
    assert json.loads(text) == value
    assert not FORBIDDEN.search(text) and "é" in text


@pytest.mark.parametrize(
    "words", [["trigger", "f\udcff"], ["enqueue", "default", "f\udcff"], ["trigger", "f", "a=\udcff"]]
)
def test_an_argument_that_is_no_text_is_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err == f"iii-trio: the argument '{output.visible(words[-1])}' is not UTF-8 text\n"


def test_a_path_may_be_any_bytes(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/f\xff")
    Path(path).write_bytes(b"12345")
    words = ["send", path, "echo::take", "--address", address]
    code, out, err = look(monkeypatch, words, lambda: io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert (code, list(json.loads(out).values()), err) == (0, [5], "")


def test_an_error_nobody_expects_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "until_signalled", fail)
    with pytest.raises(ZeroDivisionError):
        main(["trigger", "f"])


# --- real descriptors

SHELL = {
    "stdout closed": ("queues --address ADDRESS >&-", 0, ""),
    "stderr closed, wrong usage": ("nosuch 2>&-", 2, ""),
    "stdin closed": ("send - echo::take --address ADDRESS <&-", 0, ""),
    "all closed": ("trigger echo::say --address ADDRESS <&- >&- 2>&-", 0, ""),
    "a pipe that is closed": (
        "channels --watch --every 0.01 --address ADDRESS | head -2 >/dev/null; exit ${PIPESTATUS[0]}",
        1,
        "",
    ),
    "a pipe that nobody opens": ("queues --watch --every 0.01 --address ADDRESS | true; exit ${PIPESTATUS[0]}", 1, ""),
    "an ASCII locale": (
        "trigger nobody::é --address ADDRESS",
        3,
        "function_not_found: Function nobody::\\xe9 not found",
    ),
}


@pytest.mark.parametrize(("command", "code", "said"), SHELL.values(), ids=SHELL)
def test_with_real_descriptors(command: str, code: int, said: str, address: str, tmp_path: Path) -> None:
    environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        ["bash", "-c", f'"$0" -m iii_trio {command.replace("ADDRESS", address)}', sys.executable],
        env=environ if "é" in command else None,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code
    err = done.stderr.decode()
    assert err.startswith(said) if said else err == ""


def test_an_engine_serves_without_a_standard_error(tmp_path: Path) -> None:
    with subprocess.Popen(
        ["bash", "-c", 'exec "$0" -m iii_trio serve --port 0 2>&- <&-', sys.executable],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert " ready on ws://127.0.0.1:" in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
