"""One case of each kind: inputs made from a seed are given to an engine, and the oracles are asked."""

from __future__ import annotations

import gc
import json
import logging
import random
import sqlite3
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio
import trio.testing

import iii_trio
from iii_trio.config.file import read_config
from iii_trio.http import HttpResponse
from iii_trio.triggers.http import HttpServer, open_http_server
from tests.helpers.target import LoggedErrors

from . import grammar
from .oracles import BYSTANDERS_QUEUE, UPGRADE, Broken, Bystander, Client, framed

SECONDS = 20.0
MAX_KEPT_BYTES = 512 * 1024
"""The bytes that the interpreter may hold more when a case is over: jobs that were accepted, and caches."""


def messages(seed: int, count: int = 12) -> list[bytes]:
    """Return the messages of a case."""
    rng = random.Random(seed)
    return [grammar.message(rng, f"7d6c2c1e-7c59-4a53-9d29-{number:012d}") for number in range(count)]


def run_messages(inputs: list[bytes], max_cpu: float | None = None) -> None:
    """Send messages of a worker. Raises Broken."""
    _run(_send_messages, inputs, max_cpu)


def run_requests(inputs: list[bytes], max_cpu: float | None = None) -> None:
    """Send bytes to the HTTP module, each on a connection of its own. Raises Broken."""
    _run(_send_requests, inputs, max_cpu)


def run_streams(inputs: list[bytes], max_cpu: float | None = None) -> None:
    """Send bytes, each on a connection of its own. Raises Broken."""
    _run(_send_bytes, inputs, max_cpu)


async def _send_messages(open_client: Callable[[], Client], inputs: list[bytes], ask: object, _: object) -> None:
    evil = open_client()
    await evil.connect("evil")
    for text in inputs:
        began = time.process_time()
        try:
            await evil.stream.send_all(framed(text))
            # The engine reads in order, so the message was handled when the next call is answered.
            await evil.call("engine::baggage::get_all", {})
        except (Broken, trio.BrokenResourceError, trio.ClosedResourceError):
            evil = open_client()
            await evil.connect("evil")
        await ask(time.process_time() - began, text)  # type: ignore[operator]
        _check_answered(evil, text)


def _check_answered(evil: Client, text: bytes) -> None:
    """Every call of an engine function has its answer when the engine has handled the next message."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return
    if not isinstance(call, dict) or call.get("type") != "invokefunction" or call.get("action"):
        return
    answered = any(message.get("invocation_id") == call["invocation_id"] for message in evil.messages)
    if str(call.get("function_id")) in ("t::none", "engine::functions::list", "engine::log::info") and not answered:
        raise Broken(f"a call of {call['function_id']} was not answered")


async def _send_bytes(open_client: Callable[[], Client], inputs: list[bytes], ask: object, _: object) -> None:
    for data in inputs:
        began = time.process_time()
        client = open_client()
        try:
            await client.stream.send_all(data)
            await trio.testing.wait_all_tasks_blocked()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await ask(time.process_time() - began, data)  # type: ignore[operator]
        await trio.aclose_forcefully(client.stream)


async def _send_requests(
    open_client: Callable[..., Client], inputs: list[bytes], ask: object, server: HttpServer
) -> None:
    await _send_bytes(lambda: open_client(server.serve), inputs, ask, None)


def _run(drive: Callable[..., object], inputs: list[bytes], max_cpu: float | None) -> None:
    errors, logger = LoggedErrors(), logging.getLogger("iii_trio")
    logger.addHandler(errors)
    before, logger.propagate = logger.propagate, False

    async def main() -> None:
        queues = {BYSTANDERS_QUEUE: iii_trio.QueueSettings()}
        config = iii_trio.EngineConfig(modules={"queue": iii_trio.QueueConfig(queues=queues)})
        async with (
            iii_trio.open_engine(config) as engine,
            open_http_server(engine.address) as server,
            engine.open_worker("site") as site,
            trio.open_nursery() as nursery,
        ):
            clients: list[Client] = []

            def open_client(serve: Callable[..., Awaitable[object]] = engine.serve_stream) -> Client:
                near, far = trio.testing.memory_stream_pair()
                nursery.start_soon(serve, far)
                clients.append(Client(near))
                return clients[-1]

            bystander = Bystander(open_client(), open_client(), open_client(), open_client())

            async def ask(cpu: float, data: bytes) -> None:
                await bystander.goes_on()
                if errors.texts:
                    raise Broken(f"an error was logged: {errors.texts[0]}")
                if max_cpu is not None and cpu > max_cpu:
                    raise Broken(f"{len(data)} bytes ({data[:20]!r}…) took {cpu:.2f} s of CPU")

            with trio.fail_after(SECONDS):
                _offer_routes(site)
                await site.wait_registered()
                await bystander.begin()
                await bystander.goes_on()
                clients.clear()
                kept = await _kept(engine, server)
                await drive(open_client, inputs, ask, server)  # type: ignore[misc]
                for client in clients:
                    await trio.aclose_forcefully(client.stream)
                await bystander.goes_on()
                await bystander.answer_the_rest()
                clients.clear()
                await _check_kept(engine, server, kept)
            nursery.cancel_scope.cancel()

    # Tracing takes time itself, so a run measures either memory or time.
    traced = max_cpu is None and not tracemalloc.is_tracing()
    try:
        if traced:
            tracemalloc.start()
        trio.run(main)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Broken(_innermost(error)) from error
    finally:
        if traced:
            tracemalloc.stop()
        logger.removeHandler(errors)
        logger.propagate = before


def _offer_routes(site: iii_trio.Worker) -> None:
    """Serve routes of every kind, so that requests reach handlers: by result, by stream, and by an error."""

    @site.http("GET", "/files/{name}")
    async def file(name: str, response: HttpResponse, headers: dict[str, str]) -> None:
        await response.start(200, {"x-name": name, "x-host": headers.get("host", "")})
        await response.send(b"part " * 3)

    @site.http("POST", "/{rest:path}")
    async def take(rest: str, request_body: iii_trio.ChannelReader) -> int:
        return len(await request_body.read_all())

    @site.http("GET", "/a")
    async def fail(n: list[int]) -> dict[str, Any]:
        raise iii_trio.CallError("odd", f"two\nlines {n}")

    @site.http("GET", "/{rest:path}")
    async def anything(rest: str, query: dict[str, Any]) -> dict[str, Any]:
        return {"rest": rest, "query": query}


async def _kept(engine: iii_trio.Engine, server: HttpServer) -> tuple[dict[str, int], int, int]:
    """Return what the engine holds when it is idle: objects, bytes of the budget, bytes of the interpreter."""
    await trio.testing.wait_all_tasks_blocked()
    gc.collect()
    objects = attrs.asdict(engine.statistics()) | {"HTTP connections": server.connections}
    # Bindings made by engine::register_trigger outlive their worker.
    del objects["bindings"]
    return objects, engine._shell.memory.used_bytes, tracemalloc.get_traced_memory()[0]


async def _check_kept(engine: iii_trio.Engine, server: HttpServer, before: tuple[dict[str, int], int, int]) -> None:
    """Check that memory returns when the hostile peer has left. Raises Broken."""
    objects, budget, size = await _kept(engine, server)
    # There may be fewer, because a peer may take over a trigger type of another.
    more = {name: count for name, count in objects.items() if count > before[0][name]}
    if more:
        raise Broken(f"the engine still holds {more}; it held {before[0]}")
    if budget > before[1]:
        raise Broken(f"{budget - before[1]} bytes of the memory budget were not given back")
    if size - before[2] > MAX_KEPT_BYTES:
        raise Broken(f"{size - before[2]} bytes were not given back")


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        broken = [each for each in error.exceptions if not isinstance(each, Broken)]
        error = (broken or list(error.exceptions))[0]
    return f"{type(error).__name__}: {error}"


def run_config(inputs: list[bytes], max_cpu: float | None = None) -> None:
    """Load configuration files. A file is read or refused with a ConfigError. Raises Broken."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the YAML library, about anchors that the grammar repeats
        for data in inputs:
            path = Path(folder, "config.yaml")
            path.write_bytes(data)
            try:
                read_config(path)
            except iii_trio.ConfigError:
                pass
            except Exception as error:
                raise Broken(f"{type(error).__name__}: {error}") from error


def run_rows(inputs: list[bytes], max_cpu: float | None = None) -> None:
    """Open an engine on a queue's database with damaged rows. Raises Broken."""
    with tempfile.TemporaryDirectory() as folder:
        for data in inputs:
            _damage(Path(folder), random.Random(data))
            try:
                trio.run(_open_on, folder)
            except (iii_trio.StorageError, iii_trio.CallError):
                for file in Path(folder).iterdir():
                    file.unlink()
            except BaseException as error:
                raise Broken(_innermost(error)) from error


async def _open_on(folder: str) -> None:
    queue = iii_trio.QueueConfig(directory=folder)
    config = iii_trio.EngineConfig(modules={"queue": queue})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("w") as worker:
        with trio.fail_after(SECONDS):
            job = {"queue": "default", "function_id": "t::none", "data": 1, "metadata": {"a": 1}}
            await worker.trigger("engine::queue::enqueue", job)


def _damage(folder: Path, rng: random.Random) -> None:
    for file in folder.glob("*.db"):
        with sqlite3.connect(file) as database:
            tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            for table in tables:
                columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
                column = rng.choice(columns)
                odd = rng.choice([None, "", "x", -1, 2**62, 1e300, b"\xff", '{"n":1e999}', "[" * 2000])
                try:
                    database.execute(f"UPDATE {table} SET {column} = ?", (odd,))
                except sqlite3.Error:
                    pass
        database.close()


KINDS: dict[str, tuple[Callable[[int], list[bytes]], Callable[[list[bytes], float | None], None]]] = {
    "messages": (messages, run_messages),
    "heads": (lambda seed: [grammar.head(random.Random(f"{seed} {n}")) for n in range(12)], run_streams),
    "frames": (lambda seed: [_frames(random.Random(f"{seed} {n}")) for n in range(12)], run_streams),
    "requests": (lambda seed: [grammar.request(random.Random(f"{seed} {n}")) for n in range(12)], run_requests),
    "config": (lambda seed: [grammar.config(random.Random(f"{seed} {n}")) for n in range(30)], run_config),
    "rows": (lambda seed: [f"{seed} {n}".encode() for n in range(6)], run_rows),
}


def _frames(rng: random.Random) -> bytes:
    return UPGRADE + b"".join(grammar.frame(rng) for _ in range(rng.randrange(1, 6)))
