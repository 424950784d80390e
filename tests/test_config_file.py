"""The configuration file: what it means, and the exact sentence for everything that cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from iii_trio.config import (
    Auth,
    ChannelDefaults,
    EngineConfig,
    FunctionFilter,
    Limits,
    Listener,
    ListenerLimits,
    RbacConfig,
    RecorderSettings,
    Timeouts,
    Tls,
)
from iii_trio.config.default import default_config
from iii_trio.config.file import parse_config, read_config
from iii_trio.errors import ConfigError
from iii_trio.triggers.table import MODULES

ENTRY = "workers:\n  - name: iii-worker-manager\n"

WRONG = {
    "an unknown key at the top": (
        "worker: []\n",
        "config.yaml:1: unknown key `worker` at the top level; did you mean `workers`?",
    ),
    "an unknown key that resembles nothing": (
        "workers: []\nzebra: 1\n",
        "config.yaml:2: unknown key `zebra` at the top level; "
        "known are registration_namespace_grace_ms, workers, modules",
    ),
    "a list where keys belong": (
        "- name: iii-worker-manager\n",
        "config.yaml:1: holds a list, not keys; start it with `workers:`",
    ),
    "keys where a list belongs": (
        "workers:\n  iii-worker-manager: {}\n",
        "config.yaml:1: `workers` is keys and values; make it a list of `- name: …`",
    ),
    "an entry that is not a mapping": (
        "workers:\n  - name: iii-worker-manager\n  - iii-http\n",
        'config.yaml:3: an entry of `workers` is "iii-http"; write `- name: …`',
    ),
    "an entry without a name": (
        "workers:\n  - config: {}\n",
        "config.yaml:2: an entry of `workers` has no name; write `- name: …`",
    ),
    "a key given twice": (
        "workers: []\n\nworkers: []\n",
        "config.yaml:3: `workers` is given twice; keep one of the two",
    ),
    "no YAML": (
        "workers:\n  - name: [\n",
        "config.yaml:2: is not YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
    ),
    "an unset variable": (
        "# first\n" + ENTRY + "    config: { port: ${NOT_SET} }\n",
        "config.yaml:4: environment variable NOT_SET is not set; set it, or give a default: ${NOT_SET:value}",
    ),
    "a port out of range": (
        ENTRY + "    config:\n      host: localhost\n      port: 65536\n",
        "config.yaml:5: `port` is 65536; give a number from 0 (the system chooses) to 65535",
    ),
    "a port that is a word": (
        ENTRY + "    config: { port: http }\n",
        'config.yaml:3: `port` is "http"; give a number from 0 (the system chooses) to 65535',
    ),
    "a port that is yes": (
        ENTRY + "    config: { port: true }\n",
        "config.yaml:3: `port` is true; give a number from 0 (the system chooses) to 65535",
    ),
    "a host that is a number": (
        ENTRY + "    config: { host: 127 }\n",
        "config.yaml:3: `host` is 127; give an address such as 127.0.0.1",
    ),
    "an unknown key of a listener": (
        ENTRY + "    config: { prot: 1 }\n",
        "config.yaml:3: unknown key `prot` in `config` of iii-worker-manager; did you mean `port`?",
    ),
    "access rules without a value": (
        ENTRY + "    config:\n      rbac:\n",
        "config.yaml:4: `rbac` is empty; give its value, or remove the key",
    ),
    "an access rule without a value": (
        ENTRY + "    config:\n      rbac:\n        auth_function_id:\n",
        "config.yaml:5: `auth_function_id` is empty; give the id of a function, or remove the key",
    ),
    "an unknown access rule": (
        ENTRY + "    config:\n      rbac: { auth_function: gate::auth }\n",
        "config.yaml:4: unknown key `auth_function` in `rbac`; did you mean `auth_function_id`?",
    ),
    "a filter that is a plain text": (
        ENTRY + "    config:\n      rbac:\n        expose_functions:\n          - svc::*\n",
        'config.yaml:6: the filter "svc::*" cannot be used; write `match("svc::*")`, `{ match: "svc::*" }` or '
        "`{ metadata: { key: value } }`",
    ),
    "a filter with an unknown key": (
        ENTRY + "    config:\n      rbac:\n        expose_functions:\n          - { mach: a }\n",
        "config.yaml:6: unknown key `mach` in a filter of `expose_functions`; did you mean `match`?",
    ),
    "middleware that is a number": (
        ENTRY + "    config: { middleware_function_id: 7 }\n",
        "config.yaml:3: `middleware_function_id` is 7; give the id of a function",
    ),
    "no time for a handshake": (
        ENTRY + "    config: { handshake_timeout_ms: 0 }\n",
        "config.yaml:3: `handshake_timeout_ms` is 0; give a whole number of milliseconds, at least 1",
    ),
    "a grace time in words": (
        "registration_namespace_grace_ms: 5s\n",
        'config.yaml:1: `registration_namespace_grace_ms` is "5s"; give a whole number of milliseconds, at least 0',
    ),
    "two listeners at one place": (
        ENTRY + "  - name: iii-worker-manager\n    config: { port: 49134 }\n",
        "config.yaml:3: listens at 127.0.0.1:49134, as line 2 does; give each its own port",
    ),
    "two listeners at one place, with other deadlines": (
        ENTRY + "  - name: iii-worker-manager\n    config: { handshake_timeout_ms: 1 }\n",
        "config.yaml:3: listens at 127.0.0.1:49134, as line 2 does; give each its own port",
    ),
    "an entry of our own": (
        "workers:\n  - name: iii-trio\n    config: {}\n",
        "config.yaml:2: settings of iii-trio do not stand here; "
        "put the key `iii-trio:` into the entry `- name: iii-worker-manager`",
    ),
    "our settings on another's entry": (
        "workers:\n  - name: iii-http\n    iii-trio: {}\n",
        "config.yaml:3: settings of iii-trio do not stand here; "
        "put the key `iii-trio:` into the entry `- name: iii-worker-manager`",
    ),
    "our settings twice": (
        ENTRY + "    iii-trio: { name: a }\n  - name: iii-worker-manager\n    config: { port: 1 }\n"
        "    iii-trio: { name: b }\n",
        "config.yaml:6: `iii-trio` says something of the whole engine here and at line 3; keep one of the two",
    ),
    "one text for tokens": (
        ENTRY + "    iii-trio: { auth: { tokens: secret } }\n",
        "config.yaml:3: `auth.tokens` cannot be used; give a list of strings (in quotes, if they look otherwise)",
    ),
    "numbers for tokens": (
        ENTRY + "    iii-trio: { auth: { tokens: [12] } }\n",
        "config.yaml:3: `auth.tokens` cannot be used; give a list of strings (in quotes, if they look otherwise)",
    ),
    "an empty token": (
        ENTRY + "    iii-trio: { auth: { tokens: [''] } }\n",
        "config.yaml:3: `auth` cannot be used: 'auth' has a token that is empty, or has spaces around it",
    ),
    "no token at all": (
        ENTRY + "    iii-trio: { auth: { channels: key } }\n",
        "config.yaml:3: `auth` cannot be used: 'auth' has neither tokens nor a token file: nobody could come in",
    ),
    "another word for channels": (
        ENTRY + "    iii-trio: { auth: { tokens: [a], channels: token } }\n",
        "config.yaml:3: `auth.channels` cannot be used; give `key` or `key_and_token`",
    ),
    "auth whose child line is commented out": (
        ENTRY + "    iii-trio:\n      auth:\n        # token_file: /etc/tokens\n",
        "config.yaml:4: `auth` cannot be used: 'auth' has neither tokens nor a token file: nobody could come in",
    ),
    "TLS whose child line is commented out": (
        ENTRY + "    iii-trio:\n      tls:\n",
        "config.yaml:4: `tls` has no `certificate`",
    ),
    "certificates of clients that are commented out": (
        ENTRY + "    iii-trio: { tls: { certificate: a, clients: } }\n",
        "config.yaml:3: `tls.clients` is empty; give the path of a file, or remove the key",
    ),
    "a token file that is commented out": (
        ENTRY + "    iii-trio: { auth: { tokens: [a], token_file: } }\n",
        "config.yaml:3: `auth.token_file` is empty; give the path of a file, or remove the key",
    ),
    "a unix socket without its path": (
        ENTRY + "    iii-trio: { unix: }\n",
        "config.yaml:3: `unix` is empty; give the path of a socket, or remove the key",
    ),
    "our settings without any": (
        ENTRY + "    iii-trio:\n      # auth: { token_file: /etc/tokens }\n",
        "config.yaml:3: `iii-trio` is empty; give its settings, or remove the key",
    ),
    "a key of TLS that is a number": (
        ENTRY + "    iii-trio: { tls: { certificate: a, key: 3 } }\n",
        "config.yaml:3: `tls.key` cannot be used; give the path of a file",
    ),
    "TLS without a certificate": (
        ENTRY + "    iii-trio:\n      tls: { key: key.pem }\n",
        "config.yaml:4: `tls` has no `certificate`",
    ),
    "a unix socket that is a number": (
        ENTRY + "    iii-trio: { unix: 3 }\n",
        "config.yaml:3: `unix` is 3; give the path of a socket",
    ),
    "two listeners at one path": (
        ENTRY + "    iii-trio: { unix: /a }\n  - name: iii-worker-manager\n    iii-trio: { unix: /a }\n",
        "config.yaml:4: listens at unix:/a, as line 2 does; give each its own path",
    ),
    "an unknown section": (
        ENTRY + "    iii-trio: { limit: {} }\n",
        "config.yaml:3: unknown key `limit` in `iii-trio`; did you mean `limits`?",
    ),
    "an unknown limit": (
        ENTRY + "    iii-trio:\n      limits:\n        message_byte: 1\n",
        "config.yaml:5: unknown key `message_byte` in `iii-trio.limits`; did you mean `message_bytes`?",
    ),
    "a limit of another type": (
        ENTRY + '    iii-trio:\n      limits: { channels: 1, sessions: "10" }\n',
        'config.yaml:4: `limits.sessions` is "10"; give a whole number',
    ),
    "a limit that a validator refuses": (
        ENTRY + "    iii-trio: { channels: { buffer_size: 2000 } }\n",
        "config.yaml:3: `channels.buffer_size` is 2000; it must be <= 1024",
    ),
    "a listener's limit that is not a number": (
        ENTRY + "    iii-trio: { listener_limits: { sessions: many } }\n",
        'config.yaml:3: `listener_limits.sessions` is "many"; give a whole number',
    ),
    "a listener's limit below one": (
        ENTRY + "    iii-trio: { listener_limits: { connections: 0 } }\n",
        "config.yaml:3: `listener_limits.connections` is 0; it must be > 0",
    ),
    "a limit that no listener has": (
        ENTRY + "    iii-trio: { listener_limits: { channels: 3 } }\n",
        "config.yaml:3: unknown key `channels` in `iii-trio.listener_limits`; known are connections, sessions, "
        "channels_per_session, message_bytes, handshake_seconds",
    ),
    "a handshake time said twice": (
        ENTRY
        + "    config: { handshake_timeout_ms: 1 }\n    iii-trio: { listener_limits: { handshake_seconds: 1 } }\n",
        "config.yaml:4: `listener_limits.handshake_seconds` and `handshake_timeout_ms` say the same; keep one",
    ),
    "a size that no memory has": (
        ENTRY + "    iii-trio: { limits: { message_bytes: 100000000000000000000 } }\n",
        "config.yaml:3: `limits.message_bytes` is 100000000000000000000; it must be <= 9007199254740992",
    ),
    "a time that no clock has": (
        ENTRY + "    iii-trio: { timeouts: { goodbye_seconds: 1e300 } }\n",
        "config.yaml:3: `timeouts.goodbye_seconds` is 1e+300; it must be <= 1000000000",
    ),
    "a grace time that no clock has": (
        "registration_namespace_grace_ms: 10000000000000\n",
        "config.yaml:1: `registration_namespace_grace_ms` is 10000000000000; "
        "give a whole number of milliseconds, at most 1000000000000",
    ),
    "an alias to what contains it": (
        "workers: &a [*a]\n",
        "config.yaml:1: contains itself; remove the alias",
    ),
    "a key that is a list": (
        "workers: []\n? [a, b]\n: 3\n",
        "config.yaml:2: has a list or an object as a key; write a plain name",
    ),
    "a key that is an object": (
        "{ { a: 1 }: 3 }\n",
        "config.yaml:1: is not YAML: while constructing a mapping, found unhashable key",
    ),
    "a NUL": (
        ENTRY + '    iii-trio: { unix: "/tmp/a\\0b" }\n',
        "config.yaml:3: holds a NUL character; remove it",
    ),
    "a tag of a language": (
        "workers: !python/object:os.system x\n",
        "config.yaml:1: is not YAML: could not determine a constructor for the tag '!python/object:os.system'",
    ),
    "two things wrong, the later one of an earlier field": (
        ENTRY + "    iii-trio:\n      limits:\n        sessions: many\n        message_bytes: many\n",
        'config.yaml:5: `limits.sessions` is "many"; give a whole number',
    ),
    "a merged key that is wrong": (
        "workers:\n  - &a { name: iii-worker-manager, iii-trio: { limits: { sessions: 0 } } }\n  - <<: *a\n",
        "config.yaml:2: `limits.sessions` is 0; it must be > 0",
    ),
    "a time that is not a number": (
        ENTRY + "    iii-trio: { timeouts: { goodbye_seconds: .nan } }\n",
        "config.yaml:3: `timeouts.goodbye_seconds` is NaN; give a number",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_used_is_named_by_file_line_and_key(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "config.yaml", {})
    assert str(caught.value) == sentence


def test_aliases_of_aliases_do_not_make_an_endless_file() -> None:
    text = "workers: []\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    with pytest.raises(ConfigError, match=r"^c\.yaml:\d: holds more than 100000 values; make it smaller$"):
        parse_config(text, "c.yaml", {})


def test_an_empty_file_is_the_built_in_default() -> None:
    for text in ("", "workers: []\n", "workers:\n", "# nothing\n"):
        assert parse_config(text, "config.yaml", {}).config == default_config({}) == EngineConfig()


def test_every_listener_entry_is_a_listener() -> None:
    text = """
workers:
  - name: iii-worker-manager
    image: ignored
    config: { port: 49134, host: 0.0.0.0 }
  - name: iii-worker-manager
    config: { port: 0, handshake_timeout_ms: 1500 }
  - name: iii-worker-manager
    config: { port: 0, handshake_timeout_ms: 1500 }
"""
    found = parse_config(text, "config.yaml", {})
    free = Listener(port=0, limits=ListenerLimits(handshake_seconds=1.5))
    assert found.config.listeners == (Listener("0.0.0.0", 49134), free, free)
    assert found.warnings == ()


def test_variables_are_put_in_before_the_text_is_yaml() -> None:
    text = ENTRY + '    config: { port: "${PORT:1}", host: ${HOST:}${NAME:::1} }\n# ${NOT_SET}\n'
    assert parse_config(text, "config.yaml", {}).config.listeners == (Listener("::1", 1),)
    assert parse_config(text, "config.yaml", {"PORT": "2", "NAME": "b"}).config.listeners == (Listener("b", 2),)


def test_lines_are_those_of_the_file_also_after_a_value_of_several_lines() -> None:
    text = "# ${TEXT}\nworkers: []\nzebra: 1\n"
    with pytest.raises(ConfigError, match=r"^config\.yaml:3: unknown key `zebra`"):
        parse_config(text, "config.yaml", {"TEXT": "a\n# b\n# c"})


def test_yaml_is_read_as_iii_reads_it() -> None:
    """In YAML 1.2 `no` is a text and 1:30 is no ninety."""
    found = parse_config(ENTRY + "    config: { host: no }\n", "config.yaml", {})
    assert found.config.listeners[0].host == "no"


def test_workers_that_are_not_here_are_warned_of_once_each() -> None:
    text = "modules: [x]\nworkers:\n  - name: iii-http\n    config: {a: 1}\n  - name: configuration\n  - name: mine\n"
    assert parse_config(text, "c.yaml", {}).warnings == (
        "c.yaml:1: `modules` is iii's old spelling and has no effect here; move its entries to `workers`",
        "c.yaml:3: worker `iii-http` is not part of this engine and is not started; "
        "run it by itself, or remove the entry",
        "c.yaml:6: worker `mine` is not part of this engine and is not started; run it by itself, or remove the entry",
    )


def test_a_misspelt_entry_is_told_what_it_may_mean() -> None:
    near = "workers:\n  - name: iii-worker-managr\n"
    (warning,) = parse_config(near, "c.yaml", {}).warnings
    assert warning == (
        "c.yaml:2: worker `iii-worker-managr` is not part of this engine and is not started; "
        "did you mean `iii-worker-manager`?"
    )
    with pytest.raises(
        ConfigError, match=r"c.yaml:2: .* is not part of this engine; did you mean `iii-worker-manager`\?"
    ):
        parse_config(near + "    iii-trio: {limits: {sessions: 1}}\n", "c.yaml", {})
    (warning,) = parse_config("workers: [{name: iii-htp}]", "c.yaml", {}, modules=MODULES).warnings
    assert warning.endswith("did you mean `iii-http`?")
    (warning,) = parse_config("workers: [{name: iii-cron}]", "c.yaml", {}, modules=MODULES).warnings
    assert warning.endswith("run it by itself, or remove the entry")


def test_our_own_settings_stand_beside_the_config_of_a_listener() -> None:
    text = (
        ENTRY
        + """
    iii-trio:
      name: tidewater
      limits: { message_bytes: 1_000_000, handshake_seconds: 2 }
      channels: { expires_after_seconds: null, buffer_size: 0x10 }
      timeouts: { reattach_grace_seconds: 1.5 }
"""
    )
    assert parse_config(text, "config.yaml", {}).config == EngineConfig(
        name="tidewater",
        limits=Limits(message_bytes=1_000_000, handshake_seconds=2.0),
        channels=ChannelDefaults(expires_after_seconds=None, buffer_size=16),
        timeouts=Timeouts(reattach_grace_seconds=1.5),
    )


def test_the_grace_time_of_the_environment_wins() -> None:
    text = "registration_namespace_grace_ms: 2500\n"
    assert parse_config(text, "c", {}).config.timeouts.registration_grace_seconds == 2.5
    environ = {"III_NAMESPACE_GRACE_MS": "100"}
    assert parse_config(text, "c", environ).config.timeouts.registration_grace_seconds == 0.1
    assert default_config(environ).timeouts.registration_grace_seconds == 0.1
    with pytest.raises(ConfigError, match="III_NAMESPACE_GRACE_MS is 'soon'; set it to a number of milliseconds"):
        default_config({"III_NAMESPACE_GRACE_MS": "soon"})


def test_a_file_is_read_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    content = b"\xef\xbb\xbfworkers: []  # kept\r\n"
    path.write_bytes(content)
    assert read_config(path, {}).config == EngineConfig()
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "none.yaml", {})
    said = f"{tmp_path}/none.yaml: cannot be read (No such file or directory); name another file with --config"
    assert str(caught.value) == said
    (tmp_path / "latin.yaml").write_bytes(b"workers: [] # caf\xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: is not UTF-8 text \(byte 17\); save it as UTF-8"):
        read_config(tmp_path / "latin.yaml", {})


def test_each_listener_may_have_tls_tokens_or_a_unix_socket_and_one_of_them_speaks_for_the_engine() -> None:
    text = """
workers:
  - name: iii-worker-manager
    iii-trio: { unix: /run/engine.sock }
  - name: iii-worker-manager
    config: { host: 0.0.0.0, port: 443 }
    iii-trio:
      tls: { certificate: cert.pem, key: key.pem }
      auth: { tokens: [a, "1"], token_file: tokens, channels: key_and_token }
      name: two
"""
    read = parse_config(text, "config.yaml", {})
    auth = Auth(tokens=("a", "1"), token_file="tokens", channels="key_and_token")
    tls = Tls("cert.pem", "key.pem")
    assert read.config == EngineConfig(
        listeners=(Listener(unix="/run/engine.sock"), Listener("0.0.0.0", 443, tls=tls, auth=auth)), name="two"
    )


def test_each_listener_may_have_limits_of_its_own() -> None:
    text = """
workers:
  - name: iii-worker-manager
    config: { port: 1, handshake_timeout_ms: 1500 }
    iii-trio:
      listener_limits: { connections: 5, sessions: 4, channels_per_session: 3, message_bytes: 2 }
  - name: iii-worker-manager
    config: { port: 2 }
    iii-trio:
      listener_limits: { handshake_seconds: 1 }
      limits: { sessions: 9, held_back_registrations: 8 }
"""
    read = parse_config(text, "config.yaml", {})
    first = ListenerLimits(connections=5, sessions=4, channels_per_session=3, message_bytes=2, handshake_seconds=1.5)
    assert read.config == EngineConfig(
        listeners=(Listener(port=1, limits=first), Listener(port=2, limits=ListenerLimits(handshake_seconds=1.0))),
        limits=Limits(sessions=9, held_back_registrations=8),
    )


def listener_of(ours: str) -> Listener:
    """The listener that has these own settings."""
    return parse_config(f"{ENTRY}    iii-trio: {ours}\n", "config.yaml", {}).config.listeners[0]


def test_a_listener_names_origins_and_the_mode_of_its_socket() -> None:
    assert listener_of("{ origins: [https://app.example, 'http://other:81/'] }").origins == (
        "https://app.example",
        "http://other:81",
    )
    assert listener_of('{ origins: ["*"] }').origins == ("*",)
    assert (listener_of('{ unix: /s, mode: "0660" }').mode, listener_of("{ unix: /s }").mode) == (0o660, 0o600)


@pytest.mark.parametrize(
    ("ours", "problem"),
    [
        ("{ origins: https://app.example }", "`origins` cannot be used: 'origins' is one text: make it a list"),
        ("{ origins: [app.example] }", "write each as https://host or https://host:port"),
        ("{ origins: [1] }", "write each as https://host or https://host:port"),
        ("{ unix: /s, mode: 0660 }", "give a file mode in quotes"),
        ('{ unix: /s, mode: "999" }', "give a file mode in quotes"),
        ('{ unix: /s, mode: "rw" }', "give a file mode in quotes"),
    ],
)
def test_origins_and_modes_that_cannot_be_used_are_refused(ours: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f":3: .*{problem}"):
        listener_of(ours)


def test_access_rules_are_read_in_the_words_of_iii() -> None:
    text = (
        ENTRY
        + """    config:
      port: 49135
      middleware_function_id: gate::mid
      rbac:
        auth_function_id: gate::auth
        on_trigger_registration_function_id: gate::bind
        expose_functions:
          - match("public::*")
          - match('other::*')
          - { match: "svc::*", namespace: fleet }
          - metadata: { visibility: public }
"""
    )
    (listener,) = parse_config(text, "config.yaml", {}).config.listeners
    assert listener.middleware_function_id == "gate::mid" and listener.port == 49135
    assert listener.rbac == RbacConfig(
        auth_function_id="gate::auth",
        on_trigger_registration_function_id="gate::bind",
        expose_functions=[
            FunctionFilter("public::*"),
            FunctionFilter("other::*"),
            FunctionFilter("svc::*", namespace="fleet"),
            FunctionFilter(metadata={"visibility": "public"}),
        ],
    )


def test_the_flight_recorder_has_a_section() -> None:
    ours = "{ recorder: { enabled: true, bytes: 1048576, directory: /d, files: 3, payloads: true } }"
    read = parse_config(f"workers:\n  - name: iii-worker-manager\n    iii-trio: {ours}\n", "config.yaml", {})
    assert read.config.recorder == RecorderSettings(True, 1048576, True, "/d", 3)
    assert not EngineConfig().recorder.enabled and EngineConfig().recorder.bytes == 16 * 1024 * 1024


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("bytes: 1000", "`recorder.bytes` is 1000; it must be >= 262144"),
        ("files: 0", "`recorder.files` is 0; it must be >= 1"),
        ("enabled: maybe", '`recorder.enabled` is "maybe"; give true or false'),
        ("directory: 7", "`recorder.directory` is 7; give the path of a directory"),
        ("byte: 7", "unknown key `byte` in `iii-trio.recorder`; did you mean `bytes`?"),
    ],
)
def test_a_wrong_setting_of_the_flight_recorder_is_named(setting: str, problem: str) -> None:
    text = f"workers:\n  - name: iii-worker-manager\n    iii-trio: {{ recorder: {{ {setting} }} }}\n"
    with pytest.raises(ConfigError) as found:
        parse_config(text, "config.yaml", {})
    assert str(found.value) == f"config.yaml:3: {problem}"
