"""Guarded listeners over sockets: what the auth function is shown, how a connection is refused, and reloads."""

from __future__ import annotations

from typing import Any

import attrs
import trio

import iii_trio
from iii_trio.config import EngineConfig, FunctionFilter, Listener, RbacConfig, Timeouts
from tests.helpers.bare import Bare, within

SECONDS = 20
RULES = RbacConfig(auth_function_id="gate::auth", expose_functions=[FunctionFilter("open::*")])


def config(rules: RbacConfig | None = RULES) -> EngineConfig:
    return EngineConfig(listeners=(Listener(port=0, rbac=rules),), timeouts=Timeouts(access_seconds=1))


async def dial(url: str) -> Bare:
    return Bare(await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])))


@within(SECONDS)
async def test_the_auth_function_sees_headers_query_and_address_and_admits_or_refuses() -> None:
    seen: list[Any] = []

    async with iii_trio.open_engine(config()) as engine, engine.open_worker(name="gate") as gate:

        @gate.function("gate::auth")
        async def auth(payload: dict[str, Any]) -> dict[str, Any]:
            seen.append(payload)
            if payload["headers"].get("authorization") != "Bearer sesame":
                raise iii_trio.CallError("no", "show a token")
            return {"context": {"user": "u1"}}

        await gate.wait_registered()
        [url] = await engine.listen()
        ship, thief = await dial(url), await dial(url)
        assert await ship.ask("/?token=a&token=b&empty=", Authorization="Bearer sesame") == 101
        assert (await ship.message())["type"] == "workerregistered"
        assert await thief.ask("/", Authorization="Bearer other") == 101
        assert await thief.message() == {"type": "error", "error": {"code": "AUTH_ERROR", "message": "show a token"}}
        opcode, payload = await thief.frame() or (0, b"")
        assert opcode == 8 and int.from_bytes(payload[:2], "big") == 1008
        assert seen[0]["query_params"] == {"token": ["a", "b"], "empty": [""]}
        assert seen[0]["ip_address"] == "127.0.0.1" and seen[0]["headers"]["host"] == "engine"
        # The admitted session goes on.
        await ship.tell(type="ping")
        assert await ship.message() == {"type": "pong"}
        for bare in (ship, thief):
            await trio.aclose_forcefully(bare.stream)


@within(SECONDS)
async def test_a_reload_changes_the_rules_of_a_session_and_another_auth_function_ends_it() -> None:
    async with iii_trio.open_engine(config(RbacConfig())) as engine, engine.open_worker(name="host") as host:

        @host.function("open::a")
        async def answer(payload: Any) -> int:
            return 1

        await host.wait_registered()
        [url] = await engine.listen()
        ship = await dial(url)
        assert await ship.ask("/") == 101
        await ship.message()

        async def call() -> Any:
            invocation_id = "7d6c2c1e-7c59-4a53-9d29-000000000001"
            await ship.tell(type="invokefunction", invocation_id=invocation_id, function_id="open::a", data=1)
            answer = await ship.message()
            return answer["error"]["code"] if "error" in answer else answer["result"]

        assert await call() == "FORBIDDEN"
        exposing = attrs.evolve(RULES, auth_function_id=None)
        await engine.reload(config(exposing))
        assert await call() == 1
        await engine.reload(config(RULES))
        opcode, payload = await ship.frame() or (0, b"")
        assert opcode == 8 and int.from_bytes(payload[:2], "big") == 1012
        await trio.aclose_forcefully(ship.stream)
