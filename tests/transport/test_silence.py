"""Peers whose kernel is silent (clause C3.3): real packets, dropped for ever by a network of its own.

Slow and dead look alike to a sender that only sees a full buffer. The kernel knows which it is: a live peer that does not
read still acknowledges.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest
import trio

from iii_trio.transport.socket import Socket

LIMIT = 1.0  # seconds; the least that a kernel's keepalive knows
PEER = "import signal, socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); signal.pause()"


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=10)


@attrs.frozen
class Wire:
    """A link into a network namespace, in which a process may live that then is out of reach.

    Names and addresses come from this process's id, so that runs at the same time do not meet.
    """

    pid: int = attrs.field(factory=os.getpid)

    @property
    def namespace(self) -> str:
        return f"iii-test-{self.pid}"

    @property
    def near_device(self) -> str:
        return f"iii{self.pid:x}n"  # a device's name has at most 15 characters

    @property
    def far_device(self) -> str:
        return f"iii{self.pid:x}f"

    @property
    def near(self) -> str:
        return self._address(1)

    @property
    def far(self) -> str:
        return self._address(2)

    def _address(self, host: int) -> str:
        network = self.pid % (1 << 14)  # one of the networks of four addresses in 10.213.0.0/16
        return f"10.213.{network >> 6}.{(network & 63) * 4 + host}"

    def connect(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """Our end of a connection to a process over there, which never reads."""
        with socket.create_server((self.near, 0)) as listening:
            listening.settimeout(10)
            command = ["ip", "netns", "exec", self.namespace, sys.executable, "-c", PEER, self.near]
            process = subprocess.Popen([*command, str(listening.getsockname()[1])])
            connection, _ = listening.accept()
        return connection, process

    def cut(self) -> None:
        """From now on every packet vanishes, both ways, and nobody is told."""
        done = ip("-n", self.namespace, "link", "set", self.far_device, "down")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    near, far, namespace = wire.near_device, wire.far_device, wire.namespace
    steps = (
        ("netns", "add", namespace),
        ("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace),
        ("addr", "add", f"{wire.near}/30", "dev", near),
        ("link", "set", near, "up"),
        ("-n", namespace, "addr", "add", f"{wire.far}/30", "dev", far),
        ("-n", namespace, "link", "set", far, "up"),
    )
    try:
        for step in steps:
            try:
                done = ip(*step)
            except FileNotFoundError:
                pytest.skip("there is no `ip` to make a network of its own with")
            if done.returncode:
                pytest.skip(f"no network of its own can be made here: ip {' '.join(step)}: {done.stderr.strip()}")
        yield wire
    finally:
        try:
            ip("link", "del", near)
            ip("netns", "del", namespace)
        except FileNotFoundError:
            pass


@pytest.fixture
async def connection(wire: Wire) -> AsyncIterator[Socket]:
    """Our end of a connection over the wire."""
    near, process = await trio.to_thread.run_sync(wire.connect)
    ours = Socket(near, dead_peer_seconds=LIMIT)
    try:
        yield ours
    finally:
        ours.close()
        process.kill()
        process.wait()


@pytest.mark.slow
async def test_a_peer_that_vanishes_while_a_send_is_blocked_is_found_dead(wire: Wire, connection: Socket) -> None:
    with trio.fail_after(20):
        with trio.move_on_after(LIMIT * 3):  # it does not read, and is alive: nobody is dropped for that
            while True:
                await connection.send_all(bytes(65536))
        wire.cut()
        connection.write_now([b"x"])
        begun = trio.current_time()
        with pytest.raises(trio.BrokenResourceError, match=r"silent for \d+ s|Connection timed out"):
            await connection.wait_send_all_might_not_block()
        assert trio.current_time() - begun < LIMIT * 12


async def test_a_peer_that_vanishes_with_data_on_its_way_is_found_dead(wire: Wire, connection: Socket) -> None:
    """Not full yet: what was sent is not acknowledged any more."""
    wire.cut()
    with trio.fail_after(20):
        with pytest.raises(trio.BrokenResourceError, match="silent for"):
            while True:
                await connection.send_all(bytes(65536))


@pytest.mark.slow
async def test_a_peer_that_vanishes_while_nothing_is_said_is_found_dead(wire: Wire, connection: Socket) -> None:
    wire.cut()
    with trio.fail_after(30):
        with pytest.raises(trio.BrokenResourceError, match=r"timed out|No route to host"):
            await connection.receive_some()


async def test_a_peer_that_is_alive_and_does_not_read_is_not_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
    ours = Socket(near, dead_peer_seconds=LIMIT)
    with far:
        with trio.move_on_after(LIMIT * 3) as patience:
            while True:
                await ours.send_all(bytes(65536))
        assert patience.cancelled_caught
    ours.close()
