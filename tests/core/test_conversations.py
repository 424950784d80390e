"""Golden conversations: what SDKs send, and what the engine has to answer, frame by frame.

They are written down in `conversations/*.txt`, by hand, from what the SDKs do and expect.
`tests/helpers/script.py` says how to read them. No Trio, no sockets: frames go straight into the hub.
"""

from __future__ import annotations

import pytest

from tests.helpers.script import golden_conversations, play


@pytest.mark.parametrize("script", golden_conversations())
def test_a_conversation_goes_as_it_is_written(script: str) -> None:
    play(script)
