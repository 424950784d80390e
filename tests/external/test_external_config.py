"""External functions in the configuration file, and a worker's description of one."""

from __future__ import annotations

import pytest

from iii_trio.config.file import parse_config
from iii_trio.errors import ConfigError
from iii_trio.http import ApiKeyAuth, BearerAuth, ExternalCall, HmacAuth
from iii_trio.triggers.external.settings import ExternalConfig
from iii_trio.triggers.table import MODULES

WRONG = {
    "config: { url_allowlist: [] }": "unknown key `url_allowlist` in `config` of iii-http-functions; known are security",
    "config: { security: { require_http: true } }": (
        "unknown key `require_http` in `security`; did you mean `require_https`?"
    ),
    "config: { security: { require_https: 1 } }": "`require_https` is 1; give true or false",
    "config: { security: { url_allowlist: '*' } }": '`url_allowlist` is "*"; give a list',
    "iii-trio: { response_bytes: 0 }": "`response_bytes` is 0; it must be > 0",
    "iii-trio: { secret: [] }": "unknown key `secret` in `iii-trio` of iii-http-functions; did you mean `secrets`?",
}


def read(entry: str, name: str = "iii-http-functions") -> ExternalConfig | None:
    text = f"workers:\n  - name: {name}\n    {entry}\n"
    found = parse_config(text, "c.yaml", modules=MODULES).config.modules.get("external")
    assert found is None or isinstance(found, ExternalConfig)
    return found


@pytest.mark.parametrize("name", ["iii-http-functions", "http-functions"])
def test_every_setting_is_read(name: str) -> None:
    entry = (
        "config: { security: { url_allowlist: ['*.example'], block_private_ips: false, require_https: false } }\n"
        "    iii-trio: { secrets: [TIDES_*], response_bytes: 10, connections: 2 }"
    )
    assert read(entry, name) == ExternalConfig(("*.example",), False, False, ("TIDES_*",), 10, 2)
    assert read("config: {}") == ExternalConfig()


@pytest.mark.parametrize("entry", WRONG)
def test_what_cannot_be_meant_is_refused(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(entry)
    assert str(caught.value).partition(": ")[2].endswith(WRONG[entry])


def test_an_external_call_is_the_block_of_the_protocol() -> None:
    call = ExternalCall("https://tides.example", "GET", 1.5, {"a": "b"}, BearerAuth("T"))
    assert call.to_json() == {
        "url": "https://tides.example",
        "method": "GET",
        "timeout_ms": 1500,
        "headers": {"a": "b"},
        "auth": {"type": "bearer", "token_key": "T"},
    }
    assert ExternalCall("https://tides.example").to_json() == {"url": "https://tides.example", "method": "POST"}
    assert ApiKeyAuth("x-key", "T").to_json() == {"type": "api_key", "header": "x-key", "value_key": "T"}
    assert HmacAuth("T").to_json() == {"type": "hmac", "secret_key": "T"}


def test_the_default_settings_are_strict() -> None:
    config = ExternalConfig()
    assert config.block_private_ips and config.require_https and config.secrets is None
