"""A worker of ours, to be told by calls what to do: as python_worker.py, function by function.

python our_worker.py URL NAME
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from typing import Any

import trio
from content import pieces

import iii_trio

url, name = sys.argv[1:]
resumed = trio.Event()


def say(event: str, **about: Any) -> None:
    print(json.dumps({"event": event, **about}), flush=True)


def error_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, iii_trio.CallError):
        return {"code": error.code, "message": error.message, "stacktrace": error.stacktrace}
    return {"code": getattr(error, "code", type(error).__name__), "message": str(error)}


async def write_to(writer: iii_trio.ChannelWriter, data: Any) -> dict[str, Any]:
    written, digest = 0, hashlib.sha256()
    try:
        for text in data.get("texts", []):
            await writer.send(text)
        for piece in pieces(data.get("total", 0), data.get("chunk", 65_536)):
            await writer.send(piece)
            written += len(piece)
            digest.update(piece)
            say("wrote", bytes=written)
            await trio.sleep(data.get("pause_seconds", 0))
        if data.get("hold"):
            await trio.sleep_forever()
        await writer.aclose()
    except iii_trio.ChannelBroken as error:
        return {"bytes": written, "sha256": digest.hexdigest(), "error": error_of(error)}
    return {"bytes": written, "sha256": digest.hexdigest()}


async def read_from(reader: iii_trio.ChannelReader, data: Any) -> dict[str, Any]:
    read, largest, digest, texts, error = 0, 0, hashlib.sha256(), [], None
    try:
        async for piece in reader:
            if isinstance(piece, str):
                texts.append(piece)
                say("heard", text=piece[:100])
                continue
            read += len(piece)
            largest = max(largest, len(piece))
            digest.update(piece)
            say("read", bytes=read)
            if data.get("stop_after") is not None and read >= data["stop_after"]:
                if data.get("hold"):
                    await trio.sleep_forever()
                await reader.aclose()
                break
            if data.get("pause_after") is not None and read >= data["pause_after"]:
                del data["pause_after"]
                with trio.move_on_after(data.get("pause_seconds", math.inf)):
                    await resumed.wait()
            if data.get("each_seconds"):
                await trio.sleep(data["each_seconds"])
    except (iii_trio.ChannelBroken, iii_trio.AttachRefused) as caught:
        error = error_of(caught)
    return {"bytes": read, "sha256": digest.hexdigest(), "texts": texts, "largest": largest, "error": error}


class Provider:
    async def register_trigger(self, bound: Any) -> None:
        say("offered", config=bound.config, metadata=bound.metadata, target=bound.function_id)
        if bound.config.get("refuse"):
            raise ValueError(bound.config["refuse"])

    async def unregister_trigger(self, bound: Any) -> None:
        say("withdrawn")


async def main() -> None:
    async with iii_trio.open_worker(url, name=name) as worker, trio.open_nursery() as nursery:

        async def echo(data: Any) -> Any:
            return data

        async def echo_metadata(data: Any, metadata: Any) -> Any:
            return {"payload": data, "metadata": metadata}

        async def fail(message: str) -> None:
            raise ValueError(message)

        async def nothing() -> None:
            pass

        async def hang() -> None:
            say("hanging")
            await trio.sleep_forever()

        async def note(data: Any) -> None:
            say("noted", data=data)

        async def note_metadata(data: Any, metadata: Any) -> None:
            say("noted", data=data, metadata=metadata)

        async def resume() -> None:
            resumed.set()

        async def pid() -> int:
            return os.getpid()

        async def call(data: Any) -> Any:
            payload, metadata = data.get("payload"), data.get("metadata")
            try:
                if data.get("void"):
                    await worker.trigger_void(data["function_id"], payload, metadata=metadata)
                    return {"result": None}
                if "queue" in data:
                    action = iii_trio.enqueue(data["queue"])
                    receipt = await worker.trigger(data["function_id"], payload, metadata=metadata, action=action)
                    return {"result": {"messageReceiptId": receipt.id}}
                return {"result": await worker.trigger(data["function_id"], payload, metadata=metadata)}
            except iii_trio.CallError as error:
                return {"error": error_of(error)}

        async def write(data: Any) -> Any:
            return await write_to(data["writer"], data)

        async def read(data: Any) -> Any:
            return await read_from(data["reader"], data)

        async def create_and_write(data: Any) -> Any:
            answer: dict[str, Any] = {}
            async with worker.create_channel() as channel, trio.open_nursery() as both:

                async def ask() -> None:
                    payload = {**data["payload"], "reader": channel.reader_ref}
                    answer["result"] = await worker.trigger(data["function_id"], payload)

                both.start_soon(ask)
                answer["written"] = await write_to(channel.writer, data)
            return answer

        async def create_and_read(data: Any) -> Any:
            answer: dict[str, Any] = {}
            async with worker.create_channel() as channel, trio.open_nursery() as both:

                async def ask() -> None:
                    payload = {**data["payload"], "writer": channel.writer_ref}
                    answer["result"] = await worker.trigger(data["function_id"], payload)

                both.start_soon(ask)
                answer["read"] = await read_from(channel.reader, data)
            return answer

        async def register(function_id: str) -> None:
            handles[function_id] = worker.register_function(function_id, echo)

        async def unregister(function_id: str) -> None:
            handles.pop(function_id).unregister()

        async def provide(type: str) -> None:
            types[type] = worker.register_trigger_type(type, Provider)

        async def withdraw(type: str) -> None:
            types.pop(type).unregister()

        async def bind(data: Any) -> None:
            binding = worker.register_trigger(
                data["type"], data["function_id"], config=data.get("config"), metadata=data.get("metadata")
            )
            bindings[data["name"]] = binding

        async def unbind(name: str) -> None:
            bindings.pop(name).unregister()

        handles: dict[str, Any] = {}
        types: dict[str, Any] = {}
        bindings: dict[str, Any] = {}
        functions = [
            echo, echo_metadata, fail, nothing, hang, note, note_metadata, resume, pid, call,
            write, read, create_and_write, create_and_read, register, unregister,
            provide, withdraw, bind, unbind,
        ]  # fmt: skip
        for function in functions:
            function_id = f"{name}::{function.__name__}"
            handles[function_id] = worker.register_function(function_id, function)

        await worker.trigger(f"{name}::pid")  # one that comes back is the proof that the engine routes to it
        say("ready", pid=os.getpid())
        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            async for _ in stdin:
                pass
        nursery.cancel_scope.cancel()
    os._exit(0)


trio.run(main)
