"""Play a conversation that is written down, line by line, through a hub.

    harbour connects            a link is up; `as an in-process worker` may follow
    harbour connects by {…}     a link is up at a listener with these access rules
    harbour joins [namespace]   the same, with `engine::workers::register`, and what it was told forgotten
    harbour leaves
    wait 5                      seconds
    harbour asks engine::functions::list {…}   calls it; its answer's result or error has to follow, as
    harbour < {…}
    harbour > {…}               a frame that the SDK sends
    harbour < {…}               a frame that the engine sends, next in order for this peer
    harbour is hung up on 1000

Every frame that the engine sends has its line, or the test fails. In frames `<harbour>` is the id of that worker, `$1`
the UUID of a call, and the text `*` anything. Order counts for each peer, not between them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from iii_trio.config import FunctionFilter, RbacConfig
from iii_trio.core.access import Access
from iii_trio.core.admission import Credentials

from .conversation import Conversation, call_id

_GOLDEN = Path(__file__).parent.parent / "core" / "conversations"
_LINE = re.compile(r"(\w+) ([<>]) (.*)")


def golden_conversations() -> list[Any]:
    """Return the scripts of `tests/core/conversations` as parameters of a test, with their titles as ids."""
    return [
        pytest.param(script, id=f"{path.stem}: {title}")
        for path in sorted(_GOLDEN.glob("*.txt"))
        for title, _, script in (row.partition("\n") for row in path.read_text().split("== ")[1:])
    ]


def play(script: str) -> Conversation:
    """Play it; the first line that does not hold fails the test, and so does a frame without a line."""
    talk = Conversation()
    named: dict[str, Any] = {}
    lines = [line.strip() for line in script.strip().splitlines() if line.strip()]
    for number, line in enumerate(lines):
        match = _LINE.fullmatch(line)
        if match is None or match[2] != "<":
            for name, peer in named.items():
                assert not peer.inbox, f"before line {number} ({line}), {name} also heard {peer.inbox}"
        if match is not None and match[2] == ">":
            named[match[1]].say(_filled(match[3], named))
        elif match is not None:
            peer = named[match[1]]
            assert peer.inbox, f"line {number}: {match[1]} heard nothing, instead of {match[3]}"
            heard, expected = peer.inbox.pop(0), json.loads(_filled(match[3], named))
            assert _matches(heard, expected), f"line {number}: {match[1]} heard\n{heard}\ninstead of\n{expected}"
        else:
            _do(line, talk, named)
    for name, peer in named.items():
        assert not peer.inbox, f"at the end, {name} also heard {peer.inbox}"
    return talk


def _do(line: str, talk: Conversation, named: dict[str, Any]) -> None:
    match line.split():
        case ["wait", seconds]:
            talk.wait(float(seconds))
        case [name, "connects", "by", *_]:
            rules = json.loads(line.split(maxsplit=3)[3])
            middleware = rules.pop("middleware_function_id", None)
            filters = [FunctionFilter(**each) for each in rules.pop("expose_functions", [])]
            access = Access(RbacConfig(expose_functions=filters, **rules), middleware)
            shown = Credentials({"authorization": "Bearer x"}, {"token": ["abc"]}, "127.0.0.1")
            named[name] = talk.connect(access=access, credentials=shown)
        case [name, "connects", *how]:
            named[name] = talk.connect(in_process=bool(how))
        case [name, "joins"]:
            named[name] = talk.join(f"{name}-1")
        case [name, "joins", namespace]:
            named[name] = talk.join(f"{name}-1", namespace=namespace)
        case [name, "leaves"]:
            named[name].leave()
        case [name, "asks", function_id, *_]:
            peer = named[name]
            peer.inbox.append(peer.ask(function_id, json.loads(_filled(line.split(maxsplit=3)[3], named)), 99))
        case [name, "is", "hung", "up", "on", code]:
            assert str(talk.hung_up[named[name].id].code) == code
        case _:
            raise AssertionError(f"not a line of a script: {line}")


def _filled(text: str, named: dict[str, Any]) -> str:
    def named_field(match: re.Match[str]) -> str:
        peer = named.get(match[1])
        return match[0] if peer is None else str(getattr(peer.session, match[2] or "id"))

    text = re.sub(r"\$(\d+)", lambda match: call_id(int(match[1])), text)
    return re.sub(r"<(\w+)(?: (\w+))?>", named_field, text)


def _matches(heard: Any, expected: Any) -> bool:
    if expected == "*":
        return True
    if isinstance(expected, dict) and isinstance(heard, dict):
        return expected.keys() == heard.keys() and all(_matches(heard[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(heard, list):
        return len(heard) == len(expected) and all(map(_matches, heard, expected))
    return type(heard) is type(expected) and heard == expected
