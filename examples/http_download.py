"""Serve downloads over HTTP: whole, resumed after a break, and not at all where the client has the file already.

python examples/http_download.py
"""

import hashlib
import http.client
import tempfile
from pathlib import Path

import trio

import iii_trio
from iii_trio.http import HttpRequest, HttpResponse, serve_file
from iii_trio.triggers.http import HttpConfig, open_http


def offer(worker: iii_trio.Worker, folder: Path) -> None:
    """Serve the files of a folder, to be saved."""

    @worker.http("GET", "/downloads/{name}")
    async def download(name: str, request: HttpRequest, response: HttpResponse) -> None:
        await serve_file(response, name, request, root=folder, download_as=name)


def download_with_a_break(host: str, path: str) -> None:
    """Read half of a file, leave, and come back for the rest. This client blocks, so it runs in a thread."""
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    etag = response.headers["etag"]
    half = response.read(3_000_000)
    connection.close()
    print(f"saved as {response.headers['content-disposition']}; left after {len(half):,} bytes")

    # `If-Range` asks for the whole file instead, should it have changed meanwhile.
    connection.request("GET", path, headers={"Range": f"bytes={len(half)}-", "If-Range": etag})
    response = connection.getresponse()
    whole = half + response.read()
    print(f"resumed with {response.status}: {len(whole):,} bytes,", hashlib.sha256(whole).hexdigest()[:12])

    connection.request("GET", path, headers={"If-None-Match": etag})
    response = connection.getresponse()
    print(f"unchanged: {response.status}, {len(response.read())} bytes")

    connection.request("GET", "/downloads/nothing")
    response = connection.getresponse()
    print(f"no such file: {response.status}", response.read().decode())
    connection.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = bytes(range(256)) * 40_000
        await trio.Path(folder, "tides.bin").write_bytes(content)
        print("to serve:", f"{len(content):,} bytes,", hashlib.sha256(content).hexdigest()[:12])
        async with (
            iii_trio.open_engine() as engine,
            open_http(engine.address, HttpConfig(port=0)) as http_server,
            engine.open_worker("downloads") as worker,
        ):
            offer(worker, Path(folder))
            while not len(http_server.server.router):  # noqa: ASYNC110 - nothing tells that a route is served
                await trio.sleep(0.01)
            host = http_server.urls[0].removeprefix("http://").rstrip("/")
            await trio.to_thread.run_sync(download_with_a_break, host, "/downloads/tides.bin")


if __name__ == "__main__":
    trio.run(main)
