"""C3.6: who breaks the rules of RFC 6455."""

from __future__ import annotations

import pytest

from iii_trio.config import Limits
from iii_trio.transport.frames import close_payload, frame, frame_head
from tests.helpers.clause_world import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    TEXT,
    WEBSOCKET,
    Clock,
    EngineConfig,
    Open,
)

# --- C3.6: broken rules


def _frame_with_first_byte(byte: int) -> bytes:
    return bytes([byte]) + frame(BINARY, b"x", mask=MASK)[1:]


BROKEN_RULES = {
    "a reserved bit": (1002, _frame_with_first_byte(0xC2)),
    "a reserved opcode": (1002, _frame_with_first_byte(0x83)),
    "an unmasked frame": (1002, frame(BINARY, b"x")),
    "a continuation of nothing": (1002, frame(CONTINUATION, b"x", mask=MASK)),
    "a message within a message": (1002, frame(TEXT, b"x", fin=False, mask=MASK) + frame(TEXT, b"x", mask=MASK)),
    "a fragmented ping": (1002, frame(PING, b"x", fin=False, mask=MASK)),
    "a long ping": (1002, frame(PING, b"x" * 126, mask=MASK)),
    "a length in a longer form": (1002, b"\x82\xfe\x00\x01" + MASK + b"x"),
    "a close code that may not be sent": (1002, frame(CLOSE, close_payload(1005), mask=MASK)),
    "half a close code": (1002, frame(CLOSE, b"\x03", mask=MASK)),
    "a text that is not UTF-8": (1007, frame(TEXT, b"\xff", mask=MASK)),
    "a text that ends within a character": (1007, frame(TEXT, "é".encode()[:1], mask=MASK)),
    "a fragmented text that is not UTF-8": (
        1007,
        frame(TEXT, b"a\xc3", fin=False, mask=MASK) + frame(CONTINUATION, b"a", mask=MASK),
    ),
    "a message above the limit": (1009, frame_head(BINARY, 100_001, mask=MASK)),
    "fragments above the limit": (
        1009,
        frame(BINARY, bytes(60_000), fin=False, mask=MASK) + frame_head(CONTINUATION, 60_000, mask=MASK),
    ),
}


@pytest.mark.parametrize("rule", BROKEN_RULES)
@pytest.mark.parametrize("offender", ["writer", "reader"])
async def test_C3_6_who_breaks_a_rule_is_told_and_the_other_gets_an_error_and_nobody_else_notices(
    autojump_clock: Clock, opening: Open, rule: str, offender: str
) -> None:
    code, sent = BROKEN_RULES[rule]
    async with opening(EngineConfig(limits=Limits(message_bytes=100_000))) as world:
        owner = await world.worker()
        other_wref, other_rref = await owner.create_channel()
        other_writer = await world.writer(WEBSOCKET, other_wref, owner)
        other_reader = await world.reader(WEBSOCKET, other_rref, owner)
        wref, rref = await owner.create_channel()
        if offender == "writer":
            raw, reader = await world.raw(wref), await world.reader(WEBSOCKET, rref, owner)
            await raw.stream.send_all(frame(BINARY, b"before", mask=MASK))
            assert await reader.take() == b"before"
            await raw.stream.send_all(sent)
            end = await reader.wait_ended()
            assert end.outcome == "writer_lost"
        else:
            raw, writer = await world.raw(rref), await world.writer(WEBSOCKET, wref, owner)
            await raw.stream.send_all(sent)
            end = await writer.wait_ended()
            assert end.outcome == "reader_lost"
        assert "protocol" in end.reason
        await raw.read_to_the_end()
        assert [told for told, _ in raw.closes()] == [code]
        assert raw.at_end == "fin"
        await other_writer.put(b"untouched")
        assert await other_reader.take() == b"untouched"
