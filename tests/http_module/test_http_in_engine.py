"""The HTTP module as an engine's configuration starts it."""

from __future__ import annotations

import trio

import iii_trio
from iii_trio.triggers.http import Http, HttpConfig


async def test_an_engine_whose_configuration_names_it_serves_http() -> None:
    config = iii_trio.EngineConfig(modules={"http": HttpConfig(port=0)})
    async with iii_trio.open_engine(config) as engine:
        http = engine.modules["http"]
        assert isinstance(http, Http)
        host, port = http.urls[0].removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"GET /nowhere HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 404 ")
