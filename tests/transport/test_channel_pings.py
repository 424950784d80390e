"""An own channel end sends pings while it is idle, if it is told to, and only then."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio import Engine, open_engine
from iii_trio.transport.dial import SocketAddress
from iii_trio.worker import open_worker
from tests.helpers.bare import within


class Counted:
    """An address whose connections count the writes of the worker's side."""

    def __init__(self, engine: Engine, nursery: trio.Nursery, seconds: float | None) -> None:
        self.writes: list[int] = []
        self._engine = engine
        self._nursery = nursery
        self.address = SocketAddress("ws://e", dial=self._dial, channel_ping_seconds=seconds)

    async def _dial(self) -> trio.abc.Stream:
        near, far = trio.testing.memory_stream_pair()
        index = len(self.writes)
        self.writes.append(0)

        pump = near.send_stream.send_all_hook
        assert pump is not None

        async def count() -> None:
            self.writes[index] += 1
            await pump()

        near.send_stream.send_all_hook = count
        self._nursery.start_soon(self._engine.serve_stream, far)
        return near


@pytest.mark.parametrize(("seconds", "pings"), [(5.0, 20), (None, 0)])
@within(1000)
async def test_idle_channel_sockets_are_kept_alive(
    seconds: float | None, pings: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine() as engine, trio.open_nursery() as nursery:
        counted = Counted(engine, nursery, seconds)
        async with open_worker(counted.address, name="w") as worker, worker.create_channel() as channel:
            async with trio.open_nursery() as ends:
                ends.start_soon(channel.writer.send, b"first")
                assert await channel.reader.receive() == b"first"
            await trio.sleep(1)
            before = list(counted.writes)
            await trio.sleep(101)
            grown = [after - was for after, was in zip(counted.writes, before, strict=True)]
            assert len(grown) == 3 and all(abs(n - pings) <= 1 for n in grown[1:]), grown
            async with trio.open_nursery() as ends:
                ends.start_soon(channel.writer.send, b"second")
                assert await channel.reader.receive() == b"second"
        nursery.cancel_scope.cancel()
