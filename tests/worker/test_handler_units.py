"""What a handler's parameters take, what becomes of ends that it does not take, and channels for modules."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.errors import CallError, ChannelBroken, MisuseError
from iii_trio.http import HttpRequest, HttpResponse
from iii_trio.worker import ChannelReader, ChannelWriter
from iii_trio.worker.channels_nowait import end_nowait, open_channels
from iii_trio.worker.handler_signature import HandlerSignature
from iii_trio.worker.http import Route, _parameters, http_binding


async def named(request, request_body, response, body, headers, query, metadata, other):  # type: ignore[no-untyped-def]
    """Take everything by its name alone."""


async def annotated(whole: HttpRequest, stream: ChannelReader, out: HttpResponse, n: int = 3) -> None:
    """Take everything by its annotation."""


def test_a_parameter_of_a_route_is_known_by_its_name_or_its_annotation() -> None:
    route = Route.parse("get", "/x")
    found = {one.name: one.annotation for one in _parameters(route, named)}
    assert found == {
        "request": HttpRequest, "request_body": ChannelReader, "response": HttpResponse, "body": Any, "headers": Any,
        "query": Any, "metadata": Any, "other": str,
    }  # fmt: skip
    found = {one.name: one.annotation for one in _parameters(route, annotated)}
    assert found == {"whole": HttpRequest, "stream": ChannelReader, "out": HttpResponse, "n": int}
    assert [one.default for one in _parameters(route, annotated)][3] == 3


@pytest.mark.parametrize(
    ("path", "api_path", "parameters"),
    [
        ("/", "/", ()),
        ("/a/b", "/a/b", ()),
        ("/a/{b}", "/a/:b", ("b",)),
        ("/{a}/x/{b_2}", "/:a/x/:b_2", ("a", "b_2")),
        ("/site/{rest:path}", "/site/*rest", ("rest",)),
        ("/{a}/{rest:path}", "/:a/*rest", ("a", "rest")),
    ],
)
def test_the_path_of_a_route(path: str, api_path: str, parameters: tuple[str, ...]) -> None:
    route = Route.parse("post", path)
    assert (route.method, route.api_path, route.parameters) == ("POST", api_path, parameters)
    assert route.function_id == f"http::POST{api_path}"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/{rest:path}/x", "nothing can stand behind it"),
        ("/{a}/{a}", "names a parameter twice"),
        ("/{a}/x/{a:path}", "names a parameter twice"),
        ("/{1a}", "write a parameter as"),
        ("/x{a}", "write a parameter as"),
        ("/a}", "write a parameter as"),
        ("/:a", "write a parameter as"),
        ("/*a", "write a parameter as"),
        ("/{a:int}", "write a parameter as"),
        ("nope", "'nope' of a route begins with no slash: write '/nope'"),
        ("", "'' of a route begins with no slash: write '/'"),
    ],
)
def test_a_path_that_is_none_is_a_misuse(path: str, problem: str) -> None:
    with pytest.raises(MisuseError, match=problem):
        Route.parse("GET", path)


def test_a_method_that_is_never_served_is_a_misuse() -> None:
    with pytest.raises(MisuseError, match=r"'GTE' is not a method .* write one of GET, POST, "):
        Route.parse("GTE", "/gte")


def test_a_parameter_of_the_path_has_to_be_taken() -> None:
    async def takes(name: str) -> None: ...

    async def takes_all(request: HttpRequest) -> None: ...

    async def takes_none() -> None: ...

    def plain(name: str) -> None: ...

    async def unnamed(*names: str) -> None: ...

    route = Route.parse("GET", "/{name}")
    assert [one.name for one in _parameters(route, takes)] == ["name"]
    assert [one.name for one in _parameters(route, takes_all)] == ["request"]
    wrong: list[tuple[Any, str]] = [
        (takes_none, "takes no 'name', which is a parameter of its path"),
        (plain, "it is not an async function"),
        (unnamed, "has no name to be filled by"),
    ]
    for handler, problem in wrong:
        with pytest.raises(MisuseError, match=problem):
            _parameters(route, handler)


def test_the_binding_of_a_route_has_what_was_given() -> None:
    route = Route.parse("GET", "/x")
    config: dict[str, Any] = {"api_path": "/x", "http_method": "GET"}
    assert http_binding(route) == {"config": config, "metadata": None}
    assert http_binding(route, condition="c", middleware=("m", "n"), metadata={"a": 1}) == {
        "config": {**config, "condition_function_id": "c", "middleware_function_ids": ["m", "n"]},
        "metadata": {"a": 1},
    }


def test_a_raw_payload_is_for_one_parameter() -> None:
    async def raw(payload: msgspec.Raw) -> None: ...

    async def raw_and_metadata(payload: msgspec.Raw, metadata: Any) -> None: ...

    async def raw_and_more(payload: msgspec.Raw, other: int) -> None: ...

    async def two(first: msgspec.Raw, second: msgspec.Raw) -> None: ...

    for handler, metadata in ((raw, False), (raw_and_metadata, True)):
        signature = HandlerSignature.from_handler("f", handler)
        assert (signature.takes_raw, signature.takes_metadata) == ("payload", metadata)
        assert signature.request_schema() is None
    for wrong in (raw_and_more, two):
        with pytest.raises(MisuseError, match="takes the payload's JSON whole"):
            HandlerSignature.from_handler("f", wrong)


async def test_an_end_that_a_function_does_not_take_is_aborted_with_its_name() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:

        @worker.function("takes_one")
        async def takes_one(n: int) -> int:
            return n

        @worker.function("takes_all")
        async def takes_all(payload: dict[str, Any]) -> int:
            writer = payload["out"]
            assert isinstance(writer, ChannelWriter)
            await writer.send(b"used")
            return 1

        await worker.wait_registered()
        async with worker.create_channel() as channel:
            assert await worker.trigger("takes_one", {"n": 5, "out": channel.writer_ref}) == 5
            with pytest.raises(ChannelBroken, match="takes_one takes no `out`") as caught:
                await channel.reader.receive()
            assert caught.value.outcome == "aborted"
        async with worker.create_channel() as channel:
            assert await worker.trigger("takes_all", {"out": channel.writer_ref}) == 1
            assert await channel.reader.read_all() == b"used"


# --- channels for modules


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_several_channels_are_opened_in_one_step(count: int) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        channels = await open_channels(worker, count)
        assert len({channel.id for channel in channels}) == count == engine.statistics().channels
        for channel in channels:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.writer.send, b"x")
                assert await channel.reader.receive() == b"x"
            await channel.writer.aclose()
            await channel.reader.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().channels == 0


async def test_channels_that_cannot_all_be_had_leave_none() -> None:
    config = iii_trio.EngineConfig(limits=iii_trio.Limits(channels=2))
    async with iii_trio.open_engine(config) as engine, engine.open_worker("w") as worker:
        with pytest.raises(CallError) as caught:
            await open_channels(worker, 5)
        assert caught.value.code == "channel_limit_reached"
        await trio.testing.wait_all_tasks_blocked()
        assert engine.statistics().channels == 0


async def test_opening_channels_that_is_cancelled_leaves_none() -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        for passes in range(12):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(open_channels, worker, 3)
                    for _ in range(passes):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            # One that was opened in time belongs to its opener, which this one never heard of.
            assert engine.statistics().channels in (0, 3), passes
            if engine.statistics().channels:
                assert passes > 1
                break
        else:
            raise AssertionError("the passes do not span the whole opening")


@pytest.mark.parametrize("clean", [True, False])
async def test_an_end_that_was_not_used_is_ended_without_being_attached(clean: bool) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("w") as worker:
        (channel,) = await open_channels(worker, 1)
        end_nowait(worker, channel.writer, "not needed", clean=clean)
        end_nowait(worker, channel.writer, "again")
        await trio.testing.wait_all_tasks_blocked()
        if clean:
            assert await channel.reader.read_all() == b""
        else:
            with pytest.raises((ChannelBroken, iii_trio.IIIError), match="not needed"):
                await channel.reader.receive()
        with pytest.raises(trio.ClosedResourceError):
            await channel.writer.send(b"x")
        # An end that is used is ended by force.
        (channel,) = await open_channels(worker, 1)
        await channel.writer.send(b"x")
        end_nowait(worker, channel.writer, "enough")
        with pytest.raises(ChannelBroken, match="enough"):
            await channel.reader.read_all()
