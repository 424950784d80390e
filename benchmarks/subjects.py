"""The processes that the rows compare: this package, another checkout of it, the reference engine, relays and the floor."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import attrs

from .processes import ROOT, Server, Skipped, engine, nats, reference_engine, relay, tls_engine
from .table import FLOOR, OURS, OURS_TLS, REFERENCE


@attrs.frozen
class Subject:
    """A process under test. `protocol` is what raw clients speak to it: `engine`, `websocket` or `nats`."""

    name: str
    opening: Callable[[], AbstractContextManager[Server]]
    protocol: str
    tls: bool = False
    closes: bool = True
    """Whether it answers a closing handshake, so that churn can be measured."""


@attrs.frozen
class Checkout:
    """A directory with the package, and the name of its column."""

    name: str
    path: Path

    @classmethod
    def from_path(cls, path: Path) -> Checkout:
        """Name a checkout by its commit, or by its directory. Raises ValueError if there is no package in it."""
        path = path.resolve()
        if not (path / "iii_trio" / "__main__.py").is_file():
            raise ValueError(f"{path} is no checkout of iii-trio: it has no iii_trio/__main__.py")
        asked = subprocess.run(["git", "-C", path, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        return cls(f"{OURS} {asked.stdout.strip() or path.name}", path)


def checkouts(beside: Checkout | None) -> list[Checkout]:
    """Return this checkout, and the other one if there is one."""
    return [Checkout(OURS, ROOT), *([beside] if beside is not None else [])]


def subjects(beside: Checkout | None, reference: str) -> list[Subject]:
    """Return all subjects in the order of their turns."""
    found = []
    for checkout in checkouts(beside):
        found.append(Subject(checkout.name, partial(engine, checkout.path), "engine"))
        name = OURS_TLS if checkout.path == ROOT else f"{checkout.name}, TLS"
        found.append(Subject(name, partial(tls_engine, checkout.path), "engine", tls=True))
    return [
        *found,
        Subject(FLOOR, partial(relay, "raw_trio"), "websocket", closes=False),
        Subject(REFERENCE, partial(reference_engine, shutil.which(reference)), "engine"),
        Subject("picows relay", partial(relay, "picows_relay", "picows"), "websocket"),
        Subject("websockets relay", partial(relay, "websockets_asyncio", "websockets"), "websocket"),
        Subject("trio-websocket relay", partial(relay, "trio_websocket_relay"), "websocket"),
        Subject("NATS core", nats, "nats", closes=False),
    ]


@contextmanager
def started(wanted: list[Subject], skipped: dict[str, str]) -> Iterator[list[tuple[Subject, Server]]]:
    """Run all of these for the length of the block, so that they can take turns. Missing ones are noted in `skipped`."""
    with ExitStack() as stack:
        servers = []
        for subject in wanted:
            try:
                servers.append((subject, stack.enter_context(subject.opening())))
            except Skipped as why:
                skipped[subject.name] = str(why)
        yield servers
