"""`Worker.http`: parameters, results and errors of handlers."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import iii_trio
from iii_trio.http import HttpError, HttpRequest, HttpResponse, HttpResult

from .http_world import HttpWorld, http_world


async def served(world: HttpWorld) -> None:
    await world.worker.wait_registered()
    await trio.testing.wait_all_tasks_blocked()


@attrs.frozen
class Page:
    limit: int = 10
    after: str | None = None


@attrs.frozen
class Order:
    sku: str
    count: int


async def test_parameters_are_taken_from_path_query_headers_and_body() -> None:
    async with http_world() as world:

        @world.worker.http("POST", "/shops/{shop}/{rest:path}")
        async def order(
            shop: int, rest: str, tag: list[str], body: Order, headers: dict[str, str], deep: bool = False
        ) -> dict[str, Any]:
            return {"got": [shop, rest, tag, body.sku, body.count, headers["x-a"], deep]}

        await served(world)
        reply = await world.connect().request(
            "POST",
            "/shops/7/a/b%20c?tag=x&deep=true",
            b'{"sku": "A", "count": 2}',
            Content_Type="application/json",
            X_A="1",
        )
        assert json.loads(reply.body) == {"got": [7, "a/b c", ["x"], "A", 2, "1", True]}


async def test_a_class_takes_the_whole_query() -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/list")
        async def lists(query: Page) -> list[Any]:
            return [query.limit, query.after]

        await served(world)
        assert (await world.connect().request("GET", "/list?limit=5&after=x")).body == b'[5,"x"]'
        assert (await world.connect().request("GET", "/list")).body == b"[10,null]"


@pytest.mark.parametrize(
    ("target", "body", "text"),
    [
        ("/n/seven?at=1", b"{}", "the path's `n`"),
        ("/n/7", b'{"sku": "A", "count": 2}', "the query's `at` is missing"),
        ("/n/7?at=x", b'{"sku": "A", "count": 2}', "the query's `at`"),
        ("/n/7?at=1", b'{"sku": "A", "count": "2"}', "body.count"),
        ("/n/7?at=1", b'{"sku": "A"', "not JSON"),
    ],
)
async def test_a_bad_parameter_is_400_and_named(target: str, body: bytes, text: str) -> None:
    async with http_world() as world:

        @world.worker.http("POST", "/n/{n}")
        async def handler(n: int, at: int, body: Order) -> None:
            raise AssertionError("it was called")

        await served(world)
        reply = await world.connect().request("POST", target, body, Content_Type="application/json")
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (400, "BAD_PARAMETER") and text in error["message"]


@pytest.mark.parametrize(
    ("value", "status", "content_type", "body"),
    [
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        (Order("A", 2), 200, "application/json", b'{"count":2,"sku":"A"}'),
        ("text", 200, "text/plain; charset=utf-8", b"text"),
        (b"\x00\xff", 200, "application/octet-stream", b"\x00\xff"),
        (None, 204, None, b""),
        (HttpResult(201, {"content-type": "text/xml"}, "<a/>"), 201, "text/xml", b"<a/>"),
        (HttpResult(202, body=b"raw"), 202, "application/octet-stream", b"raw"),
    ],
)
async def test_a_result_becomes_a_response(value: Any, status: int, content_type: str | None, body: bytes) -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/value")
        async def handler() -> Any:
            return value

        await served(world)
        reply = await world.connect().request("GET", "/value")
        assert (reply.status, reply.body, reply.whole) == (status, body, True)
        if content_type is not None:
            assert reply.headers["content-type"] == content_type


async def test_a_result_may_have_a_header_twice() -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/cookies")
        async def handler() -> HttpResult:
            return HttpResult(headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], body="x")

        await served(world)
        assert (await world.connect().request("GET", "/cookies")).headers["set-cookie"] == "a=1, b=2"


async def test_a_handler_streams_and_echoes_and_fails() -> None:
    async with http_world() as world:

        @world.worker.http("PUT", "/echo/{name}")
        async def echo(request: HttpRequest, response: HttpResponse, request_body: iii_trio.ChannelReader) -> None:
            await response.start(201, {"x-name": request.path["name"]})
            async for chunk in request_body.chunks():
                await response.send(chunk)

        @world.worker.http("GET", "/gone")
        async def gone() -> None:
            raise HttpError(410, "GONE", "It was here.")

        @world.worker.http("GET", "/cut")
        async def cut(response: HttpResponse) -> None:
            await response.send(b"half")
            raise HttpError(500, "LATE", "too late for an answer")

        @world.worker.http("GET", "/both")
        async def both(response: HttpResponse) -> str:
            await response.send(b"half")
            return "and a value"

        await served(world)
        reply = await world.connect().request("PUT", "/echo/me", b"the body")
        assert (reply.status, reply.headers["x-name"], reply.body) == (201, "me", b"the body")
        reply = await world.connect().request("GET", "/gone")
        assert (reply.status, json.loads(reply.body)) == (410, {"error": {"code": "GONE", "message": "It was here."}})
        for target in ("/cut", "/both"):  # the abort may overtake the first bytes
            reply = await world.connect().request("GET", target)
            assert reply.status == 500 or not reply.whole


async def test_a_refusing_condition_and_middleware_are_bound_with_the_route() -> None:
    async with http_world() as world:

        @world.worker.function("is-open")
        async def is_open(query_params: dict[str, str]) -> bool:
            return "open" in query_params

        @world.worker.http("GET", "/shop", condition="is-open", metadata={"tier": "gold"})
        async def shop(metadata: Any) -> Any:
            return metadata

        await served(world)
        assert (await world.connect().request("GET", "/shop")).status == 422
        assert (await world.connect().request("GET", "/shop?open=1")).body == b'{"tier":"gold"}'


@pytest.mark.parametrize("path", ["/a{b}", "/{b:path}/c", "/{b}/{b}", "/:b", "/{b:int}", "/*b"])
async def test_a_path_that_cannot_be_meant_is_refused(path: str) -> None:
    async with http_world() as world:
        with pytest.raises(iii_trio.MisuseError):
            world.worker.http("GET", path)


async def test_a_handler_that_no_request_can_reach_is_refused() -> None:
    async with http_world() as world:

        async def without() -> None: ...

        def plain(name: str) -> None: ...

        async def starred(name: str, *more: str) -> None: ...

        for handler in (without, plain, starred):
            with pytest.raises(iii_trio.MisuseError):
                world.worker.http("GET", "/files/{name}")(handler)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("body", "media", "text"),
    [
        (None, "application/json", "the body is empty: send JSON, "),
        (b"", "application/json", "the body is empty: send JSON, "),
        (b"", "text/plain", "the body is empty: send JSON, with content-type: application/json"),
        (
            b'{"a": 1}',
            "text/plain",
            "the body does not say that it is JSON: send it with content-type: application/json",
        ),
        (b"null", "application/json", "the body is empty or null: "),
        (b"[1]", "application/json", "body: "),
    ],
)
async def test_a_body_without_a_value_is_400_and_says_what_is_missing(
    body: bytes | None, media: str, text: str
) -> None:
    async with http_world() as world:

        @world.worker.http("POST", "/sizes")
        async def handler(body: dict[str, int]) -> None:
            raise AssertionError("it was called")

        await served(world)
        reply = await world.connect().request("POST", "/sizes", body, Content_Type=media)
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["code"]) == (400, "BAD_PARAMETER") and error["message"].startswith(text)


async def test_a_route_that_no_request_could_reach_is_refused_at_once() -> None:
    async with http_world() as world:
        with pytest.raises(
            iii_trio.MisuseError, match="'GETT' is not a method that a route can be for: write one of GET"
        ):
            world.worker.register_trigger("http", "f", config={"api_path": "/f", "http_method": "GETT"})
        with pytest.raises(iii_trio.MisuseError, match="begins with no slash: write '/nope'"):
            world.worker.http("GET", "nope")
        # Both are lawful on the wire: a method in any case, and a path without its slash.
        await world.route("f", "f", "get")
        assert [route.name for route in world.server.counters] == ["GET /f"]
