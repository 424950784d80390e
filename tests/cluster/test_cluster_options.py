"""What `iii-trio serve` says of a node's address."""

from __future__ import annotations

import pytest

from iii_trio.cli.cluster import warn_of_advertised
from iii_trio.config import Auth, EngineConfig, Listener, Tls
from iii_trio.triggers.cluster.settings import ClusterConfig


@pytest.mark.parametrize(
    ("advertise", "addresses", "is_served"),
    [
        ("ws://10.0.0.5:49134", ["ws://10.0.0.5:49134"], True),
        ("ws://10.0.0.5", ["ws://10.0.0.5:49134"], True),
        ("wss://10.0.0.5:443", ["unix:/engine.sock", "wss://0.0.0.0:443"], True),
        ("ws://[fd00::5]:49134", ["ws://[::]:49134"], True),
        ("ws://node-five:49134", ["ws://10.0.0.5:49134"], True),
        ("ws://localhost:49134", ["ws://127.0.0.1:49134"], True),
        ("ws://10.0.0.5:49135", ["ws://10.0.0.5:49134"], False),
        ("ws://10.0.0.6:49134", ["ws://10.0.0.5:49134"], False),
        ("ws://10.0.0.5:49134", ["ws://127.0.0.1:49134"], False),
        ("ws://node-five:49134", ["ws://127.0.0.1:49134", "ws://[::1]:49134"], False),
        ("ws://localhost:49134", ["ws://10.0.0.5:49134"], False),
        ("ws://10.0.0.5:49134", ["unix:/engine.sock"], False),
    ],
)
def test_an_advertised_address_that_no_listener_serves_is_warned_of(
    advertise: str, addresses: list[str], is_served: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = ClusterConfig(store="valkey://h/mesh", advertise=advertise, token="t")
    warn_of_advertised(EngineConfig(modules={"cluster": cluster}), addresses)
    warning = (
        f"this engine listens at {', '.join(addresses)}, which does not serve {advertise}: the other nodes reach it only if "
        "something passes their connections on; otherwise correct --advertise, or the listener"
    )
    assert caplog.messages == ([] if is_served else [warning])


@pytest.mark.parametrize(
    ("listener", "advertise", "is_open"),
    [
        (Listener("10.0.0.5", 1), "ws://10.0.0.5:1", True),
        (Listener("10.0.0.5", 1, tls=Tls("c")), "wss://10.0.0.5:1", True),
        (Listener("10.0.0.5", 1, tls=Tls("c", clients="ca")), "wss://10.0.0.5:1", False),
        (Listener("10.0.0.5", 1, auth=Auth(tokens=("t",))), "ws://10.0.0.5:1", False),
        (Listener("127.0.0.1", 1), "ws://10.0.0.5:1", False),
        (Listener("0.0.0.0", 1), "ws://127.0.0.1:1", True),
        (Listener("10.0.0.5", 2), "ws://10.0.0.5:1", False),
    ],
)
def test_an_advertised_listener_that_admits_all_is_warned_of(
    listener: Listener, advertise: str, is_open: bool, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = ClusterConfig(store="valkey://h/mesh", advertise=advertise, token="t")
    warn_of_advertised(EngineConfig(listeners=(listener,), modules={"cluster": cluster}), [advertise])
    assert [each.startswith("the listener at port 1 asks for neither") for each in caplog.messages] == [True] * is_open


def test_an_engine_that_is_no_node_is_warned_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_advertised(EngineConfig(), ["ws://127.0.0.1:49134"])
    assert not caplog.messages
