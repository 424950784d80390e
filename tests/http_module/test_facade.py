"""`iii_trio.http`: files, uploads and events, through the HTTP module."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import iii_trio
from iii_trio.http import HttpRequest, HttpResponse, content_disposition, open_events, parts, serve_file
from iii_trio.http.events import encode_event
from iii_trio.http.ranges import Version, wanted_ranges

from .http_world import HttpWorld, http_world

CONTENT = bytes(range(256)) * 4
MTIME = 1_700_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "data.bin").write_bytes(CONTENT)
    (folder / "page.html").write_text("<p>")
    (folder / "more.tar.gz").write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    (tmp_path / "secret").write_text("outside")
    (folder / "way-out").symlink_to(tmp_path / "secret")
    os.utime(folder / "data.bin", (MTIME, MTIME))
    return folder


async def with_files(world: HttpWorld, root: Path) -> None:
    @world.worker.http("GET", "/files/{rest:path}")
    async def files(rest: str, request: HttpRequest, response: HttpResponse, download: str | None = None) -> None:
        await serve_file(response, rest, request, root=root, download_as=download)

    await world.worker.wait_registered()
    await trio.testing.wait_all_tasks_blocked()


async def test_a_file_is_served_whole_with_its_type_and_its_tag(root: Path) -> None:
    async with http_world() as world:
        await with_files(world, root)
        client = world.connect()
        reply = await client.request("GET", "/files/data.bin")
        assert (reply.status, reply.body) == (200, CONTENT)
        assert reply.headers["content-length"] == str(len(CONTENT)) and reply.headers["accept-ranges"] == "bytes"
        assert reply.headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"
        assert reply.headers["etag"].startswith('"')
        assert (await client.request("GET", "/files/page.html")).headers["content-type"] == "text/html"
        reply = await client.request("GET", "/files/more.tar.gz")
        assert reply.headers["content-type"] == "application/octet-stream"
        reply = await client.request("HEAD", "/files/data.bin")
        assert (reply.body, reply.headers["content-length"], reply.whole) == (b"", str(len(CONTENT)), True)
        reply = await client.request("GET", "/files/data.bin?download=r%C3%A9sum%C3%A9.pdf")
        assert reply.headers["content-disposition"].endswith("filename*=UTF-8''r%C3%A9sum%C3%A9.pdf")


@pytest.mark.parametrize("name", ["nothing", "..%2Fsecret", "way-out", "pipe", "", "%00", "data.bin/x", "x" * 5000])
async def test_what_is_no_file_within_the_root_is_404(root: Path, name: str) -> None:
    async with http_world() as world:
        await with_files(world, root)
        reply = await world.connect().request("GET", f"/files/{name}")
        assert reply.status == 404 and b"outside" not in reply.body


@pytest.mark.parametrize(
    ("wanted", "status", "body", "content_range"),
    [
        ("bytes=0-9", 206, CONTENT[:10], "bytes 0-9/1024"),
        ("bytes=1000-", 206, CONTENT[1000:], "bytes 1000-1023/1024"),
        ("bytes=-5", 206, CONTENT[-5:], "bytes 1019-1023/1024"),
        ("bytes=1000-9999", 206, CONTENT[1000:], "bytes 1000-1023/1024"),
        ("bytes=1024-", 416, b"", "bytes */1024"),
        ("bytes=-0", 416, b"", "bytes */1024"),
        ("bytes=9-3", 200, CONTENT, None),
        ("bytes=-", 200, CONTENT, None),
        ("lines=1-2", 200, CONTENT, None),
        ("bytes=" + ",".join(["0-"] * 3), 200, CONTENT, None),
    ],
)
async def test_a_range_is_served(root: Path, wanted: str, status: int, body: bytes, content_range: str | None) -> None:
    async with http_world() as world:
        await with_files(world, root)
        reply = await world.connect().request("GET", "/files/data.bin", Range=wanted)
        assert (reply.status, reply.body, reply.headers.get("content-range")) == (status, body, content_range)
        assert reply.whole


async def test_several_ranges_are_parts_of_one_response(root: Path) -> None:
    async with http_world() as world:
        await with_files(world, root)
        reply = await world.connect().request("GET", "/files/data.bin", Range="bytes=0-1, 10-12")
        boundary = reply.headers["content-type"].partition("boundary=")[2].encode()
        first, second = reply.body.split(b"--" + boundary)[1:3]
        assert b"Content-Range: bytes 0-1/1024" in first and first.endswith(b"\r\n\r\n" + CONTENT[:2] + b"\r\n")
        assert b"Content-Range: bytes 10-12/1024" in second and second.endswith(b"\r\n\r\n" + CONTENT[10:13] + b"\r\n")
        assert reply.whole and reply.status == 206


async def test_conditions_decide_whether_the_file_is_sent(root: Path) -> None:
    async with http_world() as world:
        await with_files(world, root)
        client = world.connect()
        tag = (await client.request("GET", "/files/data.bin")).headers["etag"]
        date, before = "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:19 GMT"

        async def status(**headers: str) -> int:
            reply = await client.request("GET", "/files/data.bin", **headers)
            assert reply.whole
            return reply.status

        assert await status(If_None_Match=tag) == await status(If_None_Match=f'"x", W/{tag}') == 304
        assert await status(If_None_Match='"x"', If_Modified_Since=date) == 200
        assert await status(If_Modified_Since=date) == 304 and await status(If_Modified_Since=before) == 200
        assert await status(If_Match='"x"') == await status(If_Match=f"W/{tag}") == 412
        assert await status(If_Unmodified_Since=before) == 412
        assert await status(If_Modified_Since="no date") == 200
        assert await status(Range="bytes=0-1", If_Range=tag) == await status(Range="bytes=0-1", If_Range=date) == 206
        assert (
            await status(Range="bytes=0-1", If_Range='"x"') == await status(Range="bytes=0-1", If_Range=before) == 200
        )


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(0, 50))
def test_any_range_header_asks_for_bytes_within_the_file(text: str, size: int) -> None:
    ranges = wanted_ranges({"range": f"bytes={text}"}, Version(size, 1))
    assert ranges is None or all(0 <= one.start < one.stop <= size for one in ranges)


def test_a_download_name_cannot_break_out_of_its_header() -> None:
    assert content_disposition("a b.txt") == 'attachment; filename="a b.txt"'
    assert content_disposition('a"\r\nx.txt') == "attachment; filename=\"a___x.txt\"; filename*=UTF-8''a%22%0D%0Ax.txt"


FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="title"\r\n\r\nholiday\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\nContent-Type: image/png\r\n\r\n'
    + CONTENT
    + b"\r\n--cut--\r\n"
)


async def with_upload(world: HttpWorld) -> None:
    @world.worker.http("POST", "/upload")
    async def upload(request_body: iii_trio.ChannelReader, headers: dict[str, str]) -> list[list[object]]:
        return [
            [one.name, one.filename, one.content_type, len(await one.read())]
            async for one in parts(request_body, headers)
        ]

    @world.worker.http("POST", "/names")
    async def names(request_body: iii_trio.ChannelReader, headers: dict[str, str]) -> list[str]:
        return [one.name async for one in parts(request_body, headers)]

    await world.worker.wait_registered()
    await trio.testing.wait_all_tasks_blocked()


async def test_the_parts_of_an_upload_come_one_after_the_other() -> None:
    async with http_world() as world:
        await with_upload(world)
        reply = await world.connect().request("POST", "/upload", FORM, Content_Type="multipart/form-data; boundary=cut")
        assert reply.body == b'[["title",null,null,7],["file","a.bin","image/png",1024]]'
        reply = await world.connect().request("POST", "/names", FORM, Content_Type="multipart/form-data; boundary=cut")
        assert reply.body == b'["title","file"]'


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (FORM[:-9], "multipart/form-data; boundary=cut", 400),
        (b"", "multipart/form-data; boundary=cut", 400),
        (FORM, "multipart/form-data; boundary=other", 400),
        (FORM, "multipart/form-data", 415),
        (b"a=1", "application/x-www-form-urlencoded", 415),
        (FORM.replace(CONTENT, bytes(70_000)), "multipart/form-data; boundary=cut", 413),
    ],
)
async def test_a_form_that_is_none_is_refused(body: bytes, content_type: str, status: int) -> None:
    async with http_world() as world:
        await with_upload(world)
        assert (await world.connect().request("POST", "/upload", body, Content_Type=content_type)).status == status


async def test_events_leave_at_once_and_comments_keep_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    async with http_world() as world:

        @world.worker.http("GET", "/events")
        async def events(response: HttpResponse) -> None:
            async with open_events(response, keep_alive_seconds=10) as stream:
                await stream.send_event("two\nlines", event="note", id="1")
                await trio.sleep(25)
                await stream.send_event({"n": 2}, retry_seconds=1.5)

        await world.worker.wait_registered()
        await trio.testing.wait_all_tasks_blocked()
        reply = await world.connect().request("GET", "/events")
        assert reply.headers["content-type"] == "text/event-stream" and reply.whole
        assert reply.body == (
            b'event: note\nid: 1\ndata: two\ndata: lines\n\n: \n\n: \n\nretry: 1500\ndata: {"n":2}\n\n'
        )


def test_an_event_cannot_be_broken_by_its_names() -> None:
    for bad in ({"event": "a\nb"}, {"id": "a\rb"}, {"id": "a\0b"}):
        with pytest.raises(iii_trio.MisuseError):
            encode_event("x", **bad)
    assert encode_event("a\r\nb\rc") == b"data: a\ndata: b\ndata: c\n\n"
