"""Take uploads over HTTP: a form of any size, part by part while it comes, and a body of raw bytes.

    python examples/http_upload.py

Needs the extra `http` (`pip install '.[http]'` in a clone), which parses forms.
"""

import http.client
import importlib.util
import sys
from collections.abc import Iterator

import trio

import iii_trio
from iii_trio.http import HttpError, parts
from iii_trio.triggers.http import HttpConfig, open_http

MAX_FILE_BYTES = 20_000_000
BOUNDARY = "a-line-that-is-in-no-file"


def offer(worker: iii_trio.Worker) -> None:
    """Count what comes. A handler that stores it would write each chunk to a file."""

    @worker.http("POST", "/forms")
    async def form(request_body: iii_trio.ChannelReader, headers: dict[str, str]) -> dict[str, object]:
        fields: dict[str, object] = {}
        async for part in parts(request_body, headers):
            if part.filename is None:
                fields[part.name] = (await part.read(1000)).decode()
                continue
            size = 0
            async for chunk in part:
                size += len(chunk)
                # The client is told at once, and does not send the rest.
                if size > MAX_FILE_BYTES:
                    raise HttpError(413, "FILE_TOO_LARGE", f"A file may have {MAX_FILE_BYTES:,} bytes.")
            fields[part.name] = {"file": part.filename, "bytes": size}
        return fields

    @worker.http("PUT", "/raw/{name}")
    async def raw(name: str, request_body: iii_trio.ChannelReader) -> dict[str, object]:
        size = 0
        async for chunk in request_body.chunks():
            size += len(chunk)
        return {"name": name, "bytes": size}


def form_body(size: int) -> Iterator[bytes]:
    """Make a form with a text and a file, piece by piece, so that a large one needs no memory."""
    text = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="title"\r\n\r\nTides\r\n'
    file = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="data"; filename="tides.bin"\r\n\r\n'
    yield (text + file).encode()
    for at in range(0, size, 100_000):
        yield bytes(min(100_000, size - at))
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(host: str) -> None:
    """Send the uploads. This client blocks, so it runs in a thread."""
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    for size in (10_000_000, 30_000_000):
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            connection.request("POST", "/forms", form_body(size), headers, encode_chunked=True)
        except ConnectionError:
            pass  # the server has answered, and takes no more
        response = connection.getresponse()
        print(f"a form with {size:,} bytes:", response.status, response.read().decode())
        connection.close()
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("PUT", "/raw/tides.bin", bytes(5_000_000))
    print("raw bytes:", connection.getresponse().read().decode())
    connection.close()


async def main() -> None:
    async with (
        iii_trio.open_engine() as engine,
        open_http(engine.address, HttpConfig(port=0)) as http_server,
        engine.open_worker("uploads") as worker,
    ):
        offer(worker)
        while len(http_server.server.router) < 2:  # noqa: ASYNC110 - nothing tells that a route is served
            await trio.sleep(0.01)
        host = http_server.urls[0].removeprefix("http://").rstrip("/")
        await trio.to_thread.run_sync(upload, host)


if __name__ == "__main__":
    # Otherwise only the first form would tell, in a handler whose error goes to the client.
    if importlib.util.find_spec("multipart") is None:
        sys.exit("uploads of forms need the extra: pip install 'iii-trio[http]'")
    trio.run(main)
