"""Workers on the unmodified SDKs of PyPI and npm, with their telemetry on as by default. Their spans and the engine's are
one trace across a call, a channel, a job and its retry: promises O2, O4, O5 and O7 of docs/observability.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

import iii_trio
from iii_trio import EngineConfig, Listener, QueueConfig, QueueSettings
from tests.observability.observed import PARENT, SAMPLED, TRACE, names, observed, spans, tree, walk

from .conftest import STEP_SECONDS, needs
from .processes import open_peer

pytestmark = pytest.mark.sdk

SECRET = "hunter2-never-recorded"


async def all_spans(app: iii_trio.Worker, count: int) -> list[dict[str, Any]]:
    """The roots of the trace, once all spans are there: SDKs send theirs some seconds later."""
    found: list[dict[str, Any]] = []
    with trio.move_on_after(STEP_SECONDS):
        while len(list(walk(found))) < count:
            await trio.sleep(0.1)
            found = await tree(app)
    return found


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("python", "node", marks=needs("node")),
        pytest.param("node", "python", marks=needs("node")),
        ("python", "python"),
    ],
)
async def test_the_spans_of_sdks_and_of_the_engine_are_one_trace(first: str, second: str, tmp_path: Path) -> None:
    mail = QueueConfig(queues={"mail": QueueSettings(max_attempts=2, backoff_seconds=0.05)})
    config = EngineConfig(listeners=(Listener(port=0),), modules={"observability": observed(), "queue": mail})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("app") as app:
        (url,) = map(str, await engine.listen())
        async with (
            open_peer(first, url, tmp_path, name="one", telemetry=True),
            open_peer(second, url, tmp_path, name="two", telemetry=True),
        ):
            secret = {"message": SECRET}
            for function, payload in (
                ("one::call", {"function_id": "two::echo", "payload": secret}),
                ("one::create_and_write", {"function_id": "two::read", "payload": {}, "total": 1000}),
                ("one::call", {"function_id": "two::fail", "payload": secret, "queue": "mail"}),
            ):
                await app.trigger(function, payload, traceparent=SAMPLED)
            roots = await all_spans(app, 4 + 6 + 9)
            recorded = await spans(app, trace_id=TRACE)
    assert names(roots) == [
        ["call one::call", ["execute one::call", ["call two::echo", ["execute two::echo"]]]],
        [
            "call one::create_and_write",
            [
                "execute one::create_and_write",
                ["call engine::channels::create"],
                ["channel"],
                ["call two::read", ["execute two::read"]],
            ],
        ],
        [
            "call one::call",
            [
                "execute one::call",
                [
                    "enqueue two::fail → mail",
                    *[["fn_queue mail", ["call two::fail", ["execute two::fail"]]]] * 2,
                ],
            ],
        ],
    ]
    assert {root["parent_span_id"] for root in roots} == {PARENT}
    services = Counter(span["service_name"] for span in recorded)
    assert services.pop("iii") == 19 - 7 and sum(services.values()) == 7
    channel = next(row for row in walk(roots) if row["name"] == "channel")
    assert dict(map(tuple, channel["attributes"]))["iii.channel.bytes"] == "1000"
    # What the engine records holds nothing of payloads and errors. What SDKs say about their own errors is theirs.
    assert SECRET not in str([span for span in recorded if span["service_name"] == "iii"])
