"""Wrong usage: one sentence on stderr, exit code 2, no traceback."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from iii_trio.cli import main
from iii_trio.cli.app import COMMANDS, app
from iii_trio.cli.exits import EXIT_HELP, Exit
from iii_trio.cli.options import engine_address
from iii_trio.cli.version import version

NO_FUNCTION = "the function's id is empty; give one, for example files::count_lines"
WRONG = {
    "triger": "unknown command `triger`; did you mean `trigger`?",
    "zebra": (f"unknown command `zebra`; there are serve, {', '.join(name for name, _, _ in COMMANDS)}"),
    "--prot 1": "unknown option: --prot. Did you mean --port? (`iii-trio --help` shows what there is)",
    "serve x": "unexpected argument `x` (`iii-trio serve --help` shows what there is)",
    "trigger": "FUNCTION is missing (`iii-trio trigger --help` shows what there is)",
    "trigger f --timeout": "--timeout needs a value (`iii-trio trigger --help` shows what there is)",
    "trigger f --timeout x": (
        'invalid value for --timeout: unable to convert "x" into float (`iii-trio trigger --help` shows what there is)'
    ),
    "trigger f --timeout 0": "--timeout is 0; give a number of seconds above 0",
    "trigger f --timeout nan": "--timeout is nan; give a number of seconds above 0",
    "jobs mail --older nan": "--older is nan; give a number, 0 or more",
    "jobs mail --newer inf": "--newer is inf; give a number, 0 or more",
    "traces --slower -1": "--slower is -1; give a number, 0 or more",
    "functions --address unix:": "--address is 'unix:'; give the path of the socket, as in unix:/run/engine.sock",
    "trigger f a": "'a' is not a key=value pair; write for example name=a",
    "trigger f --address http://x": (
        "--address is 'http://x', which is not an engine's address; write for example ws://127.0.0.1:49134"
    ),
    "trigger f --address ws://x:port": (
        "--address is 'ws://x:port', which is not an engine's address; write for example ws://127.0.0.1:49134"
    ),
    "send /does/not/exist f": "/does/not/exist cannot be read: No such file or directory",
    "send / f": "/ is a directory; name a file, or `-` for standard input",
    "send /dev/null f reader=1": (
        "'reader' is the key of the channel; name another one with --as, or leave out reader=…"
    ),
    "receive f -o /": "/ is a directory; name a file in it",
    "receive f -o /does/not/exist": (
        "/does/not/exist cannot be written: there is no directory /does/not; make it first"
    ),
    "trigger f -v": "unknown option: -v (`iii-trio trigger --help` shows what there is)",
    "conformance --only C9": "--only is 'C9', which no clause is named; give for example C2 or C2.1",
    "serve --port 65536": "--port is 65536; give a number from 0 (the system chooses) to 65535",
    "serve --data=": "--data is empty; name a directory, or say --data memory",
    f"serve --data {__file__}": f"--data is {__file__}, which is a file; name a directory",
    "serve --cluster 10.0.0.4 --advertise ws://127.0.0.1:1": (
        "--cluster is '10.0.0.4', which is not an address of a store; write it as valkey://host:port/NAME_OF_THE_MESH"
    ),
    "serve --cluster redis://me:secret@h/x --advertise ws://127.0.0.1:1": (
        "--cluster is not an address of a store; write it as valkey://host:port/NAME_OF_THE_MESH"
    ),
    "serve --cluster valkey://127.0.0.1/m --advertise 127.0.0.1:1": (
        "--advertise is '127.0.0.1:1', which is not an address of an engine; write it as ws://host:port or wss://host:port"
    ),
    "dead-leters": "unknown command `dead-leters`; did you mean `dead-letters`?",
    "jobs mail --after -5": "--after is -5; give the number that stands below the page before",
    "dead-letters mail --limit 0": "--limit is 0; give at least 1",
    "discard mail": "name one dead letter, or say --all",
    "discard mail x --all": "name one dead letter, or say --all; not both",
    "serve --grace -1": "--grace is -1; give a number of seconds, at least 0",
    "serve --config /does/not/exist": (
        "/does/not/exist: cannot be read (No such file or directory); name another file with --config"
    ),
    "demo /": "/ is not a file; name one, or leave it out",
}
NOTHING = {
    ("trigger", ""): NO_FUNCTION,
    ("enqueue", "default", " ", "to=ada"): NO_FUNCTION,
    ("send", "/dev/null", ""): NO_FUNCTION,
    ("receive", ""): NO_FUNCTION,
    ("redrive", "mail", "--to", ""): NO_FUNCTION,
    ("--config", ""): "--config is empty; name a file, or leave it out",
    ("--host", " "): "--host is empty; give an address such as 127.0.0.1, or leave it out",
    ("record", ""): "the name of the file is empty; name one",
    ("backup", ""): "the file has no name; name the file to write",
    ("replay", ""): "the name of the file is empty; name one",
    ("send", "", "f"): "the name of the file is empty; name one",
    ("receive", "f", "-o", ""): "the name of the file is empty; name one",
}
"""What a shell makes of a variable that is not set."""


@pytest.mark.parametrize(("line", "sentence"), WRONG.items())
def test_wrong_usage_is_one_sentence(line: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"iii-trio: {sentence}\n")


@pytest.mark.parametrize(("arguments", "sentence"), NOTHING.items())
def test_an_empty_argument_is_called_empty(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == Exit.USAGE
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"iii-trio: {sentence}\n")


def test_port_and_host_cannot_choose_between_listeners(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "workers: [{name: iii-worker-manager, config: {port: 1}}, {name: iii-worker-manager, config: {port: 2}}]"
    )
    assert main(["--config", str(config), "--port", "3"]) == Exit.USAGE
    assert "lists 2 listeners, so --host and --port cannot say which one they mean" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-v", "-V", "--version"])
def test_the_version_is_asked_for_by_itself(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == Exit.DONE
    assert capsys.readouterr().out.strip() == version()


def test_a_signal_before_the_imports_are_done_ends_the_process() -> None:
    """As process 1 of a container, where a signal without a handler is dropped."""
    program = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'iii_trio.cli.app':\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['iii-trio', '--version']\n"
        "from iii_trio.cli import main\n"
        "sys.exit(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == Exit.TERMINATED


def test_help_says_what_the_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == Exit.DONE
    said = " ".join(capsys.readouterr().out.split())
    assert EXIT_HELP in said
    for code in Exit:
        assert str(int(code)) in EXIT_HELP


def test_the_address_is_what_was_given_else_the_variable_else_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("III_URL", raising=False)
    assert engine_address(None) == "ws://127.0.0.1:49134"
    monkeypatch.setenv("III_URL", "wss://engine.example/")
    assert engine_address(None) == "wss://engine.example/"
    assert engine_address("localhost:1") == "ws://localhost:1"


@pytest.mark.parametrize(("name", "place", "does"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_what_the_list_of_commands_says_is_how_their_own_help_begins(name: str, place: str, does: str) -> None:
    module, _, function = place.partition(":")
    doc = inspect.getdoc(getattr(import_module(module), function)) or ""
    assert doc.partition("\n\n")[0].replace("\n", " ") == does


COMMAND_LINE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text("utf-8")
EVERYWHERE = {"--address", "--json", "--kind", "--timeout", "--namespace", "--every", "--help", "--version"}
"""Options of many commands, which the text below the table explains."""


@pytest.mark.parametrize("name", ["serve", *(name for name, _, _ in COMMANDS)])
def test_the_documentation_lists_each_command_with_its_options(name: str) -> None:
    rows = [line for line in COMMAND_LINE.splitlines() if line.startswith("| `iii-trio ")]
    (row,) = [
        row
        for row in rows
        if name in row.removeprefix("| `iii-trio ").split("`")[0].split()[0].strip("[]").split("\\|")
    ]
    options = [one.names for one in app[name].assemble_argument_collection() if one.names[0].startswith("-")]
    missing = [
        names
        for names in options
        if not EVERYWHERE.intersection(names)
        and not any(re.search(rf"(?<![\w-]){name}(?![\w-])", row) for name in names)
    ]
    assert missing == [], row
