"""The store in Valkey, by valkey-glide (the extra `cluster`)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast, final

import glide
import msgspec
import trio

from ...ids import new_id
from ..mesh import MeshJobs, StoreIsFull
from .intake import read_line, read_nodes, read_offers
from .records import LINKS, Changes, Entry, Key, Node, Offer, Position, Snapshot
from .settings import StoreUrl
from .store import Fenced, NodeTaken, OtherLayout, StoreUnavailable
from .valkey_jobs import ValkeyJobs
from .valkey_library import LAYOUT, LIBRARY, SOURCE

_BLOCK_MS: Final = 2_000
_LINES: Final = 1_000
_REQUEST_MS: Final = 2_000
_SNAPSHOT_MS: Final = 60_000
"""The caller has a shorter limit: the length of a lease."""
_CLOSE_SECONDS: Final = 1.0
_TAKEN: Final = re.compile(r"TAKEN:? (\S+)")
_OTHER_LAYOUT: Final = re.compile(r"LAYOUT:? (\S+) ?(\S*)")


glide.Logger.set_logger_config(glide.LogLevel.OFF)  # this module says itself what happens to the store


@asynccontextmanager
async def open_valkey_store(url: StoreUrl) -> AsyncIterator[ValkeyStore]:
    """Open the store for the length of the block. It connects when it is first used, and again after a loss."""
    store = ValkeyStore(url)
    try:
        yield store
    finally:
        await store.aclose()


@final
class ValkeyStore:
    """A `MeshStore` in Valkey."""

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self._version = ""
        self._base = f"{LAYOUT}:{{{url.mesh}}}:"
        self.jobs: MeshJobs = ValkeyJobs(str(url), self._fcall, self._weakness)
        """As `MeshStore.jobs`."""
        self._client: glide.GlideClient | None = None
        self._reader: glide.GlideClient | None = None
        """Of its own, because a command that waits holds up every other one of its client."""

    def __str__(self) -> str:
        return str(self._url)

    async def aclose(self) -> None:
        """Close the connections. If cancelled: they are closed all the same, without a goodbye."""
        clients = self._client, self._reader
        self._client = self._reader = None
        for client in clients:
            if client is not None:
                await client.close()

    # --- the interface

    async def join(self, name: str, address: str, version: str, lease_seconds: float) -> Node:
        """As `MeshStore.join`."""
        self._version = version
        links = [str(each) for each in LINKS]
        fence = await self._call("join", name, address, version, _ms(lease_seconds), new_id(), *links)
        return Node(name, address, int(fence), version)

    async def renew(self, node: Node, lease_seconds: float, *, sweep: bool) -> Position:
        """As `MeshStore.renew`."""
        sweeps = "1" if sweep else "0"
        reply = await self._call("renew", node.name, str(node.fence), _ms(lease_seconds), sweeps, self._version)
        return _position(reply)

    async def publish(self, node: Node, number: int, changes: Changes) -> None:
        """As `MeshStore.publish`."""
        rows = [(key.text, False if row is None else row.decode()) for key, row in changes.items()]
        body = msgspec.json.encode(rows).decode()
        await self._call("publish", node.name, str(node.fence), body, str(number))

    async def leave(self, node: Node) -> None:
        """As `MeshStore.leave`."""
        await self._call("leave", node.name, str(node.fence))

    async def snapshot(self) -> Snapshot:
        """As `MeshStore.snapshot`."""
        # A large mesh is read in seconds, for which no renewal may wait.
        try:
            client = await self._connect(_SNAPSHOT_MS)
        except glide.GlideError as error:
            raise _unavailable(error) from None
        try:
            position, cursor, nodes, rows = await self._fcall(LIBRARY, SOURCE, "snapshot", (), client)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_SECONDS):
                await client.close()
        records = _pairs(nodes)
        found, odd = read_nodes(records)
        offers: dict[str, Mapping[Key, Offer]] = {}
        for (name, _), each in zip(records, rows, strict=True):
            node = name.decode(errors="replace")
            # The rows of a node that cannot be read are of no use.
            if node in found:
                offers[node], odd_rows = read_offers(node, _pairs(each))
                odd += odd_rows
        return Snapshot(_position(position), cursor.decode(), found, offers, odd)

    async def follow(self, cursor: str) -> tuple[list[Entry], str]:
        """As `MeshStore.follow`."""
        try:
            if self._reader is None:
                self._reader = await self._connect(_BLOCK_MS + _REQUEST_MS)
            options = glide.StreamReadOptions(block_ms=_BLOCK_MS, count=_LINES)
            found = await self._reader.xread({self._base + "log": cursor}, options)
        except glide.GlideError as error:
            raise _unavailable(error) from None
        lines = next(iter(found.values())) if found else {}
        entries = [read_line(line, cast(Any, fields)) for line, fields in lines.items() if fields is not None]
        return entries, list(lines)[-1].decode() if lines else cursor

    # --- inside

    async def _connect(self, request_ms: int) -> glide.GlideClient:
        url = self._url
        credentials = None
        if url.password is not None:
            credentials = glide.ServerCredentials(password=url.password, username=url.user or None)
        return await glide.GlideClient.create(
            glide.GlideClientConfiguration(
                [glide.NodeAddress(url.host, url.port)],
                use_tls=url.secure,
                credentials=credentials,
                request_timeout=request_ms,
                client_name="iii-trio",
                lazy_connect=True,  # otherwise it blocks the whole loop
                reconnect_strategy=glide.BackoffStrategy(num_of_retries=5, factor=100, exponent_base=2),
            )
        )

    async def _weakness(self) -> str:
        """Return what Valkey loses when it or its machine ends, as far as it says how it keeps its data."""
        try:
            if self._client is None:
                self._client = await self._connect(_REQUEST_MS)
            told = await self._client.info([glide.InfoSection.PERSISTENCE])
            if b"aof_enabled:1" not in (told if isinstance(told, bytes) else b"".join(told.values())):
                return "acknowledged jobs do not outlive its end: set `appendonly yes` and `appendfsync always`"
            found = await self._client.config_get(["appendfsync"])
        # A user of the store may not be allowed to read its configuration.
        except glide.RequestError:
            return ""
        except glide.GlideError as error:
            raise _unavailable(error) from None
        if found.get(b"appendfsync") == b"always":
            return ""
        return "a crash of its machine may lose the last acknowledged jobs: set `appendfsync always`"

    async def _call(self, function: str, *arguments: str) -> Any:
        return await self._fcall(LIBRARY, SOURCE, function, arguments)

    async def _fcall(
        self,
        library: str,
        source: str,
        function: str,
        arguments: Sequence[str | bytes],
        client: glide.GlideClient | None = None,
    ) -> Any:
        """Call a function inside Valkey. The functions are loaded when they are found missing."""
        base = self._base if library == LIBRARY else f"{self._base}queues:"
        try:
            if client is None:
                if self._client is None:
                    self._client = await self._connect(_REQUEST_MS)
                client = self._client
            for attempt in (1, 2):
                try:
                    return await client.fcall(f"{library}_{function}", [base], list(arguments))
                except glide.RequestError as error:
                    # A store that was started again without its data has lost the functions too.
                    if attempt == 2 or "unction not found" not in str(error):
                        raise
                    await client.function_load(source, replace=True)
        except glide.RequestError as error:
            text = str(error)
            # The words are those of `valkey_library`.
            if "FENCED" in text:
                raise Fenced(text) from None
            if (taken := _TAKEN.search(text)) is not None:
                raise NodeTaken(taken[1]) from None
            if (other := _OTHER_LAYOUT.search(text)) is not None:
                raise OtherLayout(other[1], other[2]) from None
            if "OOM" in text:
                raise StoreIsFull(" ".join(text.split())) from None
            raise _unavailable(error) from None
        except glide.GlideError as error:
            raise _unavailable(error) from None
        raise AssertionError("unreachable")


def _unavailable(error: glide.GlideError) -> StoreUnavailable:
    # Texts of the library may have several lines, and they become part of a sentence.
    return StoreUnavailable(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _position(reply: list[bytes]) -> Position:
    try:
        return Position(reply[0].decode(), int(reply[1]))
    except ValueError as error:
        raise StoreUnavailable(f"its position cannot be read: {error}") from None


def _pairs(flat: list[bytes] | Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return the fields of a hash, which comes as a list or as a map."""
    if isinstance(flat, Mapping):
        return list(flat.items())
    return list(zip(flat[::2], flat[1::2], strict=True))
