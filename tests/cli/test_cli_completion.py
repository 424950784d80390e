"""`iii-trio completion`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from iii_trio.cli.app import COMMANDS, main
from iii_trio.cli.exits import Exit


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_every_command_and_its_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == Exit.DONE
    script = capsys.readouterr().out
    for name in ["serve", *(name for name, _, _ in COMMANDS)]:
        assert name in script
    assert "unique-key" in script
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, timeout=60, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_an_unknown_shell_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == Exit.USAGE
    assert "csh" in capsys.readouterr().err


def _script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == Exit.DONE
    return capsys.readouterr().out


def _said(shell: str, *arguments: str) -> str:
    done = subprocess.run([shell, *arguments], text=True, capture_output=True, timeout=60, check=True)
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    ask = """
    for line in "iii-trio ba" "iii-trio backup --o" "iii-trio jobs mail --state d"; do
      COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
      $(complete -p iii-trio | sed 's/.*-F \\([^ ]*\\).*/\\1/'); echo "${COMPREPLY[@]}"
    done"""
    assert _said("bash", "-c", _script("bash", capsys) + ask) == "backup\n--overwrite\ndelayed dead\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    ask = "\nfor line in 'iii-trio ba' 'iii-trio backup --o'; complete -C $line | string replace -r '\\t.*' ''; end"
    assert _said("fish", "-c", _script("fish", capsys) + ask) == "backup\n--overwrite\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
@pytest.mark.parametrize("name", ["_iii-trio", "_cyclopts_iii-trio"])
def test_zsh_completes_at_the_first_use_of_a_file_in_its_path(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(_script("zsh", capsys))
    ask = f"""
    _arguments() {{ print completed; return 1 }}; _describe() {{ print completed }}
    fpath=({tmp_path}); autoload -Uz {name}; words=(iii-trio ba); CURRENT=2; {name}"""
    assert "completed" in _said("zsh", "-f", "-c", ask + "; true")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_a_sourced_script_registers_itself_in_zsh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "script").write_text(_script("zsh", capsys))
    said = _said("zsh", "-f", "-c", f"compdef() {{ print registered $2 }}; source {tmp_path / 'script'}")
    assert said == "registered iii-trio\n"
