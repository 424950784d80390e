"""An own channel end sends pings while it is idle, if it is told to, and only then."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio import Channel, ChannelBroken, Engine, Worker, open_engine
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


class IdleProxy:
    """A proxy that cuts connections on which nothing has come from either side for `seconds`."""

    def __init__(self, engine: Engine, nursery: trio.Nursery, seconds: float) -> None:
        self.cuts = 0
        self._engine = engine
        self._nursery = nursery
        self._seconds = seconds

    async def dial(self) -> trio.abc.Stream:
        worker, near = trio.testing.memory_stream_pair()
        far, engine = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._engine.serve_stream, engine)
        self._nursery.start_soon(self._relay, near, far)
        return worker

    async def _relay(self, near: trio.abc.Stream, far: trio.abc.Stream) -> None:
        async with near, far, trio.open_nursery() as pumps:
            scope = pumps.cancel_scope

            async def pump(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
                async for data in source:
                    scope.deadline = trio.current_time() + self._seconds
                    await target.send_all(data)
                scope.cancel()

            scope.deadline = trio.current_time() + self._seconds
            pumps.start_soon(pump, near, far)
            pumps.start_soon(pump, far, near)
        self.cuts += trio.current_time() >= scope.deadline


@pytest.mark.parametrize(("seconds", "is_kept"), [(2.0, True), (None, False)])
@within(1000)
async def test_a_proxy_that_cuts_idle_connections_cuts_no_idle_channel_whose_ends_ping(
    seconds: float | None, is_kept: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_engine() as engine, trio.open_nursery() as nursery:
        proxy = IdleProxy(engine, nursery, 6.0)
        address = SocketAddress("ws://e", dial=proxy.dial, channel_ping_seconds=seconds)
        async with open_worker(address, name="w") as worker:
            channel = await nursery.start(hold_channel, worker)
            await trio.sleep(100)
            assert (proxy.cuts == 0) is is_kept
            if is_kept:
                nursery.start_soon(channel.writer.send, b"after a while")
                assert await channel.reader.receive() == b"after a while"
            else:
                with pytest.raises(ChannelBroken):
                    await channel.reader.receive()
            nursery.cancel_scope.cancel()


async def hold_channel(worker: Worker, *, task_status: trio.TaskStatus[Channel]) -> None:
    async with worker.create_channel() as channel:
        task_status.started(channel)
        await trio.sleep_forever()
