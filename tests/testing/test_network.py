"""The simulated network behaves as TCP does, in virtual time, from its seed."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio.testing import Network, SimStream
from iii_trio.transport.socket import ReadsNow, WritesNow


async def test_a_simulated_stream_keeps_trios_stream_contract() -> None:
    network = Network()

    async def make() -> tuple[SimStream, SimStream]:
        return network.pair()

    async def make_clogged() -> tuple[SimStream, SimStream]:
        near, far = network.pair()
        for end in (near, far):
            while end.write_now([bytes(100_000)]):
                pass
        return near, far

    await trio.testing.check_half_closeable_stream(make, make_clogged)
    assert isinstance(network.pair()[0], WritesNow)
    assert isinstance(network.pair()[0], ReadsNow)


async def test_with_no_delay_bytes_arrive_without_a_task_and_without_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    near, far = Network().pair()
    assert near.write_now([b"ab", b"cd"]) == 4
    assert await far.receive_some() == b"abcd"
    assert trio.current_time() == 0.0


async def test_delay_and_bandwidth_take_virtual_time(autojump_clock: trio.testing.MockClock) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        near, far = network.pair(delay_seconds=2.0, bytes_per_second=100, segment_bytes=50)
        await near.send_all(bytes(100))
        await near.send_eof()
        assert await far.receive_some() == bytes(50)
        assert trio.current_time() == pytest.approx(2.5)
        assert await far.receive_some() == bytes(50)
        assert trio.current_time() == pytest.approx(3.0)
        assert await far.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_a_reset_that_vanishes_is_made_up_for_when_the_kernel_asks_after_its_peer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with trio.open_nursery() as nursery:
        network = Network()
        await nursery.start(network.run)
        near, far = network.pair(dead_peer_seconds=20.0)
        near.vanish()
        near.reset()
        await trio.sleep(5)
        near.heal()
        with pytest.raises(trio.BrokenResourceError, match="reset by peer"):
            await far.receive_some()  # it says nothing: only its kernel's question finds the other gone
        assert trio.current_time() == 25.0
        nursery.cancel_scope.cancel()
