"""A guarded listener with a worker of the Python SDK, admitted by its token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import iii_trio
from iii_trio.config import EngineConfig, FunctionFilter, Listener, RbacConfig

from .conftest import needs
from .processes import open_peer

pytestmark = [pytest.mark.sdk, needs("python")]


async def test_a_python_worker_is_admitted_by_its_token_and_calls_what_it_may(tmp_path: Path) -> None:
    rules = RbacConfig(
        auth_function_id="gate::auth",
        expose_functions=[FunctionFilter("ship::*"), FunctionFilter("open::*")],
        on_function_registration_function_id="gate::on_function",
    )
    tokens: list[str] = []
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=0, rbac=rules),))) as engine:
        async with engine.open_worker(name="gate") as gate:

            @gate.function("gate::auth")
            async def auth(payload: dict[str, Any]) -> dict[str, Any]:
                tokens.append(payload["headers"].get("authorization", ""))
                if tokens[-1] != "Bearer sesame":
                    raise iii_trio.CallError("no", "no such ship")
                return {"forbidden_functions": ["open::secret"]}

            @gate.function("gate::on_function")
            async def on_function(payload: dict[str, Any]) -> dict[str, Any]:
                return {"function_id": None, "description": None, "metadata": None}

            @gate.function("open::a")
            async def open_a(payload: Any) -> str:
                return "open"

            await gate.wait_registered()
            [url] = await engine.listen()
            async with open_peer("python", url, tmp_path, name="ship", more={"III_TOKEN": "sesame"}):
                assert tokens == ["Bearer sesame"]

                async def call(function_id: str) -> Any:
                    return await gate.trigger("ship::call", {"function_id": function_id, "payload": 1})

                assert (await call("open::a"))["result"] == "open"
                for function_id, rule in (
                    ("hidden::a", "rbac.expose_functions"),
                    ("open::secret", "rbac.forbidden_functions"),
                ):
                    error = (await call(function_id))["error"]
                    assert error["code"] == "FORBIDDEN"
                    assert function_id in error["message"] and rule in error["message"]
