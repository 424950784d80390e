"""A new configuration for a running engine: what is not forbidden by it stays."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import iii_trio
from iii_trio import ChannelDefaults, Limits, Listener, Timeouts
from iii_trio.config import Auth, EngineConfig
from iii_trio.errors import CallError, ConfigError, ConnectionFailed, ListenFailed
from tests.helpers.bare import Bare, within

SECONDS = 20


@within(SECONDS)
async def test_a_place_that_stays_keeps_its_socket_others_are_opened_and_closed(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    config = EngineConfig(listeners=(Listener(port=0), Listener(unix=first)))
    async with iii_trio.open_engine(config) as engine:
        url, _ = await engine.listen()
        async with iii_trio.open_worker(url, name="a") as a, iii_trio.open_worker(f"unix:{first}", name="b") as b:
            config = attrs.evolve(config, listeners=(Listener(unix=second), Listener(port=0)))
            assert sorted(await engine.reload(config)) == sorted([url, f"unix:{second}"])
            assert not await trio.Path(first).exists()
            for worker in (a, b):  # also the one that came in where nobody listens any more
                await worker.trigger("engine::workers::list", {})
            async with iii_trio.open_worker(f"unix:{second}", name="c"), iii_trio.open_worker(url, name="d"):
                assert engine.statistics().sessions == 4
        assert engine.config == config


@within(SECONDS)
async def test_a_worker_whose_token_is_withdrawn_is_sent_away_and_the_others_stay() -> None:
    def config(*tokens: str) -> EngineConfig:
        return EngineConfig(listeners=(Listener(port=0, auth=Auth(tokens=tokens)),))

    async with iii_trio.open_engine(config("old", "both")) as engine:
        (url,) = await engine.listen()
        async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
            bare = Bare(stream)
            assert await bare.ask("/", Authorization="Bearer old") == 101
            await bare.message()
            async with iii_trio.open_worker(url, headers={"Authorization": "Bearer both"}) as stays:
                await engine.reload(config("both", "new"))
                opcode, payload = await bare.frame() or (0, b"")
                assert (opcode, payload) == (8, (1012).to_bytes(2, "big") + b"its token was withdrawn")
                await bare.say(8, payload[:2])
                await stays.trigger("engine::workers::list", {})
                with pytest.raises(ConnectionFailed, match="401"):
                    async with iii_trio.open_worker(url, headers={"Authorization": "Bearer old"}):
                        pass
                async with iii_trio.open_worker(url, name="new", headers={"Authorization": "Bearer new"}):
                    pass
                await engine.reload(EngineConfig(listeners=(Listener(port=0),)))  # no tokens at all: everybody
                async with iii_trio.open_worker(url, name="other"):
                    await stays.trigger("engine::workers::list", {})


@within(SECONDS)
async def test_what_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = EngineConfig(listeners=(Listener(port=0, auth=Auth(tokens=("a",))),))
        wrong = (
            (ConnectionFailed, Listener(port=taken.getsockname()[1])),
            (ConfigError, Listener(port=0, auth=Auth(token_file=str(tmp_path / "absent")))),
        )
        async with iii_trio.open_engine(config) as engine:
            (url,) = await engine.listen()
            for error, listener in wrong:
                with pytest.raises(error):
                    await engine.reload(EngineConfig(listeners=(Listener(unix=str(tmp_path / "new")), listener)))
                assert engine.config == config
                assert not (tmp_path / "new").exists()
                with pytest.raises(ConnectionFailed, match="401"):
                    async with iii_trio.open_worker(url, name="other"):
                        pass
                async with iii_trio.open_worker(url, headers={"Authorization": "Bearer a"}):
                    pass


@within(SECONDS)
async def test_an_engine_that_is_closed_listens_nowhere() -> None:
    async with iii_trio.open_engine(EngineConfig(name="gone")) as engine:
        pass
    before = len(os.listdir("/proc/self/fd"))
    for call in (
        partial(engine.listen, Listener(port=0)),
        partial(engine.reload, EngineConfig(listeners=(Listener(port=0),))),
        partial(engine.listen_at, [before], Listener()),
    ):
        with pytest.raises(ListenFailed, match="the engine 'gone' in this process is closed; listen within its block"):
            await call()
    assert len(os.listdir("/proc/self/fd")) == before


@within(SECONDS)
async def test_an_engine_that_is_closed_while_it_binds_leaves_no_socket() -> None:
    problems: list[ListenFailed] = []
    looking, closed = trio.Event(), trio.Event()
    before = len(os.listdir("/proc/self/fd"))

    class Slow(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *question: object) -> Any:
            looking.set()
            await closed.wait()
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 0))]

        async def getnameinfo(self, *question: object) -> Any:
            raise NotImplementedError

    async def listen() -> None:
        try:
            await engine.listen(Listener("engine.example", 0))
        except ListenFailed as error:
            problems.append(error)

    trio.socket.set_custom_hostname_resolver(Slow())
    async with trio.open_nursery() as nursery:
        async with iii_trio.open_engine() as engine:
            nursery.start_soon(listen)
            await looking.wait()
        closed.set()
    assert [str(each) for each in problems] == [
        "the engine 'iii-trio' in this process is closed; listen within its block"
    ]
    assert len(os.listdir("/proc/self/fd")) == before


@within(SECONDS)
async def test_limits_and_defaults_hold_for_what_comes_from_now_on() -> None:
    config = EngineConfig(listeners=(Listener(port=0),), limits=Limits(channels=1))
    async with iii_trio.open_engine(config) as engine:
        await engine.listen()
        async with engine.open_worker("w") as worker, worker.create_channel() as before:
            with pytest.raises(CallError, match="as many as it may"):
                async with worker.create_channel():
                    pass
            new = attrs.evolve(
                config,
                limits=Limits(channels=2),
                channels=ChannelDefaults(buffer_size=7),
                timeouts=Timeouts(silent_worker_seconds=None),
            )
            await engine.reload(new)
            async with worker.create_channel():
                listed = (await worker.trigger("engine::channels::list", {}))["channels"]
                assert [channel["buffer_size"] for channel in listed] == [64, 7]
            await before.writer.send(b"it is still there")


@within(SECONDS)
async def test_sockets_that_were_handed_over_stay_whatever_place_the_configuration_names() -> None:
    handed = socket.create_server(("127.0.0.1", 0))
    async with iii_trio.open_engine(EngineConfig(listeners=(Listener(port=1),))) as engine:
        addresses = await engine.listen_at([handed.detach()])
        auth = Auth(tokens=("t",))
        assert await engine.reload(EngineConfig(listeners=(Listener(port=2, auth=auth),))) == addresses
        async with iii_trio.open_worker(addresses[0], headers={"Authorization": "Bearer t"}):
            pass
        with pytest.raises(ConfigError, match="restart to change that"):
            await engine.reload(EngineConfig(listeners=(Listener(port=2), Listener(port=3))))
