"""Golden conversations: what SDKs send, and what the engine has to answer, frame by frame.

They are written down in `conversations/*.txt`, by hand, from what the SDKs do and expect.
`tests/helpers/script.py` says how to read them. No Trio, no sockets: frames go straight into the hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.script import play


def rows() -> Iterator[object]:
    for path in sorted((Path(__file__).parent / "conversations").glob("*.txt")):
        for row in path.read_text().split("== ")[1:]:
            title, _, script = row.partition("\n")
            yield pytest.param(script, id=f"{path.stem}: {title}")


@pytest.mark.parametrize("script", [*rows()])
def test_a_conversation_goes_as_it_is_written(script: str) -> None:
    play(script)
