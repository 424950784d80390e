"""Jobs of raw clients, run in a process of their own: `python -m benchmarks.raw_clients JOB '{"port": …}'`.

Each prints one JSON object. Times are seconds of the wall clock; the cost of the process under test is `cpu_seconds`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from .cpu import cpu_seconds
from .raw_wires import READ, Session, Wire, upgrade, use_tls


def percentiles(times: list[float]) -> dict[str, float]:
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[min(len(times) - 1, len(times) * 99 // 100)]}


def throughput(port: int, pid: int, protocol: str, size: int, seconds: float) -> dict[str, Any]:
    """One writer, one reader, one pipe: as many messages of `size` bytes as pass."""
    wire = Wire(protocol, port)
    reader, writer, before = wire.pipe()
    several = max(1, (1 << 20) // size)
    blob = b"".join(wire.message(before, os.urandom(size)) for _ in range(several))
    mark = os.urandom(32)
    sent = 0

    def write() -> None:
        nonlocal sent
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            writer.sendall(blob)
            sent += several
        writer.sendall(wire.message(before, mark, plain=True))

    started, cpu = time.monotonic(), cpu_seconds(pid)
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    buffer, got, last = bytearray(READ), 0, b""
    while mark not in last:
        n = reader.recv_into(buffer)
        if not n:
            raise ConnectionError("the stream ended too soon")
        got += n
        last = last[-64:] + bytes(buffer[max(0, n - 64) : n])
    took, cpu = time.monotonic() - started, cpu_seconds(pid) - cpu
    if got < sent * size:
        raise ConnectionError(f"{got} bytes of {sent * size} arrived")
    return {"messages": sent, "seconds": took, "cpu_seconds": cpu}


def round_trips(port: int, pid: int, protocol: str, count: int, in_flight: int) -> dict[str, Any]:
    """64 bytes there by one pipe, and back by another."""
    wire = Wire(protocol, port)
    there_reader, there_writer, there = wire.pipe()
    back_reader, back_writer, back = wire.pipe()
    ask, answer = wire.message(there, b"x" * 64), wire.message(back, b"y" * 64)
    there_writer.sendall(ask)
    size = len(there_reader.recv(4096))  # of a message as it arrives

    def echo() -> None:
        rest = 0
        while data := there_reader.recv(READ):
            whole, rest = divmod(len(data) + rest, size)
            if whole:
                back_writer.sendall(answer * whole)

    threading.Thread(target=echo, daemon=True).start()
    times: list[float] = []
    started, cpu = time.monotonic(), cpu_seconds(pid)
    there_writer.sendall(ask * in_flight)
    sent, arrived, rest = in_flight, 0, 0
    before = time.perf_counter()
    while arrived < count:
        whole, rest = divmod(len(back_reader.recv(READ)) + rest, size)
        now = time.perf_counter()
        times.append(now - before)
        before = now
        arrived += whole
        more = min(whole, count - sent)
        if more > 0:
            there_writer.sendall(ask * more)
            sent += more
    took, cpu = time.monotonic() - started, cpu_seconds(pid) - cpu
    return {"count": arrived, "seconds": took, "cpu_seconds": cpu, **(percentiles(times) if in_flight == 1 else {})}


def calls(port: int, pid: int, count: int, in_flight: int) -> dict[str, Any]:
    """Calls from one worker to another."""
    callee, caller = Session(port), Session(port)
    function_id = f"bench::{uuid.uuid4().hex}"
    callee.offer(function_id)

    def serve() -> None:
        while True:
            call = callee.receive()
            callee.send(
                {"type": "invocationresult", "invocation_id": call["invocation_id"], "function_id": function_id,
                 "result": {"a": 1}}
            )  # fmt: skip

    def ask() -> None:
        caller.send(
            {"type": "invokefunction", "invocation_id": str(uuid.uuid4()), "function_id": function_id, "data": {"x": 1}}
        )

    threading.Thread(target=serve, daemon=True).start()
    times: list[float] = []
    started, cpu = time.monotonic(), cpu_seconds(pid)
    for _ in range(in_flight):
        ask()
    sent, before = in_flight, time.perf_counter()
    for _ in range(count):
        caller.receive_text()
        now = time.perf_counter()
        times.append(now - before)
        before = now
        if sent < count:
            ask()
            sent += 1
    took, cpu = time.monotonic() - started, cpu_seconds(pid) - cpu
    return {"count": count, "seconds": took, "cpu_seconds": cpu, **(percentiles(times) if in_flight == 1 else {})}


def saturate(port: int, protocol: str, size: int) -> dict[str, Any]:
    """Keep one channel busy until killed; say so when it is, and each second how many bytes have passed."""
    wire = Wire(protocol, port)
    reader, writer, _ = wire.pipe()
    blob = b"".join(wire.message(b"", os.urandom(size)) for _ in range(max(1, (1 << 20) // size)))

    def write() -> None:
        while True:
            writer.sendall(blob)

    threading.Thread(target=write, daemon=True).start()
    buffer, passed, begun = bytearray(READ), 0, time.monotonic()
    print("busy", flush=True)
    while True:
        passed += reader.recv_into(buffer)
        if time.monotonic() - begun > 0.2:
            print(passed / (time.monotonic() - begun), flush=True)
            passed, begun = 0, time.monotonic()


def churn(port: int, pid: int, protocol: str, count: int) -> dict[str, Any]:
    """A pipe made, both ends attached, one message, closed, gone."""
    wire = Wire(protocol, port)
    mark = b"0123456789abcdef"
    started, cpu = time.monotonic(), cpu_seconds(pid)
    for _ in range(count):
        reader, writer, before = wire.pipe()
        writer.sendall(wire.message(before, mark) + wire.goodbye())
        _until_closed(writer)  # first: `websockets` tells its application of an end only once the writer's TCP is gone
        got = b""
        while not got.endswith(b"\x03\xe8") and (more := reader.recv(4096)):  # a Close with 1000 behind the message
            got += more
        if mark not in got:
            raise ConnectionError("the message did not arrive")
        reader.sendall(wire.goodbye())
        _until_closed(reader)
    took, cpu = time.monotonic() - started, cpu_seconds(pid) - cpu
    return {"count": count, "seconds": took, "cpu_seconds": cpu}


def _until_closed(sock: socket.socket) -> None:
    while sock.recv(4096):
        pass
    sock.close()


def hold(port: int, targets: list[str]) -> None:
    """Connect these writers' ends, write one message into each, say so, and stay until killed."""
    wire = Wire("websocket", port)
    socks = [upgrade(port, target) for target in targets]
    for sock in socks:
        sock.sendall(wire.message(b"", b"hello"))
    print("held", flush=True)
    threading.Event().wait()


def until_told(socks: list[socket.socket], since: Callable[[], float]) -> list[float]:
    """When each of these got the bytes of its end, in seconds after `since()`."""
    poll = select.poll()
    names = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        poll.register(sock, select.POLLIN)
    times: list[float] = []
    while names:
        for number, _ in poll.poll(10_000) or _too_long():
            names.pop(number).recv(4096)
            poll.unregister(number)
            times.append(time.perf_counter() - since())
    return times


def _too_long() -> Any:
    raise TimeoutError("not told within 10 s")


JOBS: dict[str, Callable[..., dict[str, Any]]] = {
    job.__name__: job for job in (throughput, round_trips, calls, saturate, churn)
}

if __name__ == "__main__":
    if sys.argv[1] == "hold_from_stdin":  # its argument is too long for a command line
        hold(**json.loads(sys.stdin.readline()))
    arguments = json.loads(sys.argv[2])
    if arguments.pop("tls", False):
        use_tls()
    print(json.dumps(JOBS[sys.argv[1]](**arguments)))
    sys.stdout.flush()
    os._exit(0)  # threads may still be about
