"""A writer of the Python SDK whose reader pauses: its pings are answered out of the read-ahead (clause C3.4).

The SDK's own keepalive ends the connection 20 s after a ping without an answer. One test for both rates, as it takes 100 s
of real time.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from .conftest import Mesh
from .content import pieces

pytestmark = [pytest.mark.sdk, pytest.mark.slow]

PAUSE_SECONDS = 90
BYTES = 100


@pytest.mark.timeout(200)
async def test_a_writer_at_1_and_20_messages_a_second_survives_a_reader_that_pauses_for_90_seconds(mesh: Mesh) -> None:
    await mesh.start(once="python", often="python")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_beside_a_pause, mesh, "once", 1)
        nursery.start_soon(write_beside_a_pause, mesh, "often", 20)


async def write_beside_a_pause(mesh: Mesh, writer: str, each_second: int) -> None:
    """Nothing is taken for 90 s; then the whole stream is there, and complete."""
    total = PAUSE_SECONDS * each_second * BYTES
    wrote: dict[str, Any] = {}
    async with mesh.app.create_channel(buffer_size=4) as channel, trio.open_nursery() as nursery:

        async def write() -> None:
            payload = {
                "writer": channel.writer_ref,
                "total": total,
                "chunk": BYTES,
                "pause_seconds": 1 / each_second,
            }
            wrote.update(await mesh.call(f"{writer}::write", payload, timeout=PAUSE_SECONDS + 60))

        nursery.start_soon(write)
        await trio.sleep(PAUSE_SECONDS)
        whole = bytearray()
        async for item in channel.reader.chunks():
            whole += item
    assert wrote.get("error") is None, wrote
    assert len(whole) == total and whole == b"".join(pieces(total, BYTES))
    assert await mesh.outcome(channel.id) == "completed"
