"""Every kind of line in the engine's log, as JSON: it says about which session, function or channel it is."""

from __future__ import annotations

import io
import json
import logging
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trio.testing

from iii_trio import EngineConfig, Limits, QueueConfig, Timeouts, open_engine
from iii_trio.cli.logs import configure_logging
from iii_trio.config import Auth, Listener
from iii_trio.engine.admit import serve_stream
from iii_trio.engine.policy import ListenerPolicy
from iii_trio.triggers.observability.settings import ObservabilityConfig
from tests.helpers.bare import Bare, connected, within

REGISTER = "engine::workers::register"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    logger = logging.getLogger("iii_trio")
    before = logger.handlers[:], logger.level, logger.propagate
    stream = io.StringIO()
    configure_logging("debug", stream)
    yield stream
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in found if line["logger"] == "iii_trio.engine"]


async def settled(bare: Bare) -> None:
    """The engine has read all that was sent."""
    await bare.say(9, b"?")
    while (frame := await bare.frame()) is not None and frame != (10, b"?"):
        pass


async def void(bare: Bare, function_id: str, **data: Any) -> None:
    await bare.tell(type="invokefunction", function_id=function_id, data=data, action={"type": "void"})


KINDS: dict[str, set[str]] = {
    # of sessions
    r"worker \S+ connected": {"session", "peer"},
    r"worker '(?:a|b|iii-queue|iii-observability)' .* serves in namespace 'default'": {"session", "namespace"},
    r"worker 'b' .* names its namespace too late": {"session"},
    r"worker \S+ did not name its namespace in time": {"session"},
    r"^worker 'a' .* is gone": {"session"},
    r"worker \S+ was refused: worker 'a' .* has the name": {"session"},
    r"comes back as one that is gone already": {"session", "previous"},
    # of functions
    r"may not register engine::log::info": {"session", "function"},
    r"may not register taken: worker \S+ has it": {"session", "function"},
    r"may not register toomany: it has 1 functions": {"session", "function"},
    r"registered remote, calls of which are refused: it is to be invoked over HTTP": {"session", "function"},
    # of calls
    r"a void call by worker 'a' .* went nowhere: Function nope": {"session", "function"},
    r"worker 'a' .* sent a message that cannot be read": {"session"},
    # of triggers
    r"may not provide engine::workers-available: the engine itself does": {"session", "trigger_type"},
    r"may not provide tide: `namespace` is empty": {"session", "trigger_type"},
    r"a binding by worker 'b' .* was refused: `namespace` is empty": {"session", "binding", "function"},
    r"refused the binding b2": {"session", "binding", "trigger_type", "function"},
    r"engine::workers-available called nobody": {"binding", "trigger_type", "function"},
    # workers' own words
    r"worker 'a' .*: a word": {"session", "trace_id", "data"},
    r"telemetry \(resourceLogs\) that cannot be read": {"session"},
    r"unknown: by telemetry": {"session", "service_name"},
    # of channels
    r"channel \S+ ended: owner_lost": {"channel", "outcome", "owner"},
    r"the read end of channel \S+ was refused": {"channel", "status", "peer"},
    r"the tracer failed": {"channel"},
    # of connections that are nobody's yet
    r"a connection was refused: a token is needed": {"peer", "status"},
    r"a connection was refused: .*as many sessions as it may": {"peer", "status"},
    r"a connection was dropped before its upgrade: it took too long": {"peer"},
    r"a telemetry connection was ended: it broke the protocol": {"peer"},
}
OF_THE_ENGINE = {r"draining: \d+ calls and \d+ channels are under way"}


@within(600)
async def test_every_line_says_what_it_is_about(autojump_clock: trio.testing.MockClock, log: io.StringIO) -> None:
    def fail(span: object) -> None:
        raise RuntimeError

    limits = Limits(functions_per_session=1, sessions=4)
    config = EngineConfig(
        limits=limits,
        timeouts=Timeouts(registration_grace_seconds=2),
        modules={"queue": QueueConfig(), "observability": ObservabilityConfig()},
    )
    async with open_engine(config, on_channel_span=fail) as engine:
        async with connected(engine) as a, connected(engine) as b:
            await void(a, REGISTER, name="a")
            await void(b, REGISTER, name="b", pid=1)
            await void(b, REGISTER, name="b", namespace="late")
            await b.tell(type="registertrigger", id="b1", trigger_type="engine::workers-available", function_id="nope")
            async with connected(engine) as twin, connected(engine) as nameless, connected(engine, "/") as fifth:
                assert fifth.status == 503
                await void(twin, REGISTER, name="a")
                await trio.testing.wait_all_tasks_blocked()
                await a.say(10)  # its sign of life, so that the twin is refused
                await nameless.tell(type="reattach", previous_worker_id=str(uuid.uuid4()), reattach_token="t")
                await nameless.tell(type="registerfunction", id="late")
                await trio.sleep(3)
            for function_id in ("engine::log::info", "taken", "toomany"):
                await b.tell(type="registerfunction", id=function_id)
            await a.tell(type="registerfunction", id="remote", invocation={"url": "http://nowhere"})
            await settled(b)
            await a.tell(type="registerfunction", id="taken")
            await void(a, "nope")
            await void(a, "engine::log::warn", message="a word", trace_id="t", data={"x": 1})
            await a.say(1, b"nonsense")
            await a.say(2, b"LOGS{")
            await a.say(
                2, b'LOGS{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"by telemetry"}}]}]}]}'
            )
            await a.tell(type="registertriggertype", id="engine::workers-available")
            await a.tell(type="registertriggertype", id="tide", namespace=" ")
            await a.tell(type="registertriggertype", id="wind")
            await settled(a)
            await b.tell(type="registertrigger", id="b2", trigger_type="wind", function_id="f")
            await b.tell(type="registertrigger", id="b3", trigger_type="wind", function_id="f", namespace=" ")
            await settled(b)
            await a.tell(
                type="triggerregistrationresult", id="b2", trigger_type="wind", function_id="f",
                error={"code": "no", "message": "not here"},
            )  # fmt: skip
            await void(a, "engine::channels::create")
            await settled(a)
            (channel,) = engine.channels()
            async with connected(engine, f"/ws/channels/{channel.id}?key={uuid.uuid4()}&dir=read") as attaching:
                assert attaching.status == 404
            async with connected(engine, "/otel") as telemetry:
                await telemetry.say(3, b"")
                await telemetry.frame()
        await _strangers(engine._shell)
        await trio.sleep(20)
        await engine.drain(0)
    said = lines(log)
    for kind, ids in KINDS.items():
        of_kind = [line for line in said if re.search(kind, line["message"])]
        assert of_kind, f"there was no line: {kind}"
        for line in of_kind:
            assert {f"iii_{id_}" for id_ in ids} <= line.keys(), line
            assert all(line[f"iii_{id_}"] or id_ in ("peer", "namespace") for id_ in ids), line
    for line in said:
        assert any(re.search(kind, line["message"]) for kind in {*KINDS, *OF_THE_ENGINE, "is gone"}), (
            f"of no kind: {line}"
        )
        assert line["iii_engine"] == "iii-trio"


async def _strangers(shell: Any) -> None:
    """Connections that do not come so far as to be anybody's."""
    tight = ListenerPolicy.from_config(Listener(auth=Auth(tokens=("t",))))
    for policy, request in ((tight, b"GET / HTTP/1.1\r\nHost: e\r\n" + _UPGRADE), (ListenerPolicy(), b"")):
        near, far = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_stream, shell, far, "10.0.0.9", policy)
            if request:
                await near.send_all(request)
                await near.receive_some()
            else:
                await trio.sleep(11)
            await trio.aclose_forcefully(near)


_UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
