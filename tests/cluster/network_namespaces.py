"""Hosts in network namespaces of this machine, joined by a bridge, whose packets can be made to vanish. Linux, as root."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = "02:00:00:00:00:fe"
"""The hardware address of no host. What is sent there vanishes without a word to either side."""


class Hosts:
    """The hosts, by name. Their addresses are 10.77.0.1 and so on."""

    def __init__(self, names: str, prefix: str) -> None:
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._prefix = prefix
        self._hub = f"{prefix}-hub"

    def open(self) -> None:
        """Make the namespaces and the bridge. Raises subprocess.CalledProcessError where that is not allowed."""
        _ip("netns", "add", self._hub)
        _ip("-n", self._hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._hub, "link", "set", "br0", "up")
        for name, address in self.addresses.items():
            there = self._namespace(name)
            _ip("netns", "add", there)
            _ip("-n", self._hub, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", there)
            _ip("-n", self._hub, "link", "set", f"to-{name}", "master", "br0", "up")
            _ip("-n", there, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", there, "link", "set", "eth0", "up")
            _ip("-n", there, "link", "set", "lo", "up")

    def close(self) -> None:
        """Remove everything that is there."""
        for name in (*map(self._namespace, self.addresses), self._hub):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    def command(self, name: str) -> list[str]:
        """Return the words before a command that is to run at a host."""
        return ["ip", "netns", "exec", self._namespace(name)]

    def cut(self, one: str, other: str) -> None:
        """Let everything between two hosts vanish."""
        for here, there in itertools.permutations((one, other)):
            _ip(
                "-n", self._namespace(here), "neigh", "replace", self.addresses[there], "lladdr", NOBODY,
                "nud", "permanent", "dev", "eth0",
            )  # fmt: skip

    def mend(self, one: str, other: str) -> None:
        """Undo `cut`."""
        for here, there in itertools.permutations((one, other)):
            _ip("-n", self._namespace(here), "neigh", "del", self.addresses[there], "dev", "eth0")

    def isolate(self, name: str) -> None:
        """Let everything between a host and all others vanish."""
        for other in self.addresses.keys() - {name}:
            self.cut(name, other)

    def rejoin(self, name: str) -> None:
        """Undo `isolate`."""
        for other in self.addresses.keys() - {name}:
            self.mend(name, other)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@contextmanager
def open_hosts(names: str) -> Iterator[Hosts]:
    """Open hosts for the length of the block."""
    hosts = Hosts(names, f"iii{os.getpid()}")
    try:
        hosts.open()
        yield hosts
    finally:
        hosts.close()


def why_not() -> str:
    """Return why there can be no namespaces here. Empty: there can be."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with open_hosts("x"):
            return ""
    except FileNotFoundError:
        return "there is no command `ip`"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
