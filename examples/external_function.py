"""A function whose code is behind a URL: the engine calls it, signs the request, and returns its JSON.

    python examples/external_function.py

The server here is the engine's own HTTP module, so that the example needs nothing else. It is on this machine and speaks
HTTP without TLS, which the settings allow. Needs the extra `external` (`pip install '.[external]'` in a clone).
"""

import hashlib
import hmac
import os
import sys
from base64 import b64encode

import trio

import iii_trio
from iii_trio.http import ExternalCall, HmacAuth, HttpError
from iii_trio.triggers.external import ExternalConfig
from iii_trio.triggers.http import HttpConfig

SECRET = "a secret that both sides know"


def offer_server(worker: iii_trio.Worker) -> None:
    """Serve the URL, as a server in any language would."""

    @worker.http("POST", "/tides/{harbour}")
    async def next_tide(
        harbour: str, request_body: iii_trio.ChannelReader, headers: dict[str, str]
    ) -> dict[str, object]:
        body = b"".join([item async for item in request_body if isinstance(item, bytes)])
        signed = f"{headers['x-iii-timestamp']}:{b64encode(body).decode()}".encode()
        expected = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(headers["x-iii-signature"], expected):
            raise HttpError(401, "bad_signature", "the signature is not that of the body")
        return {"harbour": harbour, "height": 6.1}


async def main() -> None:
    os.environ["TIDES_SECRET"] = SECRET  # of the engine; the worker knows only the name of the variable
    local = ExternalConfig(url_allowlist=("127.0.0.1",), block_private_ips=False, require_https=False)
    config = iii_trio.EngineConfig(modules={"http": HttpConfig(port=0), "external": local})
    async with iii_trio.open_engine(config) as engine, engine.open_worker("tides") as worker:
        offer_server(worker)
        [url] = engine.modules["http"].urls
        worker.register_external_function(
            "tides::next", ExternalCall(f"{url}/tides/brest", auth=HmacAuth("TIDES_SECRET"))
        )
        # A private address would be refused by the default settings, and the worker would be told so.
        assert await worker.wait_registered() == {}
        print("the next tide:", await worker.trigger("tides::next", {"after": "12:00"}))


if __name__ == "__main__":
    try:
        trio.run(main)
    except iii_trio.ConfigError as error:  # the extra is missing
        sys.exit(str(error))
