"""A text message that is not UTF-8 ends its connection with 1007 (RFC 6455 section 8.1), whatever socket it comes by."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio import open_engine
from iii_trio.errors import FrameError
from iii_trio.transport.frames import frame
from iii_trio.transport.remote_link import RemoteLink
from iii_trio.wire import Close
from tests.helpers.bare import Bare, connected, within

INVALID = [b'{"type":"ping","x":"\xff"}', b"\xed\xa0\x80", b"x" * 200 + b"\xc3", b"\xff" * 70_000]


async def close_code(bare: Bare) -> int:
    while (got := await bare.frame()) is not None:
        if got[0] == 8:
            return int.from_bytes(got[1][:2], "big")
    return 0


@pytest.mark.parametrize("text", INVALID)
@pytest.mark.parametrize("path", ["/", "/otel"])
@within(60)
async def test_a_workers_and_a_telemetry_socket_is_closed_with_1007(
    path: str, text: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine() as engine, connected(engine, path) as bare, connected(engine) as bystander:
        await bare.say(1, text)
        assert await close_code(bare) == Close.INVALID_DATA
        await bystander.tell(type="ping")
        while (await bystander.message())["type"] != "pong":
            pass


@within(60)
async def test_text_beyond_ascii_passes(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine) as bare:
        await bare.say(1, '{"type":"ping","x":"é\U0001f600"}'.encode())
        while (await bare.message())["type"] != "pong":
            pass


@pytest.mark.parametrize("text", INVALID)
def test_a_worker_ends_its_link_to_an_engine_that_sends_such_text(text: bytes) -> None:
    link = RemoteLink(lambda: bytes(4))
    _, how = link.feed(memoryview(frame(1, text)))
    assert isinstance(how, FrameError) and how.code == Close.INVALID_DATA
