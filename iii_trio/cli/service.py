"""What a service owes to the system that runs it: open files, systemd's readiness, sockets that were handed over."""

from __future__ import annotations

import logging
import os
import socket
import time

try:
    import resource
except ImportError:  # Windows
    _LIMITED = False
else:
    _LIMITED = True

logger = logging.getLogger("iii_trio.cli")
_FIRST_HANDED_OVER = 3
_OWN_FILES = 64


def allow_open_files(connections: int) -> None:
    """Raise this process's limit of open files to what so many connections need, as far as it may; say what it is not."""
    if not _LIMITED:
        return
    wanted = connections + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError) as error:
        logger.warning("the limit of %d open files could not be raised: %s", soft, error)
        reachable = soft
    if reachable < wanted:
        logger.info(
            "at most %d files may be open here, enough for %d connections where %d are allowed; "
            "raise the hard limit (systemd: LimitNOFILE=%d) to have them all",
            reachable, max(reachable - _OWN_FILES, 0), connections, wanted,
        )  # fmt: skip


def notify(*state: str) -> None:
    """Log systemd (`READY=1`, `STOPPING=1`, …), if it wants to know; nothing otherwise."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as telling:
            telling.setblocking(False)
            telling.sendto("\n".join(state).encode(), "\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        logger.warning("systemd could not be told %s: %s", state[0], error.strerror or error)


def notify_reloading() -> None:
    """Log systemd that a reload begins; `READY=1` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def handed_over() -> list[tuple[int, str]]:
    """Return the listening sockets that systemd opened for this process, with their names (`LISTEN_FDNAMES`).

    Asked a second time, none.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [(_FIRST_HANDED_OVER + number, names[number] if number < len(names) else "") for number in range(int(count))]
