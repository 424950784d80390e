"""`iii-trio completion`."""

from __future__ import annotations

import shutil
import subprocess

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
