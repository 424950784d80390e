"""Every type of message, at least once, with each SDK: seen by a tap on the wire, and a tally of what was seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

import iii_trio

from .conftest import EACH_SDK, STEP_SECONDS, WITHOUT_TRIGGERS, Mesh
from .processes import open_peer
from .tap import Tap, open_tap

pytestmark = pytest.mark.sdk

BY_WORKERS: Final = {
    "registertriggertype", "unregistertriggertype", "registerfunction", "unregisterfunction", "registertrigger",
    "unregistertrigger", "triggerregistrationresult", "triggerregistrationresult trigger_registration_failed",
    "invokefunction", "invokefunction void", "invokefunction enqueue", "invocationresult", "invocationresult error",
    "reattach", "/otel OTLP",
}  # fmt: skip
BY_ENGINES: Final = {
    "workerregistered", "invokefunction", "invocationresult", "invocationresult error", "registertrigger",
    "unregistertrigger", "triggerregistrationresult trigger_registration_failed",
    "registrationrejected FUNCTION_NAMESPACE_CONFLICT", "registrationrejected WORKER_NAMESPACE_CONFLICT",
}  # fmt: skip
"""What is not here is sent by no SDK (`registerservice`, `ping` and `pong` in JSON): golden conversations have it."""


class Provider:
    """Takes bindings, unless their config says why not."""

    async def register_trigger(self, bound: iii_trio.BoundTrigger) -> None:
        if bound.config.get("refuse"):
            raise ValueError(bound.config["refuse"])

    async def unregister_trigger(self, bound: iii_trio.BoundTrigger) -> None:
        pass


@attrs.define(eq=False)
class Tapped:
    """A mesh with a worker named `sdk`, that is connected by a tap; the test's own worker is not."""

    mesh: Mesh
    tap: Tap
    kind: str

    def heard(self, function: str) -> dict[str, Any]:
        return {"function_id": f"sdk::{function}", "payload": {}}

    async def tell(self, function: str, data: Any = None) -> Any:
        return await self.mesh.call(f"sdk::{function}", data)

    async def says(self, event: str) -> dict[str, Any]:
        with trio.fail_after(STEP_SECONDS):
            return await self.mesh.peers["sdk"].event(event)

    async def until_said(self, kind: str, *, by_worker: bool) -> None:
        await self.mesh.until(lambda: kind in self.tap.kinds(by_worker=by_worker), f"the message {kind!r}")


@pytest.fixture
async def tapped(mesh: Mesh, request: pytest.FixtureRequest) -> AsyncIterator[Tapped]:
    async with open_tap(mesh.url) as tap:
        await mesh.start(telemetry=True, url=tap.url, sdk=request.param)
        yield Tapped(mesh, tap, request.param)


@pytest.mark.parametrize("tapped", EACH_SDK, indirect=True)
async def test_every_type_of_message_is_said_and_understood(tapped: Tapped, tmp_path: Path) -> None:
    await make_calls(tapped)
    with_triggers = tapped.kind not in WITHOUT_TRIGGERS
    if with_triggers:
        await provide_a_type(tapped)
        await bind_to_a_type(tapped)
    await register_what_is_taken(tapped, tmp_path)
    await tapped.until_said("/otel OTLP", by_worker=True)
    await come_back(tapped)
    by_workers = {kind for kind in BY_WORKERS if with_triggers or not is_about_triggers(kind)}
    by_engines = {kind for kind in BY_ENGINES if with_triggers or not is_about_triggers(kind)}
    assert by_workers - tapped.tap.kinds(by_worker=True) == set()
    assert by_engines - tapped.tap.kinds(by_worker=False) == set()
    assert "" not in tapped.tap.kinds(by_worker=True)


def is_about_triggers(kind: str) -> bool:
    return kind.startswith(("registertrigger", "unregistertrigger", "triggerregistration"))


async def make_calls(tapped: Tapped) -> None:
    app = tapped.mesh.app
    noted = trio.Event()

    @app.function("app::fail")
    async def fail() -> None:
        raise iii_trio.CallError("ebb", "no water")

    @app.function("app::note")
    async def note(data: Any) -> None:
        noted.set()

    @app.function("app::job")
    async def job(data: dict[str, Any]) -> None:
        done.append(data)

    done: list[dict[str, Any]] = []
    await app.wait_registered()
    assert await tapped.tell("echo", 1) == 1
    with pytest.raises(iii_trio.CallError, match="invocation_failed"):
        await tapped.tell("fail", {"message": "no such tide"})
    answer = await tapped.tell("call", {"function_id": "app::fail", "payload": {}})
    assert answer["error"]["code"] == "ebb"
    assert "no water" in answer["error"]["message"]
    await tapped.tell("call", {"function_id": "app::note", "payload": {}, "void": True})
    with trio.fail_after(STEP_SECONDS):
        await noted.wait()
    job_call = {"function_id": "app::job", "payload": {"a": 1}, "queue": "default"}
    assert (await tapped.tell("call", job_call))["result"]["messageReceiptId"]
    await tapped.mesh.until(lambda: done, "the job")
    assert done[0]["a"] == 1
    await tapped.tell("unregister", {"function_id": "sdk::nothing"})
    await tapped.until_said("unregisterfunction", by_worker=True)
    with pytest.raises(iii_trio.CallError, match="function_not_found"):
        await tapped.tell("nothing")


async def provide_a_type(tapped: Tapped) -> None:
    """The SDK's worker is the provider: it takes one binding of ours, refuses another, and fires."""
    app, fired = tapped.mesh.app, trio.Event()
    firings: list[tuple[Any, Any]] = []

    @app.function("app::high_water")
    async def high_water(data: dict[str, Any], metadata: Any) -> None:
        firings.append((data["height"], metadata))
        fired.set()

    await tapped.tell("provide", {"type": "tide"})
    taken = app.register_trigger("tide", "app::high_water", config={"harbour": "brest"}, metadata={"lane": 3})
    offered = await tapped.says("offered")
    assert (offered["config"], offered["metadata"]) == ({"harbour": "brest"}, {"lane": 3})
    assert offered["target"] == "app::high_water"
    call = {"function_id": offered["target"], "payload": {"height": 7}, "metadata": offered["metadata"]}
    await tapped.tell("call", call)
    assert firings == [(7, {"lane": 3})]

    refused = app.register_trigger("tide", "app::high_water", config={"refuse": "no such harbour"})
    error = await tapped.mesh.until(lambda: refused.error, "the SDK's refusal")
    assert "no such harbour" in error.message
    taken.unregister()
    await tapped.says("withdrawn")

    await tapped.tell("withdraw", {"type": "tide"})
    await tapped.until_said("unregistertriggertype", by_worker=True)
    with pytest.raises(iii_trio.CallError, match="NOT_FOUND"):
        await tapped.mesh.call("engine::triggers::info", {"id": "tide"})


async def bind_to_a_type(tapped: Tapped) -> None:
    """Our worker is the provider: it takes one binding of the SDK's worker and fires it, and refuses another."""
    bound: list[iii_trio.BoundTrigger] = []

    class Ebb(Provider):
        async def register_trigger(self, binding: iii_trio.BoundTrigger) -> None:
            bound.append(binding)
            await super().register_trigger(binding)

        async def unregister_trigger(self, binding: iii_trio.BoundTrigger) -> None:
            bound.remove(binding)

    tapped.mesh.app.register_trigger_type("ebb", Ebb)
    await tapped.tell("bind", {"name": "one", "type": "ebb", "function_id": "sdk::note", "config": {"m": 1}})
    await tapped.mesh.until(lambda: bound, "the SDK's binding")
    assert bound[0].config == {"m": 1}
    with trio.fail_after(STEP_SECONDS):
        await bound[0].fire({"height": 1})
    assert (await tapped.says("noted"))["data"]["height"] == 1
    await tapped.tell("unbind", {"name": "one"})
    await tapped.mesh.until(lambda: not bound, "the end of the SDK's binding")
    refused = {"name": "two", "type": "ebb", "function_id": "sdk::note", "config": {"refuse": "dry"}}
    await tapped.tell("bind", refused)
    await tapped.until_said("triggerregistrationresult trigger_registration_failed", by_worker=False)


async def register_what_is_taken(tapped: Tapped, home: Path) -> None:
    """A function that another worker has, and the name of a worker that is there: both are refused, with their code."""
    await tapped.tell("register", {"function_id": "app::note"})
    await tapped.until_said("registrationrejected FUNCTION_NAMESPACE_CONFLICT", by_worker=False)
    async with open_peer(tapped.kind, tapped.tap.url, home, name="sdk", wait=False):
        await tapped.until_said("registrationrejected WORKER_NAMESPACE_CONFLICT", by_worker=False)
    assert await tapped.tell("echo", "still there") == "still there"


async def come_back(tapped: Tapped) -> None:
    """Its link is lost: it comes back with its token, and everything of it with it."""
    mesh, lost = tapped.mesh, await worker_id_of(tapped)
    async with trio.open_nursery() as nursery:

        async def hang() -> None:
            with pytest.raises(iii_trio.CallError, match="invocation_stopped"):
                await tapped.tell("hang", {})

        nursery.start_soon(hang)
        await tapped.says("hanging")
        tapped.tap.cut()
    await tapped.until_said("reattach", by_worker=True)
    with trio.fail_after(STEP_SECONDS):
        while not await mesh.answers("sdk::pid"):
            pass
    assert await worker_id_of(tapped) != lost
    assert await tapped.tell("echo", 2) == 2


async def worker_id_of(tapped: Tapped) -> str:
    return str((await tapped.mesh.call("engine::workers::info", {"name": "sdk"}))["worker"]["id"])
