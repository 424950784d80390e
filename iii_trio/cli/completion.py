"""`iii-trio completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from .exits import Exit
from .output import say


async def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that is to complete.")], /
) -> Exit:
    """Print a script that lets a shell complete commands and options.

    For example: iii-trio completion bash > ~/.local/share/bash-completion/completions/iii-trio
    """
    from .app import app  # here, because the app is made of all commands

    say(app.generate_completion(prog_name="iii-trio", shell=shell).rstrip())
    return Exit.DONE
