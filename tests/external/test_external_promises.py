"""The promises X1 to X9 of docs/external.md."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import uuid
from typing import Any

import pytest
import trio
import trio.testing

from iii_trio import CallError, enqueue
from iii_trio.http import ApiKeyAuth, BearerAuth, ExternalCall, HmacAuth
from iii_trio.triggers.external import ExternalConfig
from tests.external.external_world import NOW, Seen, external_world, plain

Clock = trio.testing.MockClock


# --- X1: the request


async def test_X1_the_request_is_the_payload_with_the_headers_of_the_protocol() -> None:
    async with external_world() as world:
        await world.offer("http://tides.example/next?of=brest", method="PUT", headers={"X-Site": "brest"})
        world.network.answer = plain(b'{"height":6.1}')
        assert await world.call({"harbour": "brest"}) == {"height": 6.1}
        (seen,) = world.network.requests
        assert (seen.method, seen.target) == ("PUT", "/next?of=brest")
        payload = json.loads(seen.body)
        assert payload == {"harbour": "brest", "_caller_worker_id": world.caller.worker_id}
        uuid.UUID(seen.headers.pop("x-iii-invocation-id"))
        assert seen.headers == {
            "host": "tides.example",
            "content-type": "application/json",
            "content-length": str(len(seen.body)),
            "accept-encoding": "identity",
            "x-iii-function-path": "tides::next",
            "x-iii-timestamp": str(NOW),
            "x-site": "brest",
        }


async def test_X1_a_header_of_the_worker_replaces_one_of_the_protocol() -> None:
    async with external_world() as world:
        await world.offer(headers={"Content-Type": "application/vnd.tides+json"})
        await world.call()
        (seen,) = world.network.requests
        assert seen.headers["content-type"] == "application/vnd.tides+json" and seen.body == b"null"


@pytest.mark.parametrize(
    "auth, expected",
    [
        (BearerAuth("TIDES"), ("authorization", "Bearer s3cret")),
        (ApiKeyAuth("X-Key", "TIDES"), ("x-key", "s3cret")),
        (HmacAuth("TIDES"), ("x-iii-signature", None)),
    ],
)
async def test_X1_the_secret_of_auth_comes_from_the_engines_environment(auth: Any, expected: tuple[str, Any]) -> None:
    async with external_world(TIDES="s3cret") as world:
        await world.offer(auth=auth)
        await world.call({"n": 1})
        (seen,) = world.network.requests
        name, value = expected
        if value is None:
            signed = f"{NOW}:{base64.b64encode(seen.body).decode()}".encode()
            value = "sha256=" + hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
        assert seen.headers[name] == value


# --- X2: the response


@pytest.mark.parametrize(
    "answer, expected",
    [
        (plain(b"", "204 No Content"), None),
        (plain(b" ", "200 OK"), None),
        (plain(b"[1]", "201 Created"), [1]),
        (plain(b"see there", "302 Found", "location: http://10.0.0.1/"), None),
        (plain(b'{"to":1}', "302 Found", "location: http://10.0.0.1/"), {"to": 1}),
        (plain(b"<p>", "200 OK"), ("invalid_response", "The response is not JSON: JSON is malformed: ")),
        (plain(b"", "404 Not Found"), ("http_error", "HTTP 404 Not Found")),
        (plain(b"{}", "500 Oops"), ("http_error", "HTTP 500 Internal Server Error")),
        (plain(b"", "599 Odd"), ("http_error", "HTTP 599")),
        (plain(b'{"error":{"code":"dry","message":"no water"}}', "409 Conflict"), ("dry", "no water")),
        (plain(b'{"error":{}}', "400 Bad Request"), ("http_error", "HTTP request failed")),
        (plain(b'{"error":null}', "400 Bad Request"), ("http_error", "HTTP request failed")),
        (plain(b'{"error":"no water"}', "400 Bad Request"), ("http_error", "no water")),
        (plain(b'{"error":{"code":1,"message":[]}}', "400 Bad Request"), ("http_error", "HTTP request failed")),
    ],
)
async def test_X2_the_status_and_the_body_say_the_result(answer: Any, expected: Any) -> None:
    async with external_world() as world:
        await world.offer()
        world.network.answer = answer
        if not isinstance(expected, tuple):
            assert await world.call() == expected
        else:
            code, message = await world.error()
            assert code == expected[0] and message.startswith(expected[1])
        assert len(world.network.requests) == 1  # no redirect was followed


async def test_X2_a_connection_serves_several_calls() -> None:
    async with external_world() as world:
        await world.offer()
        for _ in range(3):
            await world.call()
        assert len(world.network.connected) == 1 and len(world.network.requests) == 3


# --- X3: where calls may go


BAD_URLS = {
    "ftp://tides.example/": "Invalid URL: write it as https://host/path",
    "tides.example": "Invalid URL: write it as https://host/path",
    "https://": "Invalid URL: its host is not a name",
    "https://tides.example:99999/": "Invalid URL: its host or port cannot be read",
    "https://[::1": "Invalid URL: its host or port cannot be read",
    "https://u:p@tides.example/": "Invalid URL: it holds a user name; use `auth`, or `headers`",
    "https://tides.example\\@evil.example/": "Invalid URL: it holds a space, a control character or a backslash",
    "https://tides.example/\r\nx: y": "Invalid URL: it holds a space, a control character or a backslash",
    "https://ti%64es.example/": "Invalid URL: its host is not a name",
    "https://[fe80::1%25eth0]/": "Invalid URL: its host is not a name",
    "http://tides.example/": "HTTPS is required (security.require_https)",
    "https://evil.example/": "URL not in allowlist (security.url_allowlist)",
    "https://tides.example.evil.example/": "URL not in allowlist (security.url_allowlist)",
}


@pytest.mark.parametrize("url", BAD_URLS)
async def test_X3_a_url_that_is_not_allowed_is_refused_when_it_is_registered(url: str) -> None:
    config = ExternalConfig(url_allowlist=("tides.example", "*.tides.example"))
    async with external_world(config) as world:
        assert await world.refusal(url) == f"url_validation_failed: {BAD_URLS[url]}"
        assert (await world.error())[0] == "function_not_found"
        assert not world.network.connected


@pytest.mark.parametrize("url", ["https://tides.example/", "https://A.TIDES.example./x", "https://tides.example:8443"])
async def test_X3_a_url_that_is_allowed_is_registered(url: str) -> None:
    config = ExternalConfig(url_allowlist=("tides.example", "*.tides.example"))
    async with external_world(config) as world:
        assert (await world.offer(url)).refused is None


async def test_X3_the_rules_hold_for_each_call_too() -> None:
    """A function can come before its check, and the settings can change."""
    async with external_world() as world:
        await world.offer("http://10.0.0.1/")
        await world.call()
        world.network.requests.clear()
    async with external_world(names={"tides.example": [["93.184.216.34"], ["10.0.0.1"]]}, config=STRICT) as world:
        assert (await world.offer()).refused is None
        assert ": ".join(await world.error()) == BLOCKED
        assert not world.network.connected


# --- X4: private addresses

STRICT = ExternalConfig(require_https=False)
BLOCKED = "url_validation_failed: Private IP blocked (security.block_private_ips)"
PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1",
    "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:db8::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "100::1",
]  # fmt: skip
PUBLIC = ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::93.184.216.34"]


@pytest.mark.parametrize("address", PRIVATE)
async def test_X4_a_name_with_a_private_address_is_refused(address: str) -> None:
    async with external_world(STRICT, {"inside.example": [address]}) as world:
        assert await world.refusal("http://inside.example/") == BLOCKED
        assert not world.network.connected


@pytest.mark.parametrize("address", PUBLIC)
async def test_X4_a_name_with_a_public_address_is_called_at_that_address(address: str) -> None:
    async with external_world(STRICT, {"outside.example": [address]}) as world:
        await world.offer("http://outside.example:81/")
        await world.call()
        assert world.network.connected == [(address, 81)]
        assert world.network.requests[0].headers["host"] == "outside.example:81"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::1]", "[::ffff:7f00:1]", "１２７.0.0.1"]
)
async def test_X4_an_address_in_the_url_is_judged_in_each_way_of_writing_it(host: str) -> None:
    async with external_world(STRICT) as world:
        assert await world.refusal(f"http://{host}/") == BLOCKED


async def test_X4_one_private_address_among_public_ones_refuses_the_name() -> None:
    async with external_world(STRICT, {"both.example": ["93.184.216.34", "10.0.0.1"]}) as world:
        assert (await world.offer("http://both.example/")).refused is not None


async def test_X4_a_name_is_resolved_once_for_a_connection() -> None:
    """An attacker's name server answers with a public address first, and with a private one when it is asked again."""
    answers = [["93.184.216.34"], ["93.184.216.34"], ["127.0.0.1"]]
    async with external_world(STRICT, {"rebind.example": answers}) as world:
        await world.offer("http://rebind.example/")
        await world.call()
        assert world.network.connected == [("93.184.216.34", 80)] and len(world.names.asked) == 2
        # The second call uses the connection that was made to the address which was looked at.
        await world.call()
        assert world.network.connected == [("93.184.216.34", 80)]


async def test_X4_the_next_address_is_tried_where_one_cannot_be_reached() -> None:
    async with external_world(STRICT, {"two.example": ["93.184.216.34", "93.184.216.35"]}) as world:
        world.network.unreachable.add("93.184.216.34")
        await world.offer("http://two.example/")
        await world.call()
        assert [host for host, _ in world.network.connected] == ["93.184.216.34", "93.184.216.35"]


async def test_X4_a_name_without_an_address_is_registered_and_its_calls_fail() -> None:
    async with external_world(STRICT) as world:
        assert (await world.offer("http://later.example/")).refused is None
        expected = ("url_validation_failed", "DNS lookup failed: later.example has no address")
        assert await world.error() == expected
        world.names.table["later.example"] = ["93.184.216.34"]
        assert await world.call() is None


# --- X5: bounds


async def test_X5_a_late_response_fails_its_call_and_frees_its_connection(autojump_clock: Clock) -> None:
    async def never(seen: Seen) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with external_world() as world:
        await world.offer(timeout_seconds=5)
        world.network.answer = never
        before = trio.current_time()
        assert await world.error() == ("http_request_failed", "tides.example did not answer within 5 s")
        assert trio.current_time() - before == 5
        assert world.network.streams[0].closed


async def test_X5_a_body_that_does_not_end_fails_its_call(autojump_clock: Clock) -> None:
    async def half(seen: Seen) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"

    async with external_world() as world:
        await world.offer()
        world.network.answer = half
        before = trio.current_time()
        assert await world.error() == ("http_response_failed", "tides.example did not answer within 30 s")
        assert trio.current_time() - before == 30


async def test_X5_a_response_that_was_cut_is_no_result() -> None:
    async def cut(seen: Seen) -> bytes:
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\n[1]"

    async with external_world() as world:
        await world.offer()
        world.network.answer = cut
        assert (await world.error())[0] == "http_response_failed"


async def test_X5_a_response_above_the_bound_fails_its_call() -> None:
    async with external_world(ExternalConfig(block_private_ips=False, require_https=False, response_bytes=10)) as world:
        await world.offer()
        world.network.answer = plain(b"1234567890")
        assert await world.call() == 1234567890
        world.network.answer = plain(b"12345678901")
        code, message = await world.error()
        assert (code, message) == (
            "http_response_failed",
            "the response of tides.example has more than 10 bytes (response_bytes)",
        )
        assert world.network.streams[0].closed


async def test_X5_calls_beyond_the_connections_wait_within_their_time(autojump_clock: Clock) -> None:
    async def slow(seen: Seen) -> bytes:
        await trio.sleep(4)
        return await plain(b"1")(seen)

    config = ExternalConfig(block_private_ips=False, require_https=False, connections=1)
    async with external_world(config) as world:
        await world.offer(timeout_seconds=10)
        world.network.answer = slow
        results: list[Any] = []

        async def call() -> None:
            try:
                results.append(await world.call())
            except CallError as error:
                results.append((error.code, error.message))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(call)
        assert results == [1, 1, ("http_request_failed", "tides.example did not answer within 10 s")]


async def test_X5_a_cancelled_call_drops_its_connection() -> None:
    arrived = trio.Event()

    async def never(seen: Seen) -> bytes:
        arrived.set()
        await trio.sleep_forever()
        raise AssertionError

    async with external_world() as world:
        await world.offer()
        world.network.answer = never
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.call)
            await arrived.wait()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert world.network.streams[0].closed


# --- X6: secrets


@pytest.mark.parametrize(
    "auth, code",
    [
        (BearerAuth("NONE"), "token_not_found"),
        (ApiKeyAuth("X-Key", "NONE"), "api_key_not_found"),
        (HmacAuth("NONE"), "secret_not_found"),
    ],
)
async def test_X6_a_variable_that_is_missing_refuses_the_registration(auth: Any, code: str) -> None:
    async with external_world() as world:
        text = f"{code}: the engine's environment has no variable 'NONE', which `auth` names"
        assert await world.refusal(auth=auth) == text


async def test_X6_only_variables_that_the_settings_allow_are_read() -> None:
    config = ExternalConfig(block_private_ips=False, require_https=False, secrets=("TIDES_*",))
    async with external_world(config, TIDES_TOKEN="a", AWS_SECRET="b") as world:
        refused = await world.refusal(auth=BearerAuth("AWS_SECRET"))
        assert refused == "FORBIDDEN: `auth` may not name the variable 'AWS_SECRET' (setting `secrets`)"
        world.forget()
        assert (await world.offer(auth=BearerAuth("TIDES_TOKEN"))).refused is None


async def test_X6_only_the_engine_calls_the_module() -> None:
    """A worker that called it itself could say that it is trusted."""
    async with external_world() as world:
        payload = {"function_id": "x", "invocation": {"url": "http://tides.example/"}, "guarded": False, "data": 1}
        text = "FORBIDDEN: Only the engine calls this function. Register one with an `invocation`."
        with pytest.raises(CallError, match=text):
            await world.caller.trigger("engine::external::invoke", payload)
        assert await world.caller.trigger("engine::external::check", payload) == text
        assert not world.network.connected


async def test_X6_no_secret_is_in_a_log_line_an_error_or_a_list(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ("s3cret-token", "s3cret-header", "s3cret-query", "s3cret\nline")
    async with external_world(TOKEN=secrets[0], BROKEN=secrets[3]) as world:
        url, headers = f"http://tides.example/?key={secrets[2]}", {"x-key": secrets[1]}
        offered = await world.offer(url, headers=headers, auth=BearerAuth("TOKEN"))
        told: list[Any] = [repr(offered), repr(ExternalCall(url, headers=headers))]
        await world.call()
        world.network.answer = plain(b"", "500 Oops")
        told.append(await world.error())

        async def broken(seen: Seen) -> bytes:
            return b"nonsense\r\n\r\n"

        world.network.answer = broken
        told.append(await world.error())
        told.append(await world.caller.trigger("engine::functions::list", {"include_internal": True}))
        told.append(await world.caller.trigger("engine::functions::info", {"function_id": "tides::next"}))
        offered.unregister()
        refused = await world.refusal(auth=BearerAuth("BROKEN"))
        assert refused is not None and "has characters at which a header would end" in refused
        told.append(refused)
    everything = caplog.text + repr(told)
    assert "tides.example" in everything
    assert [secret for secret in secrets if secret in everything or repr(secret)[1:-1] in everything] == []


# --- X7: registration and end


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"content-length": "1"}, {"a b": "c"}, {"a": "b\r\nc: d"}, {"a": "é"}]
)
async def test_X7_headers_that_belong_to_the_connection_or_break_it_are_refused(headers: dict[str, str]) -> None:
    async with external_world() as world:
        refused = await world.refusal(headers=headers)
        assert refused is not None and refused.startswith("deserialization_error: ")


async def test_X7_a_block_that_cannot_be_read_is_refused() -> None:
    async with external_world() as world:
        refused = await world.refusal(method="get")
        assert refused is not None
        assert refused.startswith("deserialization_error: Failed to deserialize input for an external function")


async def test_X7_a_function_ends_with_its_worker_and_when_it_is_unregistered() -> None:
    async with external_world() as world:
        offered = await world.offer()
        await world.call()
        offered.unregister()
        await world.worker.wait_registered()
        assert (await world.error())[0] == "function_not_found"
        async with world.engine.open_worker("other") as other:
            other.register_external_function("tides::next", ExternalCall("http://tides.example/"))
            await other.wait_registered()
            await world.call()
        assert (await world.error())[0] == "function_not_found"


async def test_X7_a_function_that_stood_by_takes_over_where_one_is_refused() -> None:
    async def local() -> str:
        return "local"

    async with external_world(ExternalConfig(block_private_ips=False)) as world:
        world.worker.register_external_function("tides::next", ExternalCall("http://tides.example/"))
        world.caller.register_function("tides::next", local)
        await world.worker.wait_registered()
        await world.caller.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        assert await world.call() == "local"


# --- X8: like any function


async def test_X8_queues_and_triggers_call_external_functions_too() -> None:
    async with external_world() as world:
        await world.offer()
        await world.caller.trigger("tides::next", {"n": 1}, action=enqueue("default"))
        world.worker.register_trigger("engine::workers-available", "tides::next")
        await world.worker.wait_registered()
        async with world.engine.open_worker("new") as new:
            await new.wait_registered()
            for _ in range(20):
                await trio.testing.wait_all_tasks_blocked()
        bodies = [json.loads(seen.body) for seen in world.network.requests]
        assert {"n": 1} in bodies
        assert any(body.get("event") == "worker_connected" or "event" in body for body in bodies)
