"""Calls between our worker and those of each SDK, each in a process of its own."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import iii_trio

from .conftest import EACH_KIND, EACH_SDK, KINDS, PAIRS, STEP_SECONDS, Mesh

pytestmark = pytest.mark.sdk

PAYLOADS: list[Any] = [
    None,
    True,
    0,
    -1.5,
    2**53 - 1,
    "",
    "grüße 🙂 \u2028\x00",
    [],
    [None, [1, {"a": []}]],
    {},
    {"a": None, "ö": {"b": [1.25, False]}, "": ""},
]
WHERE_IT_FAILED = {
    "ours": "our_worker.py", "python": "python_worker.py", "old_python": "python_worker.py", "node": "node_worker.mjs",
    "rust": "iii_sdk::", "next_rust": "iii_sdk::",
}  # fmt: skip


def without_caller(value: Any) -> Any:
    """What a payload was before the engine wrote its caller's id into it."""
    return {key: value[key] for key in value if key != "_caller_worker_id"} if isinstance(value, dict) else value


async def test_a_value_comes_back_as_it_went(mesh: Mesh) -> None:
    await mesh.start_pairs("caller", "callee")
    for caller, callee in PAIRS:
        for payload in PAYLOADS:
            request = {"function_id": f"callee_{callee}::echo", "payload": payload}
            answer = await mesh.call(f"caller_{caller}::call", request)
            assert without_caller(answer["result"]) == payload, (caller, callee)


async def test_an_error_keeps_its_code_its_message_and_its_stacktrace(mesh: Mesh) -> None:
    await mesh.start_pairs("caller", "callee")
    for caller, callee in PAIRS:
        request = {"function_id": f"callee_{callee}::fail", "payload": {"message": "no such tide: grüße"}}
        error = (await mesh.call(f"caller_{caller}::call", request))["error"]
        assert error["code"] == "invocation_failed", (caller, callee)
        assert "no such tide: grüße" in error["message"], (caller, callee)
        assert WHERE_IT_FAILED[callee] in error["stacktrace"], (caller, callee)


async def test_metadata_travels_beside_the_payload(mesh: Mesh) -> None:
    await mesh.start_pairs("caller", "callee")
    metadata = {"tenant": "brest", "n": [1, None]}
    payload = {"metadata": "a key of the payload"}
    for caller, callee in PAIRS:
        request = {"function_id": f"callee_{callee}::echo_metadata", "payload": payload}
        with_it = await mesh.call(f"caller_{caller}::call", {**request, "metadata": metadata})
        without = await mesh.call(f"caller_{caller}::call", request)
        assert with_it["result"]["metadata"] == metadata, (caller, callee)
        assert without_caller(with_it["result"]["payload"]) == payload, (caller, callee)
        assert without["result"]["metadata"] is None, (caller, callee)


async def test_a_call_may_have_no_result_and_no_answer(mesh: Mesh) -> None:
    await mesh.start_pairs("caller", "callee")
    for caller, callee in PAIRS:
        request = {"function_id": f"callee_{callee}::nothing", "payload": None}
        assert await mesh.call(f"caller_{caller}::call", request) == {"result": None}, (caller, callee)

        note = [caller, callee]
        request = {"function_id": f"callee_{callee}::note", "payload": note, "void": True}
        assert await mesh.call(f"caller_{caller}::call", request) == {"result": None}, (caller, callee)
        with trio.fail_after(STEP_SECONDS):
            assert (await mesh.peers[f"callee_{callee}"].event("noted"))["data"] == note


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_an_unknown_function_is_said_to_be_unknown(mesh: Mesh, kind: str) -> None:
    await mesh.start(caller=kind)
    answer = await mesh.call("caller::call", {"function_id": "nobody::there", "payload": {}})
    assert answer["error"]["code"] == "function_not_found"
    assert "nobody::there" in answer["error"]["message"]


@pytest.mark.parametrize("kind", EACH_KIND)
async def test_a_function_is_gone_once_unregistered_and_back_once_registered(mesh: Mesh, kind: str) -> None:
    await mesh.start(worker=kind)
    assert await mesh.call("worker::echo", 1) == 1
    await mesh.call("worker::unregister", {"function_id": "worker::echo"})
    with trio.fail_after(STEP_SECONDS):
        while await mesh.answers("worker::echo"):
            pass
    await mesh.call("worker::register", {"function_id": "worker::echo"})
    with trio.fail_after(STEP_SECONDS):
        while not await mesh.answers("worker::echo"):
            pass


@pytest.mark.parametrize("callee", EACH_SDK)
async def test_many_calls_at_once_each_get_their_own_answer(mesh: Mesh, callee: str) -> None:
    await mesh.start(callee=callee)
    answers: dict[int, Any] = {}

    async def ask(number: int) -> None:
        answers[number] = await mesh.call("callee::echo", number)

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(ask, number)
    assert answers == {number: number for number in range(500)}


@pytest.mark.parametrize("callee", EACH_SDK)
async def test_a_message_of_megabytes_goes_both_ways(mesh: Mesh, callee: str) -> None:
    """Above 16 MiB, the SDKs of 0.25 send it in fragments."""
    await mesh.start(callee=callee)
    payload = "grüße " * 2_500_000
    if callee == "old_python":  # it would close its connection at more than 1 MiB: it is spared that
        with pytest.raises(iii_trio.CallError, match="payload_too_large"):
            await mesh.call("callee::echo", payload)
        assert await mesh.call("callee::echo", "still there") == "still there"
    else:
        assert await mesh.call("callee::echo", payload) == payload


@pytest.mark.parametrize("kind", EACH_SDK)
async def test_what_nests_deeper_than_an_sdk_can_read_is_an_error_and_not_lost(mesh: Mesh, kind: str) -> None:
    await mesh.start(worker=kind)
    deep: Any = "deep"
    for _ in range(300):
        deep = [deep]

    @mesh.app.function("app::deep")
    async def answer() -> Any:
        return deep

    asking = {"function_id": "app::deep", "payload": {}}
    await mesh.app.wait_registered()
    if kind in ("rust", "next_rust"):
        with pytest.raises(iii_trio.CallError, match="serialization_error"):
            await mesh.call("worker::echo", deep)
        answered = await mesh.call("worker::call", asking)
        assert answered["error"]["code"] == "serialization_error"
    else:
        assert await mesh.call("worker::echo", deep) == deep
        assert await mesh.call("worker::call", asking) == {"result": deep}


@pytest.mark.parametrize("callee", EACH_KIND)
async def test_callers_of_a_killed_worker_are_told_that_the_call_has_stopped(mesh: Mesh, callee: str) -> None:
    callers = {f"caller_{kind}": kind for kind in KINDS}
    await mesh.start(callee=callee, **callers)
    codes: dict[str, str] = {}

    async def ask(caller: str) -> None:
        answer = await mesh.call(f"{caller}::call", {"function_id": "callee::hang", "payload": {}})
        codes[caller] = answer["error"]["code"]

    async with trio.open_nursery() as nursery:
        for caller in callers:
            nursery.start_soon(ask, caller)
        for _ in callers:
            await mesh.peers["callee"].event("hanging")
        await mesh.peers["callee"].kill()
    assert codes == dict.fromkeys(callers, "invocation_stopped")


@pytest.mark.parametrize("caller", EACH_KIND)
async def test_our_handler_is_cancelled_when_its_caller_is_killed(mesh: Mesh, caller: str) -> None:
    await mesh.start(caller=caller)
    started, cancelled = trio.Event(), trio.Event()

    @mesh.app.function("app::wait")
    async def wait() -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(iii_trio.CallError, match="invocation_stopped"):
                await mesh.call("caller::call", {"function_id": "app::wait", "payload": {}})

        nursery.start_soon(ask)
        with trio.fail_after(STEP_SECONDS):
            await started.wait()
            await mesh.peers["caller"].kill()
            await cancelled.wait()


@pytest.mark.parametrize("kind", EACH_SDK)
async def test_an_sdk_with_its_telemetry_on_as_by_default_works_and_does_not_complain(mesh: Mesh, kind: str) -> None:
    await mesh.start(worker=kind, telemetry=True)
    # the test's own worker, the SDK's worker socket, and its telemetry socket
    await mesh.until(lambda: mesh.engine.statistics().connections == 3, "the telemetry socket")
    for number in range(20):
        assert await mesh.call("worker::echo", number) == number
    assert mesh.engine.statistics().connections == 3
    assert mesh.engine.statistics().sessions == 2
    said = mesh.peers["worker"].stderr.read_text().lower()
    assert "error" not in said
    assert "reconnect" not in said
