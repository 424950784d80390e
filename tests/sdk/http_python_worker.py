"""HTTP handlers on the unmodified Python SDK.

    python http_python_worker.py URL NAME

Its routes begin with `/NAME/`. It says on stdout what the tests wait for, as python_worker.py does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from typing import Any

from iii import InitOptions, register_worker
from iii_helpers.http import HttpAuthBearer, HttpInvocationConfig, http

BLOCK = bytes(i * i % 251 for i in range(65_521))
url, name = sys.argv[1:]


def say(event: str, **about: Any) -> None:
    print(json.dumps({"event": event, **about}), flush=True)


async def download(req: Any, res: Any) -> None:
    await res.status(203)
    await res.headers({"content-type": "application/x-tides"})
    total, written = int(req.query_params["total"]), 0
    try:
        while written < total:
            piece = BLOCK[: total - written]
            await res.writer.write(piece)
            written += len(piece)
            say("wrote", bytes=written)
        await res.writer.close_async()
    except Exception as error:
        say("broke", error=type(error).__name__)


async def upload(req: Any, res: Any) -> Any:
    size, digest = 0, hashlib.sha256()
    async for piece in req.request_body:
        size += len(piece)
        digest.update(piece)
    return {"status_code": 200, "body": {"bytes": size, "sha256": digest.hexdigest()}}


async def events(req: Any, res: Any) -> None:
    await res.headers({"content-type": "text/event-stream"})
    for number in range(3):
        await res.writer.write(f"id: {number}\ndata: tide {number}\n\n".encode())
        say("sent", bytes=number)
        await steps.get()
    await res.writer.close_async()


async def step(data: Any) -> None:
    await steps.put(None)


async def item(req: Any, res: Any) -> Any:
    body = {"id": req.path_params["id"], "query": req.query_params, "body": req.body, "method": req.method}
    return {"status_code": 201, "headers": {"x-item": req.path_params["id"]}, "body": body}


async def fail(req: Any, res: Any) -> Any:
    raise ValueError("the ink is dry")


async def gate(data: Any) -> Any:
    if "x-block" in data["request"]["headers"]:
        return {"action": "respond", "response": {"status_code": 403, "body": {"error": "blocked"}}}
    return {"action": "continue"}


async def allow(data: Any) -> bool:
    return data["query_params"].get("no") != "1"


steps: asyncio.Queue[None] = asyncio.Queue()
worker = register_worker(url, InitOptions(worker_name=name, otel={"enabled": False}))
for function in (step, gate, allow):
    worker.register_function(f"{name}::{function.__name__}", function)
routes = [
    ("GET", "download", download, {}), ("POST", "upload", upload, {}), ("GET", "events", events, {}),
    ("POST", "items/:id", item, {}), ("GET", "fail", fail, {}),
    ("GET", "guarded/:id", item, {"middleware_function_ids": [f"{name}::gate"]}),
    ("GET", "conditional/:id", item, {"condition_function_id": f"{name}::allow"}),
]  # fmt: skip
for method, path, handler, more in routes:
    function_id = f"{name}::{path.split('/')[0]}"
    worker.register_function(function_id, http(handler))
    config = {"api_path": f"/{name}/{path}", "http_method": method, **more}
    worker.register_trigger({"type": "http", "function_id": function_id, "config": config})
worker.register_function(
    f"{name}::outside",
    HttpInvocationConfig(
        url=os.environ["OUTSIDE"], headers={"x-site": "brest"}, auth=HttpAuthBearer(token_key="SDK_TESTS_TOKEN")
    ),
)
say("ready", pid=os.getpid())
sys.stdin.read()
os._exit(0)
