"""`iii-trio completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from cyclopts import Parameter

from .exits import Exit
from .output import say

_ZSH_END: Final = """

# Loaded from a directory of $fpath under the usual name, it completes at once. Sourced, it registers itself.
if [[ $funcstack[1] == (_iii-trio|_cyclopts_iii-trio) ]]; then
  _cyclopts_iii-trio "$@"
else
  compdef _cyclopts_iii-trio iii-trio
fi"""
"""The library's script only defines a function, which zsh finds under a file name of the library's own."""


async def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell that is to complete.")], /
) -> Exit:
    """Print a script that lets a shell complete commands and options.

    For example: iii-trio completion bash > ~/.local/share/bash-completion/completions/iii-trio
    """
    from .app import app  # here, because the app is made of all commands

    script = app.generate_completion(prog_name="iii-trio", shell=shell).rstrip()
    say(script + _ZSH_END if shell == "zsh" else script)
    return Exit.DONE
