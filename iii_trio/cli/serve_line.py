"""The usual command lines of `iii-trio serve`, read without the parser, which takes a tenth of a start to load.

A usual line has options by their full names, each once, with a plain value. Every other line is the parser's, so that it
alone decides what wrong usage is, and how it is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from .logs import Level

_Reader = Callable[[str], Any]


def _matching(pattern: str, kind: _Reader) -> _Reader:
    """Return a reader of texts of one form, which raises ValueError for all others."""

    def read(text: str) -> Any:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return kind(text)

    return read


_text: Final = _matching(r"[!-,./-~][ -~]*", str)  # printable ASCII that does not begin like an option
_OPTIONS: Final[dict[str, tuple[str, _Reader]]] = {
    "--config": ("config", _text),
    "-c": ("config", _text),
    "--host": ("host", _text),
    "--port": ("port", _matching(r"[0-9]{1,5}", int)),
    "--data": ("data", _text),
    "--cluster": ("cluster", _text),
    "--advertise": ("advertise", _text),
    "--node": ("node", _text),
    "--grace": ("grace", _matching(r"[0-9]{1,9}(\.[0-9]{1,9})?", float)),
    "--log-level": ("log_level", _matching("|".join(get_args(Level)), str)),
}


def usual_options(tokens: Sequence[str]) -> dict[str, Any] | None:
    """Return the arguments of `serve` for a command line (without the program), or None if the parser has to read it."""
    rest = list(tokens[1:] if tokens[:1] == ["serve"] else tokens)
    if len(rest) % 2:
        return None
    options: dict[str, Any] = {}
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        parameter, read = _OPTIONS.get(name, ("", None))
        # The parser says what is wrong with an option that comes twice.
        if read is None or parameter in options:
            return None
        try:
            options[parameter] = read(text)
        except ValueError:
            return None
    return options
