"""External functions over real sockets, with TLS, and those of a guarded session."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

import iii_trio
from iii_trio.config import EngineConfig, Listener, RbacConfig, Tls
from iii_trio.http import BearerAuth, ExternalCall
from iii_trio.triggers.external import ExternalConfig, open_external
from iii_trio.triggers.http import HttpConfig, open_http

LOCAL = ExternalConfig(block_private_ips=False)


@asynccontextmanager
async def tls_server(engine: iii_trio.Engine, ca: trustme.CA, name: str, home: Path) -> AsyncIterator[int]:
    """Serve `POST /next` over TLS with a certificate for this name; give the port."""
    pem = home / "cert.pem"
    ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(pem)
    config = HttpConfig(port=0, tls=Tls(str(pem), str(pem)))
    async with open_http(engine.address, config) as http, engine.open_worker("server") as server:

        @server.http("POST", "/next")
        async def next_tide(body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
            return {"n": body["n"], "host": headers["host"]}

        await server.wait_registered()
        with trio.fail_after(5):
            while not len(http.server.router):  # noqa: ASYNC110 - nothing tells that a route is served
                await trio.sleep(0.01)
        yield int(http.urls[0].rsplit(":", 1)[1])


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("name", ["localhost", "other.example"])
async def test_X4_the_certificate_has_to_be_that_of_the_host(name: str, trusted: bool, tmp_path: Path) -> None:
    """The connection goes to an address, and the certificate is still compared with the name."""
    ca = trustme.CA()
    context = ssl.create_default_context()
    (ca if trusted else trustme.CA()).configure_trust(context)
    async with (
        iii_trio.open_engine() as engine,
        tls_server(engine, ca, name, tmp_path) as port,
        open_external(engine.address, LOCAL, ssl_context=context),
        engine.open_worker("app") as app,
    ):
        app.register_external_function("tides::next", ExternalCall(f"https://localhost:{port}/next"))
        assert await app.wait_registered() == {}
        if trusted and name == "localhost":
            assert await app.trigger("tides::next", {"n": 7}) == {"n": 7, "host": f"localhost:{port}"}
            return
        with pytest.raises(iii_trio.CallError) as caught:
            await app.trigger("tides::next", {"n": 7})
        assert caught.value.code == "http_request_failed"
        assert "localhost: its certificate is not trusted: " in caught.value.message


@pytest.mark.parametrize("secrets", [None, ("TIDES_*",)])
async def test_X6_a_guarded_session_names_only_variables_that_are_listed(
    secrets: tuple[str, ...] | None,
) -> None:
    rules = RbacConfig(auth_function_id="gate::auth")
    external = ExternalConfig(block_private_ips=False, require_https=False, secrets=secrets)
    config = EngineConfig(listeners=(Listener(port=0, rbac=rules),))
    async with (
        iii_trio.open_engine(config) as engine,
        open_external(engine.address, external, variables={"TIDES_TOKEN": "s3cret"}),
        engine.open_worker("gate") as gate,
    ):

        @gate.function("gate::auth")
        async def auth(payload: dict[str, Any]) -> dict[str, Any]:
            return {"allow_function_registration": True}

        await gate.wait_registered()
        [url] = await engine.listen()
        call = ExternalCall("http://127.0.0.1:1/", auth=BearerAuth("TIDES_TOKEN"))
        async with iii_trio.open_worker(url, name="guarded") as guarded:
            offered = guarded.register_external_function("tides::next", call)
            await guarded.wait_registered()
            with trio.move_on_after(5 if secrets is None else 0.2):
                while offered.refused is None:  # noqa: ASYNC110 - a refusal has no event
                    await trio.sleep(0.01)
            if secrets is None:
                assert offered.refused is not None and "`auth` may not name the variable" in offered.refused
            else:
                assert offered.refused is None
        # A trusted worker of the same engine may name it in both cases.
        trusted = gate.register_external_function("tides::other", call)
        await gate.wait_registered()
        assert trusted.refused is None
