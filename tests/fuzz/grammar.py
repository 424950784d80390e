"""Texts and bytes that are nearly right, made from a seed."""

from __future__ import annotations

import json
import random
from typing import Final

NUMBERS: Final = [
    "0", "-0", "1e308", "1.7976931348623157e308", "1.8e308", "1e999", "-1e999", "1e-999", "9" * 309 + ".0", "9" * 5000,
    "18446744073709551616", "0." + "9" * 5000, "01", "NaN", "-Infinity", "1E+400", "1e0000000400",
]  # fmt: skip
TEXTS: Final = [
    '""', '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\ud83d\\ude00"', '"\xff"', '"\x1b[31m"', '"_caller_worker_id"',
    '"' + "x" * 2000 + '"', '"\\u202e"',
]  # fmt: skip
KEYS: Final = [
    '"n"',
    '"n"',
    '"internal"',
    '"_caller_worker_id"',
    '"\\u005fcaller_worker_id"',
    '"job"',
    '"\\ud800"',
    '""',
]
FUNCTIONS: Final = [
    "t::none", "evil::f", "good::f", "engine::functions::list", "engine::register_trigger", "engine::channels::create",
    "engine::log::info", "engine::workers::register", "engine::queue::enqueue", "iii::durable::publish",
    "engine::queue::dlq_messages", "",
]  # fmt: skip
RAW: Final = {
    "registerfunction": ["request_format", "response_format", "metadata", "invocation"],
    "registertriggertype": ["trigger_request_format", "call_request_format"],
    "registertrigger": ["config", "metadata"],
    "triggerregistrationresult": ["error"],
    "invokefunction": ["data", "metadata"],
    "invocationresult": ["result", "error"],
    "error": ["error"],
}
OTHERS: Final = [
    "unregisterfunction", "unregistertriggertype", "unregistertrigger", "registerservice", "ping", "pong", "reattach",
    "cancelinvocation", "channelended", "workerregistered", "registrationrejected", "novel",
]  # fmt: skip
_DEPTHS: Final = [1, 2, 126, 130, 511, 512, 980, 982, 984, 986, 990, 1100, 5000]


def value(rng: random.Random, depth: int = 0) -> str:
    """Return JSON text, or nearly."""
    match rng.randrange(8 if depth < 4 else 4):
        case 0 | 1:
            return rng.choice(NUMBERS)
        case 2:
            return rng.choice(TEXTS)
        case 3:
            return rng.choice(["null", "true", "{}", "[]", "nul", "", "'x'", "1"])
        case 4:
            levels, opener = rng.choice(_DEPTHS), rng.choice(["[]", '{"a":}'])
            return opener[:-1] * levels + "1" + opener[-1] * levels
        case 5:
            return "[" + ",".join(value(rng, depth + 1) for _ in range(rng.randrange(3))) + "]"
        case _:
            fields = (f"{rng.choice(KEYS)}:{value(rng, depth + 1)}" for _ in range(rng.randrange(4)))
            return "{" + ",".join(fields) + "}"


def message(rng: random.Random, invocation_id: str) -> bytes:
    """Return a worker's message of any type, with raw parts of any kind."""
    if rng.random() < 0.03:
        return _large(rng)
    kind = rng.choice([*RAW, *RAW, *OTHERS])
    function_id = rng.choice(FUNCTIONS) if rng.random() < 0.95 else "x" * 100_000
    fields = {
        "id": json.dumps(rng.choice(["evil::f", "b", "tide", "evil::type"])),
        "trigger_type": json.dumps(
            rng.choice(["tide", "evil::type", "durable:subscriber", "engine::functions-available"])
        ),
        "function_id": json.dumps(function_id),
    }
    if kind in ("invokefunction", "invocationresult", "cancelinvocation"):
        fields["invocation_id"] = json.dumps(invocation_id)
    if kind == "invokefunction" and rng.random() < 0.4:
        fields["action"] = rng.choice(['{"type":"enqueue","queue":"default"}', '{"type":"void"}', '{"type":"x"}', "1"])
    for field in RAW.get(kind, []):
        if rng.random() < 0.7:
            fields[field] = value(rng) if rng.random() < 0.5 else f'{{"internal":true,"n":{value(rng)}}}'
    parts = [f'"type":"{kind}"', *(f'"{name}":{text}' for name, text in fields.items())]
    if rng.random() < 0.2:
        rng.shuffle(parts)
    if rng.random() < 0.1:
        parts.append(rng.choice(parts))
    text = ("{" + ",".join(parts) + "}").encode("latin-1" if rng.random() < 0.5 else "utf-8", "replace")
    return text[: rng.randrange(len(text))] if rng.random() < 0.03 else text


def _large(rng: random.Random) -> bytes:
    unit = rng.choice([b"[", b'"', b"{", b'{"a":', b"[1,", b"\\", b" ", b"\xff"])
    return unit * (4 * 1024 * 1024 // len(unit))


def head(rng: random.Random) -> bytes:
    """Return the head of an HTTP request, or nearly."""
    target = rng.choice(
        ["/", "/otel", "/healthz", "/ws/channels/x?key=k&dir=read", "*", "http://h/", "/" + "x" * 20_000, "/\xff"]
    )
    lines = [f"{rng.choice(['GET', 'POST', 'get', ''])} {target} {rng.choice(['HTTP/1.1', 'HTTP/1.0', 'HTTP/9', ''])}"]
    some = [
        "Host: engine", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AA",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Content-Length: 5", "Content-Length: -1", "X: " + "y" * 9000,
        "Transfer-Encoding: chunked", "Origin: null", ": no name", "A\x00: b", " folded", "Authorization: Bearer \x1b",
    ]  # fmt: skip
    lines += rng.choices(some, k=rng.randrange(9))
    return (rng.choice(["\r\n", "\r\n", "\n"]).join(lines) + "\r\n\r\n").encode("latin-1") + rng.randbytes(
        rng.randrange(9)
    )


def request(rng: random.Random) -> bytes:
    """Return a request to the HTTP module with its body, or nearly."""
    target = rng.choice(
        ["/", "/files/a%2fb", "/%zz", "/a?n=1&n=2&%ff", "/?" + "a&" * 1500, "//", "/\xff", "*", "http://h/x"]
    )
    lines = [f"{rng.choice(['GET', 'POST', 'HEAD', 'OPTIONS', 'CONNECT', 'x'])} {target} HTTP/1.{rng.randrange(3)}"]
    some = [
        "Host: h", "Host: h", "Host: h", "Content-Type: application/json", "Content-Length: 5", "Content-Length: 7",
        "Content-Length: 99999999999999999999", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
        "Expect: 100-continue", "Origin: null", "Access-Control-Request-Method: GET", "Connection: close",
        "X: " + "y" * 70_000, "X: \x00", " folded",
    ]  # fmt: skip
    lines += rng.choices(some, k=rng.randrange(8))
    chunks = [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"-1\r\n",
        b"5;x=y\r\nhel",
        b"0\r\nA: b\r\n\r\n",
        b"GET / ",
    ]
    body = rng.choice([b"", b"hello", value(rng).encode("utf-8", "replace")[:5000], rng.choice(chunks)])
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def frame(rng: random.Random) -> bytes:
    """Return a WebSocket frame, or nearly."""
    payload = rng.choice(
        [b"", b"{}", rng.randbytes(4), b"\x03\xe8", b"\xff\xff\xff", b"x" * 200, message(rng, "x")[:2000]]
    )
    first = rng.choice([0x81, 0x82, 0x88, 0x89, 0x8A, 0x01, 0x00, 0x80, 0xC1, 0x83, 0xFF, 0x09])
    size = rng.choice([len(payload)] * 6 + [0, 125, 126, 2**16, 2**63])
    masked = 0x80 if rng.random() < 0.9 else 0
    if size < 126:
        start = bytes([first, masked | size])
    elif size < 2**16:
        start = bytes([first, masked | 126]) + size.to_bytes(2, "big")
    else:
        start = bytes([first, masked | 127]) + size.to_bytes(8, "big")
    return start + (bytes(4) if masked else b"") + payload


def config(rng: random.Random) -> bytes:
    """Return a configuration file, or nearly."""
    scalar = [
        *NUMBERS[:12],
        "~",
        "yes",
        "[]",
        "{}",
        "''",
        "&a [*a]",
        "!!python/object:x y",
        "'\\ud800'",
        "\x00",
        "1e300",
        "-1",
    ]
    names = [
        "iii-trio",
        "iii-worker-manager",
        "limits",
        "timeouts",
        "queue_configs",
        "default",
        "auth",
        "tls",
        "port",
        "host",
        "delay_seconds",
    ]

    def block(depth: int) -> str:
        lines = []
        for _ in range(rng.randrange(1, 4)):
            name = rng.choice(names)
            inner = rng.random() < 0.5 and depth < 4
            lines.append("  " * depth + name + (":\n" + block(depth + 1) if inner else ": " + rng.choice(scalar)))
        return "\n".join(lines)

    top = "workers:\n  - name: " + rng.choice(names) + "\n    config:\n" + block(3) if rng.random() < 0.5 else block(0)
    return top.encode("utf-8", "surrogatepass") + (rng.randbytes(2) if rng.random() < 0.1 else b"")
