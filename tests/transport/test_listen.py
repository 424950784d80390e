"""Listening: where asked, said in one sentence if not, and pausing when the system is out of room."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from iii_trio.errors import ConnectionFailed
from iii_trio.transport.listen import ListeningSocket


async def test_port_0_is_a_port_of_the_systems_choice() -> None:
    (listening,) = await ListeningSocket.bind("127.0.0.1", 0)
    assert listening.port and listening.url() == f"ws://127.0.0.1:{listening.port}"
    assert listening.url(secure=True).startswith("wss://")
    listening.close()
    listening.close()


async def test_a_name_with_two_addresses_has_one_port() -> None:
    bound = await ListeningSocket.bind("localhost", 0)
    assert len({listening.port for listening in bound}) == 1
    for listening in bound:
        listening.close()


async def test_an_address_of_ip_6_is_written_in_brackets() -> None:
    try:
        (listening,) = await ListeningSocket.bind("::1", 0)
    except ConnectionFailed as error:
        pytest.skip(f"no IPv6 here: {error}")
    assert listening.url() == f"ws://[::1]:{listening.port}"
    listening.close()


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    (first,) = await ListeningSocket.bind("127.0.0.1", 0)
    with pytest.raises(ConnectionFailed) as failed:
        await ListeningSocket.bind("127.0.0.1", first.port)
    assert str(failed.value) == (
        f"cannot listen at 127.0.0.1:{first.port}: the port is in use; choose another, or stop what uses it"
    )
    first.close()


@pytest.mark.parametrize("host", ["198.51.100.7", "no such host"])
async def test_an_address_that_is_not_ours_is_said_with_its_cause(host: str) -> None:
    with pytest.raises(ConnectionFailed, match=f"cannot listen at {host}:0: .+"):
        await ListeningSocket.bind(host, 0)


async def test_connections_are_given_out_until_it_is_closed() -> None:
    (listening,) = await ListeningSocket.bind("127.0.0.1", 0)
    welcomed: list[socket.socket] = []

    async def handle_connection(connection: socket.socket) -> None:
        welcomed.append(connection)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.accept_each, handle_connection, nursery)
            clients = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(5)]
            while len(welcomed) < 5:
                await trio.testing.wait_all_tasks_blocked()
            listening.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(clients[0].getpeername()[1])))
    for sock in (*clients, *welcomed):
        sock.close()


class _CloseAtTheWake(trio.abc.Instrument):
    """Closes the socket when its task was woken by a connection, before the task has its turn."""

    def __init__(self, listening: ListeningSocket) -> None:
        self.listening = listening
        self.turns = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.endswith("accept_each"):
            self.turns += 1
            if self.turns == 2:
                self.listening.close()


async def test_closing_between_a_connection_and_its_acceptance_ends_the_accepting() -> None:
    (listening,) = await ListeningSocket.bind("127.0.0.1", 0)
    closer = _CloseAtTheWake(listening)
    trio.lowlevel.add_instrument(closer)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.accept_each, trio.sleep_forever, nursery)
            await trio.testing.wait_all_tasks_blocked()
            client = socket.create_connection(("127.0.0.1", listening.port))
    trio.lowlevel.remove_instrument(closer)
    assert closer.turns == 2
    client.close()


class _Exhausted:
    """A listening socket on a system without room for new files, until a moment in time."""

    def __init__(self, sock: socket.socket, error: int) -> None:
        self.sock = sock
        self.error = error
        self.tries: list[float] = []

    def accept(self) -> Any:
        self.tries.append(trio.current_time())
        if len(self.tries) <= 10:
            raise OSError(self.error, "no")
        return self.sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_without_room_it_pauses_and_goes_on_when_there_is_some(
    error: int, autojump_clock: trio.testing.MockClock
) -> None:
    (listening,) = await ListeningSocket.bind("127.0.0.1", 0)
    exhausted = _Exhausted(listening._sock, error)
    listening._sock = exhausted  # type: ignore[assignment]
    welcomed = trio.Event()

    async def handle_connection(connection: socket.socket) -> None:
        connection.close()
        welcomed.set()

    with socket.create_connection(("127.0.0.1", listening.port)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.accept_each, handle_connection, nursery)
            await welcomed.wait()
            nursery.cancel_scope.cancel()
    assert len(exhausted.tries) == 11
    assert exhausted.tries[-1] - exhausted.tries[0] >= 0.9, "it does not spin meanwhile"
    listening.close()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOMEM])
async def test_closing_while_there_is_no_room_ends_the_accepting_at_once(
    error: int, autojump_clock: trio.testing.MockClock
) -> None:
    (listening,) = await ListeningSocket.bind("127.0.0.1", 0)
    exhausted = _Exhausted(listening._sock, error)
    listening._sock = exhausted  # type: ignore[assignment]

    async def handle_connection(connection: socket.socket) -> None:
        raise AssertionError("nothing is accepted")

    with socket.create_connection(("127.0.0.1", listening.port)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.accept_each, handle_connection, nursery)
            await trio.sleep(0.25)
            closed_at = trio.current_time()
            listening.close()
        assert trio.current_time() == closed_at and exhausted.tries


@pytest.mark.parametrize("mode", [0o600, 0o660])
@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
async def test_a_unix_socket_has_its_mode_whatever_the_umask(mode: int, umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        listening = ListeningSocket.bind_unix(str(tmp_path / "s"), mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == mode
    listening.set_mode(0o666)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o666
    listening.close()


@pytest.mark.parametrize(
    "error", [errno.ECONNABORTED, errno.EINTR, errno.EAGAIN, errno.EPROTO, errno.EHOSTUNREACH, errno.EPERM]
)
async def test_a_connection_that_is_gone_before_it_is_accepted_is_no_event(
    error: int, autojump_clock: trio.testing.MockClock
) -> None:
    (listening,) = await ListeningSocket.bind("127.0.0.1", 0)
    exhausted = _Exhausted(listening._sock, error)
    listening._sock = exhausted  # type: ignore[assignment]
    welcomed = trio.Event()

    async def handle_connection(connection: socket.socket) -> None:
        connection.close()
        welcomed.set()

    with socket.create_connection(("127.0.0.1", listening.port)):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listening.accept_each, handle_connection, nursery)
            await welcomed.wait()
            nursery.cancel_scope.cancel()
    assert exhausted.tries[-1] == exhausted.tries[0]
    listening.close()
