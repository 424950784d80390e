"""Arguments of a wrong kind: each is refused at once, by an error that names it and says what to write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import iii_trio
from iii_trio import (
    EngineConfig,
    Limits,
    Listener,
    MisuseError,
    QueueConfig,
    Queues,
    QueueSettings,
    Timeouts,
    Worker,
    lowlevel,
    open_engine,
    records,
    serve_engine,
)
from iii_trio.config import FunctionFilter, RbacConfig
from iii_trio.config.file import parse_config
from iii_trio.config.settings import Auth, Tls
from iii_trio.http import ExternalCall
from iii_trio.triggers.http.settings import HttpConfig


def of(value: object) -> Any:
    """Return a value that a type checker would refuse."""
    return value


# --- settings

SETTINGS: list[tuple[Callable[[], object], str]] = [
    (lambda: Listener("127.0.0.1", of("80")), "`Listener.port` is '80', of type str; give a whole number"),
    (lambda: Listener(port=of(True)), "`Listener.port` is True, of type bool; give a whole number"),
    (lambda: Listener(metrics=of("yes")), "`Listener.metrics` is 'yes', of type str; give True or False, or None"),
    (lambda: Listener(tls=of("cert.pem")), "`Listener.tls` is of type str; give Tls(…), or None"),
    (lambda: Tls(of(5)), "`Tls.certificate` is of type int; give a string"),
    (lambda: Auth(("token",), token_file=of(5)), "`Auth.token_file` is of type int; give a string, or None"),
    (lambda: Limits(sessions=of("3")), "`Limits.sessions` is '3', of type str; give a whole number"),
    (lambda: Timeouts(goodbye_seconds=of("1")), "`Timeouts.goodbye_seconds` is '1', of type str; give a number"),
    (
        lambda: Timeouts(silent_worker_seconds=of("1")),
        "`Timeouts.silent_worker_seconds` is '1', of type str; give a number, or None",
    ),
    (lambda: QueueSettings(of("3")), "`QueueSettings.max_attempts` is '3', of type str; give a whole number"),
    (lambda: QueueConfig(directory=of(5)), "`QueueConfig.directory` is 5, of type int; give a string, or None"),
    (lambda: QueueConfig(of(["mail"])), "`QueueConfig.queues` is of type list; give a dict"),
    (lambda: HttpConfig(port=of("80")), "`HttpConfig.port` is '80', of type str; give a whole number"),
    (lambda: EngineConfig(limits=of({"sessions": 3})), "`EngineConfig.limits` is of type dict; give Limits(…)"),
    (lambda: EngineConfig(modules=of(["queue"])), "`EngineConfig.modules` is of type list; give a dict"),
    (lambda: EngineConfig(of(Listener(port=0))), "`EngineConfig.listeners` is of type Listener; give a list"),
    (
        lambda: EngineConfig(of(["127.0.0.1:0"])),
        "`EngineConfig.listeners` has '127.0.0.1:0'; give Listener(\"127.0.0.1\", 49134), or another host and port",
    ),
    (
        lambda: EngineConfig(of([{"auth": "secret"}])),
        "`EngineConfig.listeners` has a value of type dict; "
        'give Listener("127.0.0.1", 49134), or another host and port',
    ),
    (
        lambda: ExternalCall("http://x", timeout_seconds=of("3")),
        "`ExternalCall.timeout_seconds` is '3', of type str; give a number, or None",
    ),
]


@pytest.mark.parametrize(("make", "problem"), SETTINGS)
def test_a_setting_of_another_type_is_named_with_what_to_give(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(TypeError) as caught:
        make()
    assert str(caught.value) == problem


def test_types_are_checked_after_a_file_was_read_too() -> None:
    parse_config("workers:\n  - name: iii-worker-manager\n    iii-trio: { limits: { sessions: 3 } }\n", "f.yaml", {})
    records._typed_fields.cache_clear()
    with pytest.raises(TypeError, match=r"`Limits\.sessions` is True"):
        Limits(sessions=of(True))
    with pytest.raises(TypeError, match=r"`Limits\.memory_bytes` is"):
        Limits(memory_bytes=of(float(Limits().memory_bytes)))


def test_fields_of_a_users_subclass_are_its_own() -> None:
    @attrs.frozen
    class Mine(Tls):
        home: Path = attrs.field(default="x", converter=Path)

    assert Mine("c.pem", home=of("y")).home == Path("y")
    with pytest.raises(TypeError, match=r"`Mine\.key` is of type int"):
        Mine("c.pem", key=of(3))


def test_paths_become_texts() -> None:
    tls = Tls(of(Path("c.pem")), of(Path("k.pem")), of(Path("a.pem")))
    assert (tls.certificate, tls.key, tls.clients) == ("c.pem", "k.pem", "a.pem")
    assert Auth(token_file=of(Path("tokens"))).token_file == "tokens"
    assert Listener(unix=of(Path("s.sock"))).unix == "s.sock"


def test_whole_numbers_are_numbers_and_paths_are_texts() -> None:
    assert Timeouts(goodbye_seconds=1).goodbye_seconds == 1
    assert QueueConfig(directory=of(Path("jobs"))).directory == Path("jobs")
    assert Tls(of(Path("cert.pem")), key=of(Path("key.pem"))).key == "key.pem"
    assert attrs.evolve(Listener(), port=0).port == 0


# --- engines


ENGINES: list[tuple[dict[str, Any], str]] = [
    (
        {"config": {"port": 1}},
        "the configuration is of type dict; give EngineConfig(listeners=[Listener(port=49134)]), "
        "with the settings that you want, or leave it out",
    ),
    (
        {"modules": {"queue": None}},
        "'queue' is not a module; give Module objects. The settings of modules, by name, stand in EngineConfig(modules={…})",
    ),
]


@pytest.mark.parametrize(("arguments", "problem"), ENGINES)
async def test_an_engine_is_opened_with_a_configuration_and_modules(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(MisuseError) as caught:
        async with open_engine(**arguments):
            pytest.fail("it was opened")
    assert str(caught.value) == problem


async def test_an_engine_is_served_with_a_configuration() -> None:
    with pytest.raises(MisuseError, match="the configuration is of type dict"):
        await serve_engine(of({"port": 1}))


async def test_an_engine_listens_at_listeners_and_reloads_configurations() -> None:
    problem = "a listener is '127.0.0.1:0'; give Listener(\"127.0.0.1\", 49134), or another host and port"
    async with open_engine(EngineConfig(listeners=[])) as engine:
        for listen in (lambda: engine.listen(of("127.0.0.1:0")), lambda: engine.listen_at([], of("127.0.0.1:0"))):
            with pytest.raises(MisuseError) as caught:
                await listen()
            assert str(caught.value) == problem
        with pytest.raises(MisuseError, match="the configuration is of type dict"):
            await engine.reload(of({"listeners": []}))


# --- workers

REQUEST = {"function_id": "a::b", "payload": {"password": "secret"}}
AS_REQUEST = (
    "the first argument is a function's id, and not a request of type dict: write "
    'trigger("a::b", payload), and `namespace` and `action` as further arguments'
)
JOB = 'to enqueue a job, write action=iii_trio.enqueue("QUEUE"); to call, leave it out'
Use = Callable[[Worker], Awaitable[object]]
CALLS: list[tuple[Use, str]] = [
    (lambda worker: worker.trigger(of(REQUEST)), AS_REQUEST),
    (lambda worker: worker.trigger_void(of(REQUEST)), AS_REQUEST),
    (lambda worker: worker.trigger(of(REQUEST), action=iii_trio.enqueue()), AS_REQUEST),
    (lambda worker: lowlevel.begin_call(worker, of(REQUEST), None), AS_REQUEST),
    (lambda worker: worker.trigger(of(REQUEST), namespace="orders"), AS_REQUEST),
    (lambda worker: worker.trigger(of(5)), "a function's id is a string, not 5"),
    (lambda worker: worker.trigger(of(None)), "a function's id is a string, not None"),
    (lambda worker: worker.trigger_void(of(["a::b"])), "a function's id is a string, not a value of type list"),
    (
        lambda worker: worker.trigger("a::b", namespace=of(5)),
        "`namespace` is of type int; give a string, or leave it out",
    ),
    (lambda worker: worker.trigger("a::b", action=of("enqueue")), f"`action` is 'enqueue'; {JOB}"),
    (lambda worker: worker.trigger("a::b", action=of({"type": "enqueue"})), f"`action` is of type dict; {JOB}"),
    (lambda worker: worker.trigger("a::b", action=of(iii_trio.enqueue)), f"`action` is of type function; {JOB}"),
    (
        lambda worker: worker.trigger("a::b", action=of("void")),
        "`action` is 'void'; to call without an answer, write worker.trigger_void(function_id, payload)",
    ),
]


@pytest.mark.parametrize(("use", "problem"), CALLS)
async def test_a_call_of_another_form_is_refused_before_it_is_sent(use: Use, problem: str) -> None:
    async with open_engine() as engine, engine.open_worker("app") as worker:
        with pytest.raises(MisuseError) as caught:
            await use(worker)
    assert str(caught.value) == problem


async def test_what_registers_takes_texts_and_calls_of_its_own_kind() -> None:
    async with open_engine() as engine, engine.open_worker("app") as worker:
        with pytest.raises(MisuseError, match="a function's id is a string, not 5"):
            worker.register_trigger("cron", of(5))
        with pytest.raises(MisuseError) as caught:
            worker.register_external_function("a::b", of("http://x?token=secret"))
    assert str(caught.value) == (
        "an external function is called by an ExternalCall, not by a value of type str: "
        'write register_external_function("a::b", iii_trio.http.ExternalCall("https://…"))'
    )


async def test_queues_are_asked_by_a_worker() -> None:
    async with open_engine() as engine:
        with pytest.raises(MisuseError) as caught:
            Queues(of(engine))
    assert str(caught.value) == (
        "Queues takes a worker, not a value of type Engine: "
        "write `async with iii_trio.open_worker(engine) as worker`, and Queues(worker)"
    )


async def test_an_engine_that_may_not_tell_of_its_queues_is_believed() -> None:
    allowed = [FunctionFilter("iii::queue::*"), FunctionFilter("engine::queue::dlq_messages")]
    async with open_engine() as engine:
        [url] = await engine.listen(Listener(port=0, rbac=RbacConfig(expose_functions=allowed)))
        async with iii_trio.open_worker(url) as worker:
            queues = Queues(worker)
            assert await queues.dead_letters("default") == []
            assert await queues.redrive("default") == 0


async def test_swapped_ends_of_a_duplex_stream_are_refused_at_once() -> None:
    async with open_engine() as engine, engine.open_worker("app") as worker, worker.create_channel() as channel:
        with pytest.raises(MisuseError) as caught:
            iii_trio.duplex(of(channel.writer), of(channel.reader))
        # A stream that was not refused would send into the writer.
        with pytest.raises(MisuseError, match="the writer of a duplex stream is of type ChannelReader"):
            iii_trio.duplex(channel.reader, of(channel.reader))
    assert str(caught.value) == (
        "the reader of a duplex stream is of type ChannelWriter; give the ends in this order: "
        "duplex(incoming.reader, outgoing.writer)"
    )
