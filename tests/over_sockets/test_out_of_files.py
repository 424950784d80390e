"""An engine that is out of file descriptors serves on, and can be told to stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio


async def test_an_engine_without_a_free_descriptor_drains_and_exits_with_0(tmp_path: Path) -> None:
    serve = f"ulimit -n 40; exec {sys.executable} -m iii_trio serve --port 0 --data {tmp_path}"
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(["sh", "-c", serve], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        held: list[socket.socket] = []
        log = bytearray()
        try:
            assert process.stdout is not None and process.stderr is not None

            async def read_log(stream: trio.abc.ReceiveStream) -> None:
                async for data in stream:
                    log.extend(data)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_log, process.stderr)
                nursery.start_soon(read_log, process.stdout)
                while b"127.0.0.1:" not in log:  # noqa: ASYNC110 - a process tells by its output only
                    await trio.sleep(0.01)
                port = int(log.partition(b"127.0.0.1:")[2].split()[0])
                for _ in range(60):
                    held.append(socket.create_connection(("127.0.0.1", port)))
                await trio.sleep(0.3)  # out of descriptors by now, and between two tries to accept
                process.send_signal(signal.SIGTERM)
                assert await process.wait() == 0, log.decode()
            assert b"Traceback" not in log
        finally:
            for connection in held:
                connection.close()
            if process.returncode is None:
                process.kill()
                await process.wait()
