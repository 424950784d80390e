"""Send server-sent events over HTTP: a client that comes back gets what it missed, and one that leaves ends its handler.

python examples/http_events.py
"""

import http.client

import trio

import iii_trio
from iii_trio.http import HttpRequest, HttpResponse, open_events
from iii_trio.triggers.http import HttpConfig, open_http


def offer(worker: iii_trio.Worker, ended: trio.Event) -> None:
    """Serve a stream of tides. In a page, `new EventSource("/tides")` reads it."""

    @worker.http("GET", "/tides")
    async def tides(request: HttpRequest, response: HttpResponse) -> None:
        # A browser sends the id of the last event that it has seen.
        number = int(request.headers.get("last-event-id", "0"))
        try:
            async with open_events(response) as events:
                while True:
                    number += 1
                    await events.send_event({"height": number * 10}, event="tide", id=str(number))
                    await trio.sleep(0.01)
        finally:
            ended.set()


def listen(host: str, count: int, last_id: str = "") -> str:
    """Print some events, leave, and return the id of the last one. This client blocks, so it runs in a thread."""
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", "/tides", headers={"last-event-id": last_id} if last_id else {})
    response = connection.getresponse()
    print(response.status, response.headers["content-type"])
    while count:
        line = response.readline().decode().strip()
        if line.startswith("id: "):
            last_id = line[4:]
        if line.startswith("data: "):
            print(f"  event {last_id}: {line[6:]}")
            count -= 1
    connection.close()
    return last_id


async def main() -> None:
    ended = trio.Event()
    async with (
        iii_trio.open_engine() as engine,
        open_http(engine.address, HttpConfig(port=0)) as http_server,
        engine.open_worker("tides") as worker,
    ):
        offer(worker, ended)
        while not len(http_server.server.router):  # noqa: ASYNC110 - nothing tells that a route is served
            await trio.sleep(0.01)
        host = http_server.urls[0].removeprefix("http://").rstrip("/")
        last_id = await trio.to_thread.run_sync(listen, host, 3)
        with trio.fail_after(10):
            await ended.wait()
        print("the client left, and the handler was cancelled")
        await trio.to_thread.run_sync(listen, host, 2, last_id)


if __name__ == "__main__":
    trio.run(main)
