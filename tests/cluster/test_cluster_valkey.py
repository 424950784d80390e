"""Two engines in this process and a real Valkey: the module as an engine's settings start it, over sockets."""

from __future__ import annotations

import ssl
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from valkey import Valkey as Client

import iii_trio
from iii_trio.config import Auth, Tls
from iii_trio.errors import CallError, ConfigError
from iii_trio.transport.dial import SocketAddress
from iii_trio.triggers.cluster.module import Cluster
from iii_trio.triggers.cluster.records import FUNCTION, Key
from iii_trio.triggers.cluster.settings import ClusterConfig, StoreUrl
from iii_trio.triggers.cluster.store import StoreUnavailable
from iii_trio.triggers.cluster.valkey_store import open_valkey_store

from .conftest import free_port


@asynccontextmanager
async def node(name: str, store: str) -> AsyncIterator[tuple[iii_trio.Engine, Cluster]]:
    port = free_port()
    settings = ClusterConfig(store=store, advertise=f"ws://127.0.0.1:{port}", node=name, lease_seconds=3)
    config = iii_trio.EngineConfig(modules={"queue": None, "cluster": settings})
    async with iii_trio.open_engine(config) as engine:
        await engine.listen(iii_trio.Listener(port=port))
        cluster = engine.modules["cluster"]
        assert isinstance(cluster, Cluster)
        yield engine, cluster


async def until(condition: Callable[[], object], cluster: Cluster) -> None:
    with trio.fail_after(20):
        while not condition():
            await cluster.wait_changed()


async def test_calls_go_both_ways_and_end_with_the_node(valkey: str) -> None:
    store = f"{valkey}/{uuid.uuid4()}"
    async with node("a", store) as (one, first):
        async with node("b", store) as (two, second):
            async with one.open_worker("here") as here, two.open_worker("there") as there:

                @here.function("here::say")
                async def say(text: str) -> str:
                    return f"here: {text}"

                @there.function("there::say")
                async def answer(text: str) -> str:
                    return f"there: {text}"

                await until(lambda: Key(FUNCTION, "default", "there::say") in first.proxies, first)
                await until(lambda: Key(FUNCTION, "default", "here::say") in second.proxies, second)
                assert await here.trigger("there::say", {"text": "é"}) == "there: é"
                assert await there.trigger("here::say", {"text": "ö"}) == "here: ö"
        async with one.open_worker("later") as later:
            await until(lambda: "b" not in first.directory.nodes, first)
            with pytest.raises(CallError, match="function_not_found"):
                await later.trigger("there::say", {"text": "gone"})


def test_an_address_that_others_can_reach_needs_a_token() -> None:
    with pytest.raises(ValueError, match="there is no 'token' and no 'certificate'"):
        ClusterConfig(store="valkey://h/mesh", advertise="ws://10.0.0.5:1")
    ClusterConfig(store="valkey://h/mesh", advertise="wss://10.0.0.5:1", certificate="c.pem")
    # In the clear nothing asks for the certificate.
    with pytest.raises(ValueError, match="where no certificate is shown, and there is no 'token'"):
        ClusterConfig(store="valkey://h/mesh", advertise="ws://10.0.0.5:1", certificate="c.pem")
    with pytest.raises(ValueError, match="'key' is the key of a 'certificate'"):
        ClusterConfig(store="valkey://h/mesh", advertise="ws://localhost:1", key="k.pem")
    ClusterConfig(store="valkey://h/mesh", advertise="ws://10.0.0.5:1", token="t")
    for advertise in ("localhost:1", "unix:///engine.sock", "http://localhost:1", "ws://", "ws://localhost:99999"):
        with pytest.raises(ValueError, match=r"'advertise' .*is not an address of an engine"):
            ClusterConfig(store="valkey://h/mesh", advertise=advertise)
    shown = repr(ClusterConfig(store="valkey://u:secret@h/mesh", advertise="ws://[::1]:1", token="hidden"))
    assert "secret" not in shown and "hidden" not in shown
    for store in ("redis://h/mesh", "valkey://h", "valkey://h/a b", "valkey://h:nine/mesh"):
        with pytest.raises(ValueError, match="write it as valkey://"):
            ClusterConfig(store=store, advertise="ws://localhost:1")


async def test_an_authority_that_cannot_be_read_is_named(tmp_path: object) -> None:
    settings = ClusterConfig(store="valkey://127.0.0.1:1/mesh", advertise="ws://localhost:1", authority="/nowhere.pem")
    with pytest.raises(ConfigError, match=r"/nowhere\.pem"):
        async with iii_trio.open_engine(iii_trio.EngineConfig(modules={"queue": None, "cluster": settings})):
            pass


@attrs.frozen
class Files:
    """Certificates of the nodes, and one that another authority has signed."""

    authority: str
    own: str
    foreign: str


@pytest.fixture
def files(tmp_path: Path) -> Files:
    authority = trustme.CA()
    found = Files(*(str(tmp_path / name) for name in ("ca.pem", "own.pem", "foreign.pem")))
    authority.cert_pem.write_to_path(found.authority)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(found.own)
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(found.foreign)
    return found


@asynccontextmanager
async def secure_node(
    name: str, store: str, files: Files, auth: Auth | None = None, clients: bool = True, **shown: str | None
) -> AsyncIterator[tuple[iii_trio.Engine, Cluster, str]]:
    """Open a node whose listener speaks TLS. It shows `shown`, and asks for certificates of `clients`."""
    port = free_port()
    address = f"wss://127.0.0.1:{port}"
    tls = Tls(files.own, clients=files.authority if clients else None)
    settings = ClusterConfig(
        store=store, advertise=address, node=name, authority=files.authority, lease_seconds=3, **shown
    )
    async with iii_trio.open_engine(iii_trio.EngineConfig(modules={"queue": None, "cluster": settings})) as engine:
        await engine.listen(iii_trio.Listener(port=port, tls=tls, auth=auth))
        cluster = engine.modules["cluster"]
        assert isinstance(cluster, Cluster)
        yield engine, cluster, address


@pytest.mark.parametrize("way", ["token", "certificates", "both"])
async def test_links_and_channels_pass_by_tls(valkey: str, files: Files, way: str) -> None:
    store = f"{valkey}/{uuid.uuid4()}"
    auth = None if way == "certificates" else Auth(tokens=("sesame",), channels="key_and_token")
    shown = {} if way == "certificates" else {"token": "sesame"}
    context = ssl.create_default_context(cafile=files.authority)
    if way != "token":
        shown["certificate"] = files.own
        context.load_cert_chain(files.own)
    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(secure_node(name, store, files, auth, way != "token", **shown))
            for name in "ab"
        }
        engine, cluster, _ = nodes["a"]
        one = await stack.enter_async_context(engine.open_worker("one"))
        two = await stack.enter_async_context(
            iii_trio.open_worker(
                nodes["b"][2], name="two", headers={"Authorization": "Bearer sesame"}, ssl_context=context
            )
        )

        @two.function("read")
        async def read(reader: iii_trio.ChannelReader) -> int:
            return sum([len(item) async for item in reader])

        await until(lambda: Key(FUNCTION, "default", "read") in cluster.proxies, cluster)
        async with one.create_channel() as channel, trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await one.trigger("read", {"reader": channel.reader_ref}) == 3_000_000

            nursery.start_soon(ask)
            async with channel.writer as writer:
                for _ in range(30):
                    await writer.send(b"x" * 100_000)


@pytest.mark.parametrize(
    ("shown", "why"),
    [(None, "asks for a certificate of this side"), ("foreign", "does not trust the certificate of this side")],
)
async def test_a_node_without_a_certificate_of_the_authority_reaches_no_other(
    valkey: str, files: Files, shown: str | None, why: str
) -> None:
    store = f"{valkey}/{uuid.uuid4()}"
    certificate = None if shown is None else files.foreign
    async with secure_node("a", store, files, certificate=files.own) as (one, _, _):
        async with secure_node("b", store, files, certificate=certificate) as (two, cluster, _):
            async with one.open_worker("one") as worker, two.open_worker("two") as caller:

                @worker.function("say")
                async def say() -> str:
                    return "said"

                await until(lambda: "a" in cluster.links and why in cluster.links["a"].problem, cluster)
                # `iii-trio nodes` says so, too.
                assert any(row["node"] == "a" and why in row["problem"] for row in cluster.nodes())
                with pytest.raises(CallError, match="function_not_found"):
                    await caller.trigger("say")


async def test_no_worker_and_no_channel_comes_in_without_a_certificate(valkey: str, files: Files) -> None:
    async with secure_node("a", f"{valkey}/{uuid.uuid4()}", files, certificate=files.own) as (engine, _, address):
        context = ssl.create_default_context(cafile=files.authority)
        with pytest.raises(iii_trio.ConnectionFailed, match="asks for a certificate of this side"):
            async with iii_trio.open_worker(address, name="one", ssl_context=context):
                pass
        async with engine.open_worker("here") as here, here.create_channel() as channel:
            stranger = SocketAddress(address, ssl_context=context)
            async with trio.open_nursery() as nursery:
                with pytest.raises(iii_trio.ConnectionFailed, match="asks for a certificate of this side"):
                    await nursery.start(stranger.attach_writer, channel.writer_ref, None)


@pytest.mark.slow
async def test_a_large_mesh_may_be_read_for_longer_than_other_requests_wait(valkey: str) -> None:
    url = StoreUrl.parse(f"{valkey}/{uuid.uuid4()}")
    async with open_valkey_store(url) as store:
        node = await store.join("a", "ws://one", "", 60)
        with Client(url.host, url.port) as client:
            client.client_pause(3_000, all=False)
        async with trio.open_nursery() as nursery:

            async def renew() -> None:
                with pytest.raises(StoreUnavailable):
                    await store.renew(node, 60, sweep=False)

            nursery.start_soon(renew)
            assert (await store.snapshot()).nodes == {"a": node}


def test_an_engine_without_a_cluster_loads_nothing_of_it() -> None:
    program = """
import sys, trio, iii_trio
async def main():
    async with iii_trio.open_engine() as engine, engine.open_worker("app") as worker:
        await worker.trigger("engine::functions::list")
trio.run(main)
print([name for name in sys.modules if name.startswith("glide") or ".cluster." in name])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    # Its place in the table of modules.
    assert ran.stdout.strip() == str(["iii_trio.triggers.cluster.declaration"])
