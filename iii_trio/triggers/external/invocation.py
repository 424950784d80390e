"""The `invocation` block of a function, and the request that it becomes (protocol, section 9)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import attrs
import msgspec
from msgspec import Raw

from ...errors import CallError
from ...records import frozen
from ...wire import NULL, ErrorCode
from .addresses import BadUrl, Target, allows_host, matches
from .settings import ExternalConfig

REFUSED: Final = "url_validation_failed"
_TIMEOUT_MS: Final = 30_000
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|")
_FRAMING: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive"}
)
"""Headers that say how the message is read. One of a worker could make two requests of one."""


class Bearer(msgspec.Struct, tag="bearer"):
    """`Authorization: Bearer …`, out of an environment variable."""

    token_key: str


class ApiKey(msgspec.Struct, tag="api_key"):
    """A header of its own, out of an environment variable."""

    header: str
    value_key: str


class Hmac(msgspec.Struct, tag="hmac"):
    """A signature of the body, by a secret in an environment variable."""

    secret_key: str


class Invocation(msgspec.Struct):
    """Where a function is, as its worker registered it."""

    url: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    timeout_ms: Annotated[float, msgspec.Meta(gt=0, le=1e12)] | None = None
    headers: dict[str, str] | None = None
    auth: Bearer | ApiKey | Hmac | None = None


class Request(msgspec.Struct):
    """A call, or a question about a function, as the engine sends it."""

    function_id: str
    invocation: Invocation
    guarded: bool = True
    data: Raw = NULL
    caller: str | None = msgspec.field(name="_caller_worker_id", default=None)
    """Given where a worker called instead of the engine."""


@frozen
class Outgoing:
    """One request, ready to be sent."""

    method: str
    target: Target
    headers: dict[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    timeout_seconds: float


def read_request(text: bytes) -> Request:
    """Read what the engine sent. Raises CallError."""
    try:
        request = msgspec.json.decode(text, type=Request)
    except msgspec.DecodeError as error:
        problem = f"Failed to deserialize input for an external function: {error}"
        raise CallError(ErrorCode.DESERIALIZATION_ERROR, problem) from None
    # Only the engine knows which session registered the function, and whether that one is trusted.
    if request.caller is not None:
        raise CallError(ErrorCode.FORBIDDEN, "Only the engine calls this function. Register one with an `invocation`.")
    return request


def prepare(
    request: Request, config: ExternalConfig, variables: Mapping[str, str], timestamp: int, invocation_id: str
) -> Outgoing:
    """Check a request against the settings, and make the headers. Raises CallError."""
    invocation, body = request.invocation, bytes(request.data)
    target = check_url(invocation.url, config)
    headers = {
        "content-type": "application/json",
        "accept-encoding": "identity",  # so that a small response cannot become a large one
        "x-iii-function-path": _printable(request.function_id),
        "x-iii-invocation-id": invocation_id,
        "x-iii-timestamp": str(timestamp),
    }
    for name, value in (invocation.headers or {}).items():
        headers[_check_header(name, "headers")] = _check_value(value, f"the value of the header `{name[:100]}`")
    headers |= _auth(request, config, variables, timestamp, body)
    headers["host"] = target.authority
    timeout_ms = _TIMEOUT_MS if invocation.timeout_ms is None else invocation.timeout_ms
    return Outgoing(invocation.method or "POST", target, headers, body, timeout_ms / 1000)


def check_url(url: str, config: ExternalConfig) -> Target:
    """Check a URL against the settings, without a look at its addresses. Raises CallError."""
    try:
        target = Target.parse(url)
    except BadUrl as error:
        raise CallError(REFUSED, f"Invalid URL: {error}") from None
    if config.require_https and target.scheme != "https":
        raise CallError(REFUSED, "HTTPS is required (security.require_https)")
    if not allows_host(target.host, config.url_allowlist):
        raise CallError(REFUSED, "URL not in allowlist (security.url_allowlist)")
    return target


def _auth(
    request: Request, config: ExternalConfig, variables: Mapping[str, str], timestamp: int, body: bytes
) -> dict[str, str]:
    def secret(name: str, missing: str) -> str:
        allowed = config.secrets
        if not (matches(name, allowed) if allowed is not None else not request.guarded):
            raise CallError(ErrorCode.FORBIDDEN, f"`auth` may not name the variable {name[:100]!r} (setting `secrets`)")
        value = variables.get(name)
        if not value:
            raise CallError(missing, f"the engine's environment has no variable {name[:100]!r}, which `auth` names")
        return value

    match request.invocation.auth:
        case Bearer(token_key=name):
            return {"authorization": f"Bearer {_token(secret(name, 'token_not_found'), name)}"}
        case ApiKey(header=header, value_key=name):
            return {_check_header(header, "auth"): _token(secret(name, "api_key_not_found"), name)}
        case Hmac(secret_key=name):
            signed = f"{timestamp}:{base64.b64encode(body).decode()}".encode()
            digest = hmac.new(secret(name, "secret_not_found").encode(), signed, hashlib.sha256).hexdigest()
            return {"x-iii-signature": f"sha256={digest}"}
        case _:
            return {}


def _token(value: str, name: str) -> str:
    return _check_value(value, f"the value of the variable {name[:100]!r}")


def _check_header(name: str, where: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise CallError(ErrorCode.DESERIALIZATION_ERROR, f"`{where}` has a header whose name is none: {name[:100]!r}")
    if name.lower() in _FRAMING:
        text = f"`{where}` has the header `{name}`, which belongs to the connection: leave it out"
        raise CallError(ErrorCode.DESERIALIZATION_ERROR, text)
    return name.lower()


def _check_value(value: str, what: str) -> str:
    # The value itself stays out of the text, because it can be a secret.
    if _VALUE.fullmatch(value) is None:
        text = f"{what} has characters at which a header would end, or that are not ASCII"
        raise CallError(ErrorCode.DESERIALIZATION_ERROR, text)
    return value


def _printable(function_id: str) -> str:
    """Return a function's id as a header can hold it."""
    return "".join(letter if "!" <= letter <= "~" else "?" for letter in function_id)
