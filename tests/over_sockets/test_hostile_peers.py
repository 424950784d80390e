"""Whatever bytes come, at whatever socket, cut wherever: the engine goes on, holds nothing, and others notice nothing."""

from __future__ import annotations

import json
import random
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iii_trio import Limits
from iii_trio.transport.frames import CLOSE, TEXT, close_payload, frame
from tests.helpers.target import QUICK, Client, Target, open_target, upgrade

MASK: Final = b"\x01\x02\x03\x04"
PLACES: Final = ("session", "telemetry", "writer", "reader", "nowhere", "no channel", "wrong key", "health")
ENDS: Final = ("fin", "reset", "drop", "close", "fin", "reset", "drop", "stay")
modest = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@attrs.frozen
class Attack:
    """Bytes for one socket, in pieces; `upgrades`: behind a valid and granted upgrade, else from the first byte on."""

    place: str
    pieces: list[bytes]
    end: str
    upgrades: bool
    wait_between: bool = False


async def path_of(target: Target, place: str) -> str | Any:
    if place in ("writer", "reader"):
        writer, reader = await target.new_channel(expires_after_ms=50)
        return writer if place == "writer" else reader
    return {
        "session": "/",
        "telemetry": "/otel",
        "nowhere": "/admin",
        "no channel": "/ws/channels/0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b11?key=k&dir=read",
        "wrong key": "/ws/channels/?key=%00&dir=write",
        "health": "/healthz",
    }[place]


async def strike(target: Target, attack: Attack) -> None:
    """Do it, and wait until the engine has had enough of us."""
    path = await path_of(target, attack.place)
    client = await Client.connect(target.port)
    try:
        if attack.upgrades:
            await client.send(upgrade(path))
            await client.read_head()
        for piece in attack.pieces:
            if not await client.send(piece):
                break
            if attack.wait_between:
                await trio.sleep(0.001)
        match attack.end:
            case "reset":
                client.reset()
            case "drop":
                client.drop()
            case "fin":
                client.fin()
                await client.read_to_the_end()
            case "close":
                await client.send(frame(CLOSE, close_payload(1000), mask=MASK))
                # Inside a frame that was begun these bytes are payload, not a Close, and the engine rightly waits for
                # more. The end of the stream ends it then, without a deadline.
                client.fin()
                await client.read_to_the_end()
            case "stay":  # and say nothing more, until the engine's patience is over, or ours
                with trio.move_on_after(0.2):
                    await client.read_to_the_end()
    finally:
        client.drop()


def strike_all(attacks: list[Attack]) -> None:
    async def main() -> None:
        async with open_target() as target:
            async with trio.open_nursery() as nursery:
                for attack in attacks:
                    nursery.start_soon(strike, target, attack)
            # What nobody attached still belongs to the good session; all else is gone.
            await target.check_healthy()
            assert target.engine.statistics().calls == 0

    trio.run(main)


# --- heads


def heads() -> st.SearchStrategy[bytes]:
    valid = st.sampled_from([upgrade("/"), upgrade("/otel"), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
    line = st.sampled_from(
        [b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/9.9", b"POST / HTTP/1.1", b"PRI * HTTP/2.0", b"GET", b"",
         b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET http://x/ HTTP/1.1", b"GET /\xff HTTP/1.1", b"Host: x",
         b"Host: y", b"Content-Length: 5", b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Upgrade: websocket",
         b"Upgrade: h2c", b"Connection: Upgrade", b"Connection: close", b"Sec-WebSocket-Version: 13",
         b"Sec-WebSocket-Version: 8", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", b"Sec-WebSocket-Key: x",
         b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Extensions: \xff;;", b" folded", b"No colon",
         b"Sec-WebSocket-Protocol: a, b", b"Iii-Session: nobody", b"Iii-Session: a b", b"X: " + b"y" * 20_000,
         b"\x00: \x00", b"Expect: 100-continue", b"Cookie: " + b"a=b; " * 50]
    )  # fmt: skip
    made = st.lists(line, max_size=9).map(lambda lines: b"\r\n".join([*lines, b"", b""]))
    return st.one_of(valid, made, st.binary(max_size=300), st.tuples(valid, st.binary(max_size=60)).map(b"".join))


@st.composite
def torn(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes, damaged here and there, cut off somewhere, and in pieces."""
    whole = bytearray(draw(data))
    for _ in range(draw(st.integers(0, 2))):
        if whole:
            whole[draw(st.integers(0, len(whole) - 1))] ^= draw(st.integers(1, 255))
    if draw(st.booleans()):
        del whole[draw(st.integers(0, len(whole))) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [bytes(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True) if a < b]


@modest
@given(
    st.lists(
        st.builds(Attack, st.sampled_from(["nowhere"]), torn(heads()), st.sampled_from(ENDS), st.just(False), st.booleans()),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_broken_heads(attacks: list[Attack]) -> None:
    strike_all(attacks)


# --- frames


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame that may break any rule."""
    opcode = draw(st.sampled_from([0, 1, 2, 8, 9, 10, 1, 2, 3, 11, 15]))
    first = opcode | draw(st.sampled_from([0x80, 0x80, 0x80, 0, 0xC0, 0x90]))
    payload = draw(
        st.one_of(st.binary(max_size=140), st.sampled_from([b"", b"\x03\xe8", b"\x03", b"{}", b"\xff" * 200]))
    )
    masked = draw(st.sampled_from([True, True, True, True, False]))
    size = len(payload) if draw(st.integers(0, 9)) else draw(st.sampled_from([0, 5, 126, 2**16, 2**40, 2**63]))
    if size < 126:
        head = bytes((first, size | 0x80 * masked))
    elif size < 2**16 and draw(st.integers(0, 9)):
        head = bytes((first, 126 | 0x80 * masked)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 127 | 0x80 * masked)) + size.to_bytes(8, "big")
    return head + b"\x00\x00\x00\x00" * masked + payload


@modest
@given(
    st.lists(
        st.builds(Attack, st.sampled_from(PLACES), torn(st.lists(frames(), max_size=6).map(b"".join)),
                  st.sampled_from(ENDS), st.just(True), st.booleans()),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_broken_frames(attacks: list[Attack]) -> None:
    strike_all(attacks)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["session", "telemetry", "writer", "reader"]), st.integers(0, 2**32))
def test_a_valid_conversation_reset_at_any_byte(place: str, seed: int) -> None:
    """Also within the upgrade's head: forty connections, each cut somewhere else."""
    chance = random.Random(seed)
    text = json.dumps({"type": "registerfunction", "id": "f"}).encode()
    talk = b"".join([frame(TEXT, text, mask=MASK), frame(TEXT, b"x" * 200, mask=MASK), frame(9, b"hi", mask=MASK)])

    async def main() -> None:
        async with open_target() as target, trio.open_nursery() as nursery:
            for _ in range(40):
                path = await path_of(target, place)
                whole = upgrade(path) + talk
                nursery.start_soon(cut_at, target, whole, chance.randrange(len(whole) + 1), chance.choice(ENDS[:3]))

    async def cut_at(target: Target, whole: bytes, n: int, end: str) -> None:
        client = await Client.connect(target.port)
        await client.send(whole[:n])
        if n % 3:
            await trio.sleep(0.002)
        {"fin": client.fin, "reset": client.reset, "drop": client.drop}[end]()
        if end == "fin":
            await client.read_to_the_end()
            client.drop()

    trio.run(main)


# --- messages, and sequences of them


IDS: Final = ["0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b11", "0b7f1a36-6a53-4d0e-9d8b-0f2f6f0c5b12", "x", "", None, 7]
TYPES: Final = [
    "invokefunction", "invokefunction", "invocationresult", "registerfunction", "unregisterfunction", "registertrigger",
    "unregistertrigger", "registertriggertype", "unregistertriggertype", "triggerregistrationresult", "registerservice",
    "ping", "pong", "workerregistered", "reattach", "registrationrejected", "error", "cancelinvocation", "channelended",
    "novel", "", None, 7,
]  # fmt: skip
ANYTHING: Final = st.recursive(
    st.sampled_from([None, True, 0, -1, 1e308, 2**70, "", "é", "\ud800", float("nan"), "f", "echo"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "type", ""]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES: Final = st.sampled_from(
    ["echo", "f", "g", "engine::channels::create", "engine::workers::register", "engine::nothing", "", " ", None, 7]
)
FIELDS: Final = {
    "invocation_id": st.sampled_from(IDS),
    "function_id": NAMES,
    "id": NAMES,
    "data": ANYTHING | st.sampled_from([{"buffer_size": -1}, {"max_bytes": 0}, {"namespace": " "}, {"pid": -5}, {}]),
    "result": ANYTHING,
    "error": ANYTHING | st.just({"code": "c", "message": "m"}),
    "metadata": ANYTHING,
    "action": st.sampled_from([None, {"type": "void"}, {"type": "enqueue", "queue": "q"}, {"type": "x"}, "void", 7]),
    "namespace": st.sampled_from([None, "default", "", "other", 7]),
    "trigger_type": NAMES,
    "config": ANYTHING,
    "invocation": ANYTHING,
    "previous_worker_id": st.sampled_from(IDS),
    "reattach_token": st.sampled_from(["", "x", None]),
}


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message of any type, with any fields, some of them of the right shape."""
    message: dict[str, Any] = {"type": draw(st.sampled_from(TYPES))}
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=6)):
        message[name] = draw(FIELDS[name])
    text = json.dumps(message).encode()
    damage = draw(st.integers(0, 12))
    if damage == 0:
        return draw(st.sampled_from([b"", b"null", b"[]", b"[" * 9000, text[:-1], text + text, b"\x00", text[1:]]))
    if damage == 1:
        return text.replace(b"null", b"NaN").replace(b"0", "\x7f\u00ff".encode())
    return text


@modest
@given(st.lists(st.lists(messages(), max_size=14), min_size=1, max_size=4))
def test_broken_messages_and_sequences(conversations: list[list[bytes]]) -> None:
    """No message ends a session whose frames are whole: it is answered to its last, and others are not disturbed."""

    async def converse(target: Target, texts: list[bytes]) -> None:
        client = await Client.upgraded(target.port, "/")
        for text in texts:
            assert await client.send(frame(TEXT, text, mask=MASK))
        assert await client.send(frame(TEXT, b'{"type":"ping"}', mask=MASK))
        said = b""
        with trio.fail_after(10):
            while b'{"type":"pong"}' not in said.rpartition(b"\x81\x0f")[2]:
                more = await client.sock.recv(65536)
                assert more, said
                said += more
        client.drop()

    async def main() -> None:
        async with open_target() as target:
            async with trio.open_nursery() as nursery:
                for texts in conversations:
                    nursery.start_soon(converse, target, texts)
            await target.wait_nothing_left()

    trio.run(main)


# --- those who are slow on purpose


async def test_a_head_that_trickles_in_is_cut_off_in_time() -> None:
    async with open_target() as target:
        clients = [await Client.connect(target.port) for _ in range(20)]
        began = trio.current_time()

        async def trickle(client: Client) -> None:
            for byte in b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000:
                if not await client.send(bytes((byte,))):
                    break
                await trio.sleep(0.01)
            client.drop()

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(trickle, client)
        assert trio.current_time() - began < 3
        await target.wait_nothing_left()


@pytest.mark.parametrize("part", [b"", b"GET / HT", upgrade("/")[:-2]])
async def test_a_connection_that_says_nothing_more_is_dropped_in_time(part: bytes) -> None:
    async with open_target() as target:
        client = await Client.connect(target.port)
        await client.send(part)
        with trio.fail_after(3):
            await client.read_to_the_end()
        client.drop()
        await target.wait_nothing_left()


async def test_a_peer_that_closes_and_keeps_the_connection_open_is_dropped_in_time() -> None:
    async with open_target() as target:
        for data in (frame(CLOSE, close_payload(1000), mask=MASK), frame(3, b"", mask=MASK), frame(TEXT, b"unmasked")):
            client = await Client.upgraded(target.port, "/")
            await client.send(data)
            await target.wait_nothing_left()
            client.drop()


async def test_too_many_connections_are_told_so() -> None:
    config = attrs.evolve(QUICK, limits=attrs.evolve(QUICK.limits, connections=3))
    async with open_target(config) as target:
        held = [await Client.upgraded(target.port, "/otel") for _ in range(2)]
        late = await Client.connect(target.port)
        await late.send(upgrade("/"))
        assert b"503 Service Unavailable" in await late.read_to_the_end()
        for client in [*held, late]:
            client.drop()
        await target.wait_nothing_left()


async def test_a_message_above_the_limit_costs_its_sender_the_session_and_says_why() -> None:
    config = attrs.evolve(QUICK, limits=Limits(message_bytes=1000))
    async with open_target(config) as target:
        client = await Client.upgraded(target.port, "/")
        await client.send(frame(TEXT, b"x" * 1001, mask=MASK))
        said = await client.read_to_the_end()
        assert b"\x03\xf1a message is larger than 1000 bytes" in said
        client.drop()
        await target.wait_nothing_left()
