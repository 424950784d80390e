"""Run a piece of Python from a page beside an engine: `python -m tests.helpers.run_fragment FILE`.

The piece may use `await` at its top level, and these names: `engine`, its `address`, two workers `worker` and `app`, a
`nursery` and an `EngineConfig` named `config`. Addresses of the default port are replaced by that of the engine.
"""

from __future__ import annotations

import ast
import inspect
import sys

import attrs
import trio

import iii_trio

DEFAULT_ADDRESS = "ws://127.0.0.1:49134"
SECONDS = 20


async def main(path: trio.Path) -> None:
    async with iii_trio.open_engine() as engine:
        [address] = await engine.listen(iii_trio.Listener("127.0.0.1", 0))
        source = (await trio.Path(path).read_text()).replace(DEFAULT_ADDRESS, str(address))
        code = compile(source, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        async with engine.open_worker("worker") as worker, engine.open_worker("app") as app:
            async with trio.open_nursery() as nursery:
                names = {
                    "iii_trio": iii_trio,
                    "trio": trio,
                    "attrs": attrs,
                    "engine": engine,
                    "address": str(address),
                    "worker": worker,
                    "app": app,
                    "nursery": nursery,
                    "config": iii_trio.EngineConfig(),
                }
                with trio.fail_after(SECONDS):
                    running = eval(code, names)
                    if code.co_flags & inspect.CO_COROUTINE:
                        await running
                    refused = await worker.wait_registered() or await app.wait_registered()
                assert not refused, refused
                nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, trio.Path(sys.argv[1]))
