"""A worker on the unmodified Python SDK (0.22 or 0.25), to be told by calls what to do.

    python python_worker.py URL NAME

It registers `NAME::…` functions, and says on stdout, one JSON object a line, what the tests wait for: `{"event": "ready"}`
once the engine routes calls to it, then `wrote` and `read` with the bytes so far. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import sys
import time
from typing import Any

from iii import InitOptions, InvocationError, TriggerAction, register_worker
from iii.helpers import create_channel_async
from iii.trigger import TriggerConfig, TriggerHandler
from iii_helpers.observability import ReconnectionConfig

BLOCK = bytes(i * i % 251 for i in range(65_521))

url, name = sys.argv[1:]
telemetry = os.environ.get("SDK_TESTS_TELEMETRY") == "default"


def say(event: str, **about: Any) -> None:
    print(json.dumps({"event": event, **about}), flush=True)


def error_of(error: BaseException) -> dict[str, Any]:
    if isinstance(error, InvocationError):
        return {"code": error.code, "message": error.message, "stacktrace": error.stacktrace}
    return {"code": type(error).__name__, "message": str(error)}


def pieces(total: int, chunk: int) -> Any:
    pattern = BLOCK * (chunk // len(BLOCK) + 2)
    for at in range(0, total, chunk):
        start = at % len(BLOCK)
        yield pattern[start : start + min(chunk, total - at)]


async def echo(data: Any) -> Any:
    return data


async def echo_metadata(data: Any, metadata: Any = None) -> Any:
    return {"payload": data, "metadata": metadata}


async def fail(data: Any) -> Any:
    raise ValueError(data["message"])


async def nothing(data: Any) -> None:
    """The SDK answers with an explicit `"result": null`."""


async def hang(data: Any) -> None:
    say("hanging")
    await never.wait()


async def note(data: Any) -> None:
    say("noted", data=data)


async def note_metadata(data: Any, metadata: Any = None) -> None:
    say("noted", data=data, metadata=metadata)


async def resume(data: Any) -> None:
    resumed.set()


async def pid(data: Any) -> int:
    return os.getpid()


async def call(data: Any) -> Any:
    request = {key: data[key] for key in ("function_id", "payload", "metadata", "timeout_ms") if key in data}
    if data.get("void"):
        request["action"] = TriggerAction.Void()
    if "queue" in data:
        request["action"] = TriggerAction.Enqueue(queue=data["queue"])
    try:
        return {"result": await worker.trigger_async({**request, "dispatch": "remote"})}
    except InvocationError as error:
        return {"error": error_of(error)}


async def write_to(writer: Any, data: Any) -> dict[str, Any]:
    """Texts first, then `total` bytes in pieces of `chunk`; then close, or stay there open and silent if `hold`."""
    written, digest = 0, hashlib.sha256()
    try:
        for text in data.get("texts", []):
            await writer.send_message_async(text)
        for piece in pieces(data.get("total", 0), data.get("chunk", 65_536)):
            await writer.write(piece)
            written += len(piece)
            digest.update(piece)
            say("wrote", bytes=written)
            await asyncio.sleep(data.get("pause_seconds", 0))
        if data.get("empty"):
            await writer.write(b"")
        if data.get("hold"):
            await never.wait()
        await writer.close_async()
    except Exception as error:
        return {"bytes": written, "sha256": digest.hexdigest(), "error": error_of(error)}
    return {"bytes": written, "sha256": digest.hexdigest()}


async def read_from(reader: Any, data: Any) -> dict[str, Any]:
    """To the end, or until `stop_after` bytes: then close the reader, or stay there and take no more if `hold`.

    With a pause at `pause_after` bytes, until `resume` is called, if it is not for so many seconds.
    """
    read, largest, digest, texts = 0, 0, hashlib.sha256(), []
    stop_after = data.get("stop_after")

    def heard(text: str) -> None:
        texts.append(text)
        say("heard", text=text[:100])

    reader.on_message(heard)
    error = None
    try:
        async for piece in reader:
            read += len(piece)
            largest = max(largest, len(piece))
            digest.update(piece)
            say("read", bytes=read)
            if stop_after is not None and read >= stop_after:
                if data.get("hold"):
                    await never.wait()
                await reader.close_async()
                break
            if data.get("pause_after") is not None and read >= data["pause_after"]:
                del data["pause_after"]
                await (asyncio.sleep(data["pause_seconds"]) if "pause_seconds" in data else resumed.wait())
            if data.get("each_seconds"):
                await asyncio.sleep(data["each_seconds"])
    except Exception as caught:
        error = error_of(caught)
    return {"bytes": read, "sha256": digest.hexdigest(), "texts": texts, "largest": largest, "error": error}


async def write(data: Any) -> dict[str, Any]:
    return await write_to(data["writer"], data)


async def read(data: Any) -> dict[str, Any]:
    return await read_from(data["reader"], data)


async def create_and_write(data: Any) -> dict[str, Any]:
    """Own the channel and write to it, while `function_id` gets its reader."""
    channel = await create_channel_async(worker)
    ref = channel.reader_ref.model_dump()
    asked = worker.trigger_async({"function_id": data["function_id"], "payload": {**data["payload"], "reader": ref}})
    written, result = await asyncio.gather(write_to(channel.writer, data), asked)
    return {"written": written, "result": result}


async def create_and_read(data: Any) -> dict[str, Any]:
    """Own the channel and read from it, while `function_id` gets its writer."""
    channel = await create_channel_async(worker)
    ref = channel.writer_ref.model_dump()
    asked = worker.trigger_async({"function_id": data["function_id"], "payload": {**data["payload"], "writer": ref}})
    got, result = await asyncio.gather(read_from(channel.reader, data), asked)
    return {"read": got, "result": result}


async def register(data: Any) -> None:
    handles[data["function_id"]] = worker.register_function(data["function_id"], echo)


async def unregister(data: Any) -> None:
    handles.pop(data["function_id"]).unregister()


class Provider(TriggerHandler[Any]):
    async def register_trigger(self, config: TriggerConfig[Any]) -> None:
        say("offered", config=config.config, metadata=config.metadata, target=config.function_id)
        if config.config.get("refuse"):
            raise ValueError(config.config["refuse"])

    async def unregister_trigger(self, config: TriggerConfig[Any]) -> None:
        say("withdrawn")


async def provide(data: Any) -> None:
    worker.register_trigger_type({"id": data["type"], "description": "for the tests"}, Provider())


async def withdraw(data: Any) -> None:
    worker.unregister_trigger_type({"id": data["type"], "description": "for the tests"})


async def bind(data: Any) -> None:
    what = {key: data[key] for key in ("type", "function_id", "config", "metadata") if key in data}
    bindings[data["name"]] = worker.register_trigger(what)


async def unbind(data: Any) -> None:
    bindings.pop(data["name"]).unregister()


logging.basicConfig(stream=sys.stderr, level=logging.INFO)
handles: dict[str, Any] = {}
bindings: dict[str, Any] = {}
resumed = asyncio.Event()
# Of the module: who waits for something that nobody else holds is thrown away by asyncio, its task included.
never = asyncio.Event()
worker = register_worker(
    url,
    InitOptions(
        worker_name=name,
        otel=None if telemetry else {"enabled": False},
        reconnection_config=ReconnectionConfig(initial_delay_ms=50, max_delay_ms=200),
    ),
)
functions = [
    echo, echo_metadata, fail, nothing, hang, note, note_metadata, resume, pid, call,
    write, read, create_and_write, create_and_read, register, unregister,
    provide, withdraw, bind, unbind,
]  # fmt: skip
for function in functions:
    handles[f"{name}::{function.__name__}"] = worker.register_function(f"{name}::{function.__name__}", function)

while True:  # a call of its own that comes back is the proof that the engine routes to it
    try:
        worker.trigger({"function_id": f"{name}::pid", "dispatch": "remote", "timeout_ms": 1000})
        break
    except InvocationError as problem:
        print("not yet routed:", problem, file=sys.stderr)
        time.sleep(0.01)
say("ready", pid=os.getpid())
sys.stdin.read()
os._exit(0)
