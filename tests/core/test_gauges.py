"""The gauges of a worker are kept for a while, and telemetry passes the core unread."""

from __future__ import annotations

import pytest

from iii_trio.core.effects import PassTelemetry
from iii_trio.core.gauges import latest_metrics
from iii_trio.wire.telemetry import Telemetry, telemetry_kind
from tests.helpers.conversation import Conversation, Peer


def gauges(talk: Conversation, worker_id: str, values: dict[str, float], time_ms: int = 7) -> None:
    talk.hub.show_gauges(worker_id, values, time_ms, talk.now)


def shown(talk: Conversation, peer: Peer) -> dict[str, object] | None:
    return latest_metrics(peer.session, talk.now)


def test_the_latest_gauges_of_a_worker_are_shown_for_two_minutes() -> None:
    talk = Conversation()
    peer, other = talk.join("peer"), talk.join("other")
    gauges(talk, peer.id, {"cpu_percent": 1.0, "memory_rss": 2.0}, 5)
    gauges(talk, "nobody", {"cpu_percent": 9.0})
    gauges(talk, peer.id, {"cpu_percent": 4.0}, 6)
    assert shown(talk, peer) == {"cpu_percent": 4.0, "memory_rss": 2.0, "timestamp_ms": 6, "runtime": "python"}
    assert shown(talk, other) is None
    talk.wait(120.0)
    assert shown(talk, peer) is not None
    talk.wait(0.001)
    assert shown(talk, peer) is None


def test_a_worker_has_32_gauges_of_which_it_may_renew_each() -> None:
    talk = Conversation()
    peer = talk.join("peer")
    gauges(talk, peer.id, {f"g{number}": 0.0 for number in range(33)})
    assert len(peer.session.gauges) == 32 and "g31" in peer.session.gauges
    gauges(talk, peer.id, {"g0": 5.0, "another": 1.0})
    assert peer.session.gauges["g0"] == 5.0 and "another" not in peer.session.gauges


def test_the_description_of_a_worker_has_its_latest_gauges() -> None:
    talk = Conversation()
    peer, other = talk.join("peer"), talk.join("other")
    gauges(talk, peer.id, {"cpu_percent": 1.5}, 5)
    described = {name: other.ask("engine::workers::info", {"name": name})["worker"] for name in ("peer", "other")}
    assert described["peer"]["latest_metrics"] == {"cpu_percent": 1.5, "timestamp_ms": 5, "runtime": "python"}
    assert "latest_metrics" not in described["other"]


def test_a_message_of_telemetry_is_known_by_its_first_four_letters() -> None:
    texts = (b"OTLP{}", bytearray(b"MTRC"), b"LOGS{", b"LOG", b"", b'{"type":"ping"}')
    kinds = [telemetry_kind(text) for text in texts]
    assert kinds == [Telemetry.SPANS, Telemetry.METRICS, Telemetry.LOGS, None, None, None]


@pytest.mark.parametrize(("letters", "kind"), [(b"OTLP", "resourceSpans"), (b"LOGS", "resourceLogs")])
def test_telemetry_of_a_session_is_passed_on_as_it_came_whether_or_not_it_can_be_read(
    letters: bytes, kind: str
) -> None:
    talk = Conversation()
    peer = talk.join("peer")
    effects = talk.hub.received(peer.session, letters + b"{\xff", talk.now)
    assert effects == [PassTelemetry(peer.id, Telemetry(kind), letters + b"{\xff")]
